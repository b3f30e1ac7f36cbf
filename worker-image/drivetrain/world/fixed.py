"""A world that never changes: one process alone, or the ranks that torchrun started.

There is nothing to wait for and nothing to heal later; an error of communication ends the process, and torchrun starts
all of them again. Good for debugging and as a baseline, with the same script.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from drivetrain.comm.nccl import connect_nccl
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import Deviation, Interrupted
from drivetrain.position import StepResult
from drivetrain.telemetry.spending import Spending
from drivetrain.world.attempt import agree
from drivetrain.world.base import Entry, Synchronise
from drivetrain.world.heal import Doing, Healed
from drivetrain_api.messages import EpochId, Progress

CONNECT_SECONDS = 300.0
"""As torch waits for a rendezvous; torchrun's agents arrive within it or give up too."""


class Fixed:
    """Alone (`transport` None) or with the ranks of a launcher that restarts everybody on a failure."""

    unplaced = None
    change_pending = False
    is_spare = False
    epoch = EpochId(1, 1)

    def __init__(
        self,
        transport: Transport | None,
        synchronise: Synchronise,
        keys: Store | None = None,
        spending: Spending | None = None,
    ) -> None:
        """`keys`: the store that the ranks of `transport` have met in. `spending` is told what the script is at."""
        self._spending = spending or Spending()
        self.transport = transport
        self._keys = keys
        self._synchronise = synchronise
        self._quarantine = Quarantine()
        self._entered = False

    @classmethod
    def from_environment(cls, synchronise: Synchronise, spending: Spending | None = None) -> Fixed:
        """torchrun's world when its variables are set (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), else alone."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls(None, synchronise, spending=spending)
        rank = int(os.environ["RANK"])
        store: Store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            world,
            is_master=False if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else rank == 0,
            timeout=timedelta(seconds=CONNECT_SECONDS),
        )
        store = PrefixStore("drivetrain", store)
        keys = PrefixStore(agree(store, rank, world, CONNECT_SECONDS), store)
        interrupt = Interrupt()
        group = connect_gloo(keys, rank, world, interrupt, CONNECT_SECONDS, address=None)
        blocked = spending.blocked if spending is not None else lambda waiting: None
        return cls(Transport(group, rank, world, interrupt, blocked), synchronise, keys, spending)

    @property
    def rank(self) -> int:
        return self.transport.rank if self.transport else 0

    @property
    def size(self) -> int:
        return self.transport.world if self.transport else 1

    def process(self, rank: int) -> str:
        return ""

    def ensure(self, doing: Doing) -> Healed | None:
        if self._entered:
            return None
        self._entered = True
        if self.transport is not None and self._keys is not None:
            # Not before: data workers have been forked by now, which they could not be with CUDA under way.
            self.transport.nccl = connect_nccl(self._keys, self.transport, CONNECT_SECONDS)
        return self._synchronise(self.transport, doing, Entry())

    def interrupted(self, error: Interrupted) -> None:
        raise error

    def failed(self, error: BaseException) -> None:
        raise error

    def deviated(self, error: Deviation) -> NoReturn:
        raise error

    def boundary(self) -> None:
        return

    def at(self, operation: str, step: int, line: str) -> None:
        self._spending.operation(operation)

    def committed(self, result: StepResult, step: int) -> None:
        self._spending.stepped()

    def progress(self, progress: Progress, *, due: bool) -> None:
        return

    def counters(self, counters: dict[str, float]) -> None:
        return

    def linger(self, serve: Callable[[], object]) -> None:
        return

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close(self._quarantine)
