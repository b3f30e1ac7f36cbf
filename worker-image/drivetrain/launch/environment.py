"""What a launcher puts into the environment of each rank process."""

from typing import Final

ENV_LINK_FD: Final = "DRIVETRAIN_LINK_FD"
"""Descriptor of the rank's end of its link."""
ENV_PROCESS: Final = "DRIVETRAIN_PROCESS"
"""Id of the rank process, unique in the job for ever; all that it starts inherits it."""
ENV_SPARE_LEVEL: Final = "DRIVETRAIN_SPARE_LEVEL"
"""How far a spare warms up: `model` or `import`; unset for a candidate.

In the launcher's own environment it says which level its spares get."""
SPARE_MODEL: Final = "model"
SPARE_IMPORT: Final = "import"
