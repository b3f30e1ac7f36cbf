"""What can go wrong in a training process.

DrivetrainError
├── UsageError            the script or its settings: the message names the argument or field to change
├── DataError             a dataset's file cannot be read: the message names file and record
├── StateMismatch         a peer's state does not fit this process's model or optimizer
├── OutOfStep             the others are further than this process's script can follow: it must be replaced
├── StateLost             state that was shared out over the ranks died with some of them
├── Deviation             the ranks' scripts are at different operations: the message says where each is
├── PeerError             what another rank raised in a shared operation; also of the class that it has there
└── Interrupted           control flow: the current operation ends and is tried again in the next membership
    ├── MembershipOver    the coordinator told us to move on
    └── CommFault         a peer vanished, or the transport failed
"""


class DrivetrainError(Exception):
    """Base of all errors that this package raises."""


class UsageError(DrivetrainError):
    """The script, or the job's spec, asks for something impossible."""


class DataError(DrivetrainError):
    """A dataset's file is not there any more, or its content is not what it should be."""


class StateMismatch(DrivetrainError):
    """State received from a peer, or read from a file, does not fit what `prepare` built here."""


class OutOfStep(DrivetrainError):
    """This process was away for too long: a fresh one, whose script starts anew, has to take its place."""


class StateLost(DrivetrainError):
    """A part of the training state is nowhere any more: all members must go back to what was saved."""

    def __init__(self, message: str, *, saved: bool) -> None:
        """`saved`: all members find a file to go on from."""
        super().__init__(message)
        self.saved = saved


class Deviation(DrivetrainError):
    """The scripts of the ranks have come apart. A repeat cannot help: in a job, this ends it."""


class PeerError(DrivetrainError):
    """An error of another rank that has closed an operation for all."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Interrupted(DrivetrainError):
    """An operation was cut short; nothing of it was applied."""


class MembershipOver(Interrupted):
    """The membership epoch of this operation is over."""


class CommFault(Interrupted):
    """Communication with a peer failed; the process reports it and waits for the next epoch."""
