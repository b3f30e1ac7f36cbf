"""What can go wrong with snapshots. None of these ends training by itself.

SnapshotError
├── Damaged           bytes that were written are not what is there
├── Fenced            a newer run of the job writes here: whoever is told so must not go on
└── StorageError      the storage does not do what it should: the message names path and cause
    ├── Exists        there is an object of this name already
    └── Missing       there is none
"""

from drivetrain.errors import DrivetrainError


class SnapshotError(DrivetrainError):
    """Base of these."""


class Damaged(SnapshotError):
    """What was read is not what was written."""


class Fenced(SnapshotError):
    """Somebody newer has taken the job over."""


class StorageError(SnapshotError):
    """The storage refuses, or cannot."""


class Exists(StorageError):
    """There is an object of this name."""


class Missing(StorageError):
    """There is no object of this name."""
