"""Exit codes of the launcher, which become the worker container's exit code. Documented; never renumbered.

One is not the launcher's, but of the init container that installs a job's packages.

A rank process's own exit code never becomes the container's: it is reported in `status.failures[]`. Two of them have a
meaning here, too.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Why a launcher ended."""

    COMPLETE = 0
    """The coordinator said that every member has finished. One such pod proves that the job succeeded."""
    INTERNAL = 70
    """A defect of the launcher itself; its traceback is in the log."""
    USAGE = 64
    """The launcher was started with arguments or an environment that it cannot use."""
    INCOMPATIBLE = 65
    """Launcher and coordinator share no protocol version: condition `IncompatibleWorkerImage`."""
    REFUSED = 66
    """The coordinator refused the pod: wrong token, wrong job, or a slot that belongs to another pod."""
    FENCED = 67
    """No coordinator and no finished collective for `recovery.fenceSeconds`: the ranks were killed."""
    COMMAND = 68
    """The job's command could not be started (not found, not executable)."""
    STOPPED = 69
    """The operator ended the job (failed, suspended, deleted)."""
    STORAGE = 74
    """`spec.storage` cannot be used: its folder cannot be made, or what is at its URL cannot be read."""
    UNFIT = 71
    """`spec.image` lacks what the runtime needs, or has it too old: Python 3.10, torch. Nothing was run."""
    REQUIREMENTS = 72
    """Of the init container `requirements` (`drivetrain run --requirements`): what is asked for cannot be
    installed, however often it is tried."""
    LEFT = 143
    """Told to go (SIGTERM: drain, scale-down) and left after all others acknowledged. Not a failure."""


class RankExitCode(IntEnum):
    """Why a rank process ended itself, where its script did not."""

    REPLACE_ME = 75
    """It wants a fresh process in its place (EX_TEMPFAIL)."""
    STATE_LOST = 76
    """No fresh process could go on: a part of the training state is gone, and nothing was saved."""
    DEVIATION = 77
    """The ranks' scripts are at different operations: a repeat cannot help."""
