"""Which storage does somebody mean? By what was written in a job's spec, in a script or on a command line."""

from __future__ import annotations

from pathlib import Path

from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.storage.local import Local


def storage_at(place: str) -> Storage:
    """The storage there. Looks at nothing yet."""
    return Local(Path(place))
