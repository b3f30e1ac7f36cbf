"""Running a program to its end: the one place where a failing command becomes an error that shows its last lines."""

import subprocess
from collections.abc import Mapping, Sequence

from cluster.errors import CommandFailed, NotInTime


def run(
    command: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    show: bool = False,
) -> str:
    """Run `command`, return its standard output; `timeout` in seconds. With `show` all it says goes to ours instead."""
    shown = " ".join(command)
    try:
        result = subprocess.run(command, input=stdin, env=env, timeout=timeout, capture_output=not show, text=True)
    except subprocess.TimeoutExpired as error:
        raise NotInTime(f"`{shown}` did not end within {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise CommandFailed(f"`{command[0]}` is not installed; run: python -m cluster preflight") from error
    if result.returncode:
        said = "" if show else (result.stderr or result.stdout)[-3000:]
        raise CommandFailed(f"`{shown}` ended with {result.returncode}; {said}")
    return result.stdout or ""


def succeeds(command: Sequence[str], *, timeout: float = 60) -> bool:
    """Whether `command` ends with 0. For questions, never for changes: it hides why not."""
    try:
        run(command, timeout=timeout)
    except CommandFailed:
        return False
    return True
