"""Running other programs, so that a failure says what was run and what it said."""

from collections.abc import Mapping, Sequence

from cluster.errors import CommandFailed, NotInTime
from cluster.layout import MARKER
from harness import activity
from harness.commands import ran
from harness.patience import OutOfPatience

activity.also(MARKER)  # what we run waits for daemons: while they work, it is not late


def run(
    command: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    show: bool = False,
) -> str:
    """Run `command`, return its standard output. It may take until neither it nor any of the cluster's daemons has done
    anything for `timeout` seconds. With `show` all it says goes to ours instead."""
    said = " ".join(command)
    try:
        result = ran(command, timeout, env, stdin=stdin, show=show)
    except OutOfPatience as error:
        raise NotInTime(f"`{said}` did not end: {error}") from error
    except FileNotFoundError as error:
        raise CommandFailed(f"`{command[0]}` is not installed; run: python -m cluster preflight") from error
    if result.returncode:
        raise CommandFailed(f"`{said}` ended with {result.returncode}; {(result.stderr or result.stdout)[-3000:]}")
    return result.stdout


def succeeds(command: Sequence[str], *, timeout: float = 60) -> bool:
    """Whether `command` ends with 0. For questions, never for changes: it hides why not."""
    try:
        run(command, timeout=timeout)
    except CommandFailed:
        return False
    return True
