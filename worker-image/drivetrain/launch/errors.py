"""Why the launcher ends, each with the exit code that the pod then shows.

LauncherError
├── UsageError          64  arguments or environment
├── IncompatibleError   65  no shared protocol version
├── RefusedError        66  turned away by the coordinator
├── FencedError         67  cut off
├── CommandError        68  the job's command cannot be started
├── UnfitError          71  the image lacks what the job needs
├── StorageFailed       74  spec.storage cannot be used
└── ToldToLeave        143  SIGTERM came before there were ranks
"""

from __future__ import annotations

from typing import ClassVar

from drivetrain_api.exit_codes import ExitCode


class LauncherError(Exception):
    """The launcher cannot go on; the message says what to change."""

    code: ClassVar[ExitCode] = ExitCode.INTERNAL


class UsageError(LauncherError):
    """Arguments or environment cannot be used."""

    code = ExitCode.USAGE


class IncompatibleError(LauncherError):
    """Launcher and coordinator share no protocol version."""

    code = ExitCode.INCOMPATIBLE


class RefusedError(LauncherError):
    """The coordinator refused this pod for longer than a lagging roster or Secret explains."""

    code = ExitCode.REFUSED


class FencedError(LauncherError):
    """No coordinator and no committed step for `recovery.fenceSeconds`."""

    code = ExitCode.FENCED


class CommandError(LauncherError):
    """The job's command was not found or is not executable."""

    code = ExitCode.COMMAND


class UnfitError(LauncherError):
    """The image has no Python, torch or package that the job needs, or too old a one."""

    code = ExitCode.UNFIT


class StorageFailed(LauncherError):
    """The folder of spec.storage cannot be made, or what is at its URL cannot be read."""

    code = ExitCode.STORAGE


class ToldToLeave(LauncherError):
    """The pod is to go, and has no ranks yet."""

    code = ExitCode.LEFT
