"""What must operations know of that which is trained? `run.prepare` says it; before, there is nothing to know."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from drivetrain.comm.transport import Transport
from drivetrain.healing import Healing
from drivetrain.world.reunion import Sharded


@dataclass(frozen=True, slots=True)
class Subject:
    """Of one process."""

    sharded: Sharded | None = None
    """State of which every rank has but a part, if it is so."""
    in_two_phases: bool = False
    """Whether nobody makes an update before all can (readied.py)."""
    data_size: int | None = None
    """Samples that are trained on; None if nobody knows how many."""
    tells_in_band: bool = True
    """Whether a rank that fails can go on to exchange; else it tells the others in the next membership."""
    follow: Callable[[int], tuple[int, dict[str, int]]] = lambda step: (0, {})
    """Called before each attempt at a step; tells sets of trained parameters apart, and hyper-parameters."""
    hand_over: Callable[[Transport], None] = lambda transport: None
    """Called before members come or go, in their old group: to give up what only this rank knows."""
    ours: Callable[[], AbstractContextManager[None]] = nullcontext
    """While the runtime is at work: see parallel/absent.py."""
    healing: Healing | None = None
    """Compares the ranks' state."""
    on_first_state: Callable[[], None] = lambda: None
    """Called when nobody had state: the place to load a saved one, before it is copied to all."""
    saved_step: Callable[[], int] = lambda: -1
    """Which step that would be; -1: there is no file."""
