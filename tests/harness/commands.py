"""Commands that are run to their end, with a limit of patience."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.patience import Patience


def ended(process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float) -> int:
    """Its exit code, once it has ended; raises OutOfPatience. Whoever has its pipes must read them meanwhile."""
    patience = Patience(seconds)
    while True:
        try:
            return process.wait(patience.left() or 0.001)
        except subprocess.TimeoutExpired:
            patience.check(f"the end of {shown(process.args)}")


def ran(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    stdin: str | None = None,
    show: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run it; what it said and its exit code. Raises OutOfPatience with what it had said so far, and kills it. With
    `show` it says so to whom we do."""
    patience = Patience(seconds)
    pipe = None if show else subprocess.PIPE
    source = None if stdin is None else subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdin=source, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            while True:
                try:
                    out, error = process.communicate(stdin, timeout=patience.left() or 0.001)
                    return subprocess.CompletedProcess(command, process.returncode, out or "", error or "")
                except subprocess.TimeoutExpired:
                    stdin = None  # it has been handed over
                    if not patience.left():
                        process.kill()
                        out, error = process.communicate()
                        said = (out or "") + (error or "")
                        patience.check(f"the end of {shown(command)}, which said\n{said[-3000:]}\n")
        except BaseException:
            process.kill()
            raise


def succeeded(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> str:
    """Run it; its standard output. Raises AssertionError with the end of what it said where it fails."""
    done = ran(command, seconds, environment, folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{shown(command)} ended with {done.returncode}\n{said[-3000:]}"
    return done.stdout


def shown(command: object) -> str:
    """A command as a person would type it."""
    return " ".join(map(str, command)) if isinstance(command, list | tuple) else str(command)
