"""What a launcher puts into the environment of each rank process."""

from typing import Final

ENV_LINK_FD: Final = "DRIVETRAIN_LINK_FD"
"""Descriptor of the rank's end of its link."""
ENV_PROCESS: Final = "DRIVETRAIN_PROCESS"
"""Id of the rank process, unique in the job for ever; all that it starts inherits it."""
ENV_SPARE_LEVEL: Final = "DRIVETRAIN_SPARE_LEVEL"
"""How far a spare warms up: `model` or `import`; unset for a candidate.

In the launcher's own environment it says which level its spares get."""
ENV_LOCAL_RANK: Final = "LOCAL_RANK"
"""Place of a needed process in its pod, 0 to processes_per_worker - 1: which GPU is its. As under torchrun.

A spare has none until it takes a place; the runtime's end of the link sets it then."""
SPARE_MODEL: Final = "model"
SPARE_IMPORT: Final = "import"
ENV_PROGRESS_URL: Final = "DRIVETRAIN_PROGRESS_URL"
"""Of a stock script's keeper: where its script may tell its progress, less the process's id."""
ENV_PROGRESS_TOKEN: Final = "DRIVETRAIN_PROGRESS_TOKEN"
"""File with the bearer token for it."""
