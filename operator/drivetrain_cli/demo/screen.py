"""What does a person see while the demo runs? A live view on a terminal, else plain lines, a few a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_LINE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the training looks now."""

    step: int
    """Steps that all members have finished."""
    steps: int
    loss: float | None = None
    samples_per_second: float | None = None
    phase: str = ""
    workers: str = ""
    """ready/target."""
    membership: str = ""
    members: Mapping[int, int] = field(default_factory=dict)
    """pid by rank."""
    killed: frozenset[int] = frozenset()


class Screen(Protocol):
    """Where the demo shows itself."""

    def say(self, text: str = "") -> None:
        """A line that stays."""

    def update(self, now: Snapshot) -> None:
        """The training has gone on."""

    def close(self) -> None:
        """The training is over."""


class Plain:
    """Lines, for logs and pipes."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._due = 0.0
        self._last = ""

    def say(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def update(self, now: Snapshot) -> None:
        line = "  ".join(_facts(now))
        if time.monotonic() < self._due or line == self._last:
            return
        self._due = time.monotonic() + _LINE_SECONDS
        self._last = line
        self.say(f"  {line}")

    def close(self) -> None:
        return


class Terminal:
    """A block at the bottom that is drawn again and again; what is said stays above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._live.start()

    def say(self, text: str = "") -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, now: Snapshot) -> None:
        self._live.update(_drawn(now))

    def close(self) -> None:
        self._live.stop()


def make_screen() -> Screen:
    """The live view if stdout is a terminal."""
    console = Console()
    return Terminal(console) if console.is_terminal and not console.is_dumb_terminal else Plain()


def _facts(now: Snapshot) -> list[str]:
    facts = [f"step {now.step}/{now.steps}"]
    facts += [f"loss {now.loss:.3f}"] if now.loss is not None else []
    facts += [f"{now.samples_per_second:,.0f} samples/s"] if now.samples_per_second else []
    facts += [f"workers {now.workers}"] if now.workers else []
    facts += [f"membership {now.membership}, world {len(now.members)}"] if now.membership else []
    return facts + ([now.phase] if now.phase else [])


def _drawn(now: Snapshot) -> Group:
    step, *facts = _facts(now)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=max(1, now.steps), completed=now.step, width=40), Text(step))
    ranks = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("rank", "process", ""):
        ranks.add_column(heading)
    for rank, pid in sorted(now.members.items()):
        dead = pid in now.killed
        ranks.add_row(str(rank), f"pid {pid}", Text("killed", "bold red") if dead else Text("training", "green"))
    return Group(Text(), grid, Text("  ".join(facts)), ranks)
