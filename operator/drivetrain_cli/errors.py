"""How does a command end? With one of these codes, and a message that names the flag or setting to change.

CliError                 base: `code` becomes the exit code
├── UsageError           2   an argument cannot work; the message names its flag
├── NoCluster            3   no API server, or one without TrainingJobs
├── JobNotFound          4   no job of this name
└── TookTooLong          1   a wait was longer than --timeout; what was waited for goes on
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of all commands, as `drivetrain --help` lists them."""

    OK = 0
    """Done; with `run` and `logs -f`: the job succeeded."""
    FAILED = 1
    """The job failed, a check failed, or something was lost."""
    USAGE = 2
    NO_CLUSTER = 3
    NOT_FOUND = 4
    INTERRUPTED = 130
    """Ctrl-C."""


class CliError(Exception):
    """Printed as `drivetrain: <message>`; nothing else of it is shown."""

    code = Exit.FAILED


class UsageError(CliError):
    """An argument cannot work."""

    code = Exit.USAGE


class NoCluster(CliError):
    """There is no API server that knows TrainingJobs."""

    code = Exit.NO_CLUSTER


class JobNotFound(CliError):
    """There is no job of this name."""

    code = Exit.NOT_FOUND


class TookTooLong(CliError, TimeoutError):
    """A wait was longer than it may be; what was waited for goes on all the same."""
