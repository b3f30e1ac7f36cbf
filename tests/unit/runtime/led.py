"""Ranks whose membership a test leads: processes that die where it says, and others in their places.

The test plays the coordinator: who has died is out, a fresh process has its rank, and all are told to form anew.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from torch._C._distributed_c10d import TCPStore

import drivetrain.run
from drivetrain import faults
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault, Interrupted
from drivetrain.telemetry.spending import Spending
from drivetrain.world.base import Entry, Synchronise
from drivetrain.world.fixed import Fixed
from drivetrain.world.heal import Doing, Healed
from drivetrain_api.messages import EpochId
from harness.patience import Patience
from unit.runtime.together import Pipe, Ranks, Worlds

LIMIT_SECONDS = 240.0
"""More than the test waits."""


@dataclass(frozen=True)
class Form:
    """A membership."""

    number: int
    rank: int
    size: int
    port: int
    new: bool


@dataclass(frozen=True)
class Death:
    """Of a rank, in a step, at a point of it (drivetrain.faults), or as its connections are told to send for the n-th
    time (`send 3`). `deaf`: who lives, but hears nothing more from there."""

    step: int
    point: str
    rank: int
    deaf: int | None = None


class Led(Fixed):
    """A rank's view."""

    pipe: Pipe

    def __init__(self, synchronise: Synchronise) -> None:
        super().__init__(None, synchronise)
        self._news = threading.Condition()
        self._form: Form | None = None
        self._interrupt = Interrupt()
        self._place = 0, 0
        threading.Thread(target=self._listen, daemon=True).start()

    @classmethod
    def from_environment(cls, synchronise: Synchronise, spending: Spending | None = None) -> Led:
        return cls(synchronise)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                form = self.pipe.hear()
                with self._news:
                    self._form = form
                    self._interrupt.end(f"membership {form.number}")
                    self._news.notify_all()

    @property
    def rank(self) -> int:
        return self._place[0]

    @property
    def size(self) -> int:
        return self._place[1]

    def ensure(self, doing: Doing) -> Healed | None:
        if self.transport is not None and self._interrupt.reason is None:
            return None
        while True:
            self._leave()
            with self._news:
                assert self._news.wait_for(lambda: self._form is not None, LIMIT_SECONDS), "no membership"
                form, self._form = self._form, None
                self._interrupt = interrupt = Interrupt()
            assert form is not None
            self.epoch, self._place = EpochId(1, form.number), (form.rank, form.size)
            try:
                store = TCPStore("127.0.0.1", form.port, is_master=False, wait_for_workers=False)
                group = connect_gloo(store, form.rank, form.size, interrupt, LIMIT_SECONDS, None)
                secret = f"membership {form.number}".encode()
                self.transport = Transport(group, form.rank, form.size, interrupt, secret=secret)
                faults.point("forming", -1)
                return self._synchronise(self.transport, doing, Entry(new=form.new, may_start=form.number == 1))
            except Interrupted:
                continue

    def _leave(self) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            self._interrupt.end("left")
            transport.abandon(self._quarantine)

    def interrupted(self, error: Interrupted) -> None:
        self._leave()

    def failed(self, error: BaseException) -> None:
        self._leave()


@dataclass
class Mortal:
    """Kills this process where it is told."""

    rank: int
    deaths: Sequence[Death]
    step: int = -1
    _sends: int = 0

    def install(self) -> None:
        faults.install(self._reached)
        guarded = Transport._guarded

        def counting(transport: Transport, start: Any, what: str) -> Any:
            self._reached(f"send {self._sends}", self.step)
            self._sends += 1
            return guarded(transport, start, what)

        Transport._guarded = counting  # type: ignore[assignment,method-assign]  # this process is the test's own

    def begin(self, step: int) -> None:
        """The script comes to this step."""
        self.step, self._sends = step, 0

    def _reached(self, point: str, step: int) -> None:
        for each in self.deaths:
            if (each.point, each.step) == (point, self.step):
                if each.rank == self.rank:
                    os.kill(os.getpid(), signal.SIGKILL)
                if each.deaf == self.rank:
                    self.deaths = [other for other in self.deaths if other is not each]
                    raise CommFault("deaf from here on")


def lead(pipe: Pipe, deaths: Sequence[Death], rank: int) -> Mortal:
    """In a rank: its next `Run` is led by the test."""
    os.environ["WORLD_SIZE"] = "1"
    Led.pipe = pipe
    drivetrain.run.Fixed = Led  # type: ignore[assignment,attr-defined]
    mortal = Mortal(rank, deaths)
    mortal.install()
    return mortal


@dataclass
class Leader:
    """The test's end: `function(pipe, deaths, rank, *args)` runs in each rank and calls `lead`."""

    function: Any
    world: int
    deaths: Sequence[Death]
    args: tuple[Any, ...]
    pids: dict[int, list[int]] = field(default_factory=dict)
    """Of the processes that had a rank, one after the other."""
    died: int = 0

    def survivors(self) -> list[int]:
        """Ranks that one process had from beginning to end."""
        return [rank for rank, pids in self.pids.items() if len(pids) == 1]

    def results(self, seconds: float = 180.0) -> list[Any]:
        """What the last process of each rank returned, by rank."""
        patience, number, left = Patience(seconds), 0, list(self.deaths)
        with contextlib.ExitStack() as stack:
            stores: list[Worlds] = []  # as long as the ranks need them
            ranks: dict[int, Ranks] = {}
            found: dict[int, Any] = {}

            def start(rank: int) -> None:
                ranks[rank] = stack.enter_context(Ranks(self.function, 1, tuple(left), rank, *self.args))
                self.pids.setdefault(rank, []).extend(ranks[rank].pids)

            def form(new: int | None) -> None:
                nonlocal number
                number += 1
                stores.append(Worlds(["all"]))
                for rank, each in ranks.items():
                    with contextlib.suppress(BrokenPipeError):
                        each.tell(0, Form(number, rank, self.world, stores[-1].ports["all"], rank == new))

            for rank in range(self.world):
                start(rank)
            form(None)
            while len(found) < self.world:
                pipes = {ranks[rank]._pipes[0]: rank for rank in range(self.world) if rank not in found}
                for pipe in wait(list(pipes), patience.left()):
                    rank = pipes[pipe]  # type: ignore[index]
                    try:
                        found[rank] = ranks[rank].hear(0)
                    except (AssertionError, ConnectionResetError) as error:  # reset: it had not read all
                        if isinstance(error, AssertionError) and "said nothing" not in str(error):
                            raise
                        self.died += 1
                        left.remove(next(each for each in left if each.rank == rank))
                        start(rank)
                        form(rank)
                patience.check(f"the results of all ranks; {self.died} have died so far")
            return [found[rank] for rank in range(self.world)]
