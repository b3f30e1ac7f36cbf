"""What a command runs, once `python`, `torchrun` and `accelerate launch` are taken off it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["script", "module", "code", "executable"]

_OPTION: Final[dict[Kind, tuple[str, ...]]] = {"script": (), "module": ("-m",), "code": ("-c",), "executable": ()}


@dataclass(frozen=True, slots=True)
class Program:
    """A script, a module (`python -m`), code (`python -c`), or anything else that can be executed."""

    kind: Kind
    target: str
    arguments: tuple[str, ...] = ()
    interpreter: tuple[str, ...] = ()
    """Python with its options; empty for an executable."""
    launcher: str = ""
    """Whose command it was: torchrun, accelerate launch, or nobody's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What that launcher would have set beside the contract."""
    per_worker: int | None = None
    """Processes on each machine that were asked for."""
    processes: int | None = None
    """The same on all machines together."""
    nodes: tuple[int, int] | None = None
    """Fewest and most machines."""
    unused: tuple[str, ...] = ()
    """Options for what is the job's own business here."""

    @property
    def command(self) -> tuple[str, ...]:
        """How it is run without its launcher."""
        return (*self.interpreter, *_OPTION[self.kind], self.target, *self.arguments)
