"""How is this job's command run? Decided once by each launcher, before it starts anything; all decide alike."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivetrain.torchrun import command as commands
from drivetrain.torchrun.program import Program
from drivetrain.torchrun.reading import uses_drivetrain
from drivetrain_api.runtime import RuntimeSpec

_KEEP: Final = str(Path(__file__).with_name("keep.py"))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a launcher starts for each rank."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """For the log."""
    stock: bool = False
    """It says nothing of its steps, and saves at SIGTERM if at all."""
    interpreter: tuple[str, ...] = ()
    """Python that runs the script, with its options; empty if nobody knows which does."""


def choose(command: tuple[str, ...], spec: RuntimeSpec, environ: Mapping[str, str], folder: Path) -> Choice:
    """Raises `CommandError` where the command asks for what cannot be."""
    program = commands.parse(command)
    if program.launcher:
        # A job that may shrink or grow has both; what others set later (/scale) is none of a command's business.
        commands.agree(program, spec.processes_per_worker, spec.min_workers, max(spec.workers, spec.min_workers))
    if not _is_stock(program, spec, environ, folder):
        plain = program.command if program.launcher else command
        return Choice(plain, program.environment, _note(program), interpreter=program.interpreter)
    interpreter = program.interpreter or (sys.executable,)
    keeper = (*interpreter, _KEEP, program.kind, program.target, *program.arguments)
    return Choice(keeper, program.environment, _note(program), stock=True, interpreter=program.interpreter)


def _is_stock(program: Program, spec: RuntimeSpec, environ: Mapping[str, str], folder: Path) -> bool:
    if spec.runtime != "auto":
        return spec.runtime == "torchrun"
    uses = uses_drivetrain(program, folder, environ.get("PYTHONPATH", ""))
    return uses is False or (uses is None and bool(program.launcher))


def _note(program: Program) -> str:
    if not program.unused:
        return ""
    options = ", ".join(dict.fromkeys(program.unused))
    return f"{program.launcher}: {options} are not used: where ranks meet and how often they start again is the job's"
