"""Which rank processes should this pod have, and what happens when one dies?

`processes_per_worker` needed ones, and `spares` beside them. A spare takes a dead one's place at once; what is
spawned then is the next spare. A needed process that has none to replace it is respawned at once if the dead one had
been READY, else after a back-off (1 s doubling to 30 s): a script that fails at its start will fail again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from drivetrain.launch import reaper
from drivetrain.launch.blackbox import Recordings
from drivetrain.launch.dead import Dead
from drivetrain.launch.deadline import TIME_IS_UP, timeout
from drivetrain.launch.link import ToRank
from drivetrain.launch.memory import MemoryKills
from drivetrain.launch.output import Console
from drivetrain.launch.process import RankProcess
from drivetrain.launch.rank import SEATED, Rank, RankEvents
from drivetrain_api.messages import NO_PROGRESS, EpochId, ProcessState
from drivetrain_api.runtime import RuntimeSpec

log = logging.getLogger(__name__)

Spawn = Callable[[str | None, int | None], RankProcess]
"""Starts a process of this spare level (None: a needed one), at this place in the pod (None: a spare)."""

BACKOFF_SECONDS: Final = 1.0
BACKOFF_LIMIT_SECONDS: Final = 30.0
SPARE_DELAY_SECONDS: Final = 0.5
SPARE_LIMIT_SECONDS: Final = 5.0
"""A new spare imports torch: it starts when training has gone on (a step after the death), but not sooner than the one
and not later than the other, and never while the survivors need the processors to re-form."""
_LOOK_SECONDS: Final = 0.1


class Supervisor:
    """The rank processes of this pod. Everything runs in the asyncio loop's thread."""

    def __init__(
        self,
        spec: RuntimeSpec,
        spare_level: str,
        spawn: Spawn,
        memory_kills: MemoryKills,
        console: Console,
        events: RankEvents,
        prefix: Callable[[Rank], str],
        recordings: Recordings,
    ) -> None:
        self._spec = spec
        self._spare_level = spare_level
        self._spawn = spawn
        self._console = console
        self._events = events
        self._prefix = prefix
        self._recordings = recordings
        self._loop = asyncio.get_running_loop()
        self._ranks: dict[int, Rank] = {}
        self._dead = Dead()
        self._retired: Counter[str] = Counter()
        self._was_seated = False
        self._memory_kills = memory_kills
        self._failures = 0
        self._not_before = 0.0
        self._died_at = -math.inf
        self._step_at_death = -1
        self._epoch_at_death = EpochId(0, 0)
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False
        self._changed = asyncio.Event()

    @property
    def ranks(self) -> list[Rank]:
        """The live ones, oldest first."""
        return list(self._ranks.values())

    @property
    def seated(self) -> bool:
        """Some process, dead or alive, ever belonged to an epoch."""
        return self._was_seated or any(rank.state.epoch is not None for rank in self._ranks.values())

    def states(self) -> list[ProcessState]:
        """For a coordinator that listens: live processes, and those of whose death one has to hear."""
        return self._dead.tell(time.monotonic()) + [rank.picture() for rank in self._ranks.values()]

    def counters(self) -> dict[str, float]:
        """Sums over all processes that ever ran here."""
        total = Counter(self._retired)
        for rank in self._ranks.values():
            total.update(rank.counters)
        return {name: float(value) for name, value in total.items()}

    def adopt(self, process: RankProcess) -> None:
        """Take charge of a spawned process."""
        rank = Rank(process, self._console, self._events, self._prefix, self._free_place, self._recordings)
        self._ranks[process.pid] = rank
        rank.attach(self._loop)

    def fill(self) -> None:
        """Make the live processes what they should be. Cheap; called after every change."""
        if self._ending:
            return
        now = time.monotonic()
        needed = [rank for rank in self.ranks if rank.needed]
        while len(needed) < self._spec.processes_per_worker:
            spares = [rank for rank in self.ranks if not rank.needed]
            if spares:
                best = max(spares, key=lambda rank: rank.was_ready)  # The oldest of the readiest.
                best.promote()
                needed.append(best)
            elif now >= self._not_before:
                self._start(None)
                needed = [rank for rank in self.ranks if rank.needed]
            else:
                self._again(self._not_before - now)
                return
        # Spares wait until all needed ones are up: at a job's start they would only take processor time from them.
        if all(rank.was_ready for rank in needed):
            wanted = self._spec.processes_per_worker + self._spec.spares - len(self._ranks)
            if wanted > 0 and not self._calm(now):
                self._again(_LOOK_SECONDS)
            elif wanted > 0:
                for _ in range(wanted):
                    self._start(self._spare_level)

    def reap(self) -> None:
        """SIGCHLD came."""
        reaper.reap(
            lambda pid: pid in self._ranks,
            lambda pid: self._ranks[pid].process.kill_group(),
            self._died,
        )

    def kill(self, process_id: str, reason: str, *, stacks: bool = False) -> None:
        """SIGKILL to one process and all that is its. Unknown ids are ignored: it died already.

        `stacks`: its threads' stacks first, which belong to what it leaves; for that it gets a few seconds.
        """
        for rank in self.ranks:
            if rank.process.id == process_id and rank.killed_for is None:
                rank.killed_for = reason
                log.warning("killing a rank process", extra={"rank_process": process_id, "reason": reason})
                if stacks:
                    rank.inquest(partial(self._kill, rank))
                else:
                    self._kill(rank)

    def look(self, process_id: str, number: int) -> None:
        """Others wait for this process: see where it is, if it is still at the place with this number."""
        for rank in self.ranks:
            if rank.process.id == process_id:
                rank.look(number)

    def _kill(self, rank: Rank) -> None:
        if self._ranks.get(rank.process.pid) is rank:
            rank.process.kill()

    def watch(self, elapsed: float) -> None:
        """One poll for processes that stand still."""
        for rank in self.ranks:
            if (reason := rank.tick(elapsed)) is not None:
                self.kill(rank.process.id, reason, stacks=reason.startswith(NO_PROGRESS))

    async def end(self, message: ToRank | None, seconds: float) -> None:
        """Start no more; tell seated ranks `message`, and kill them after `seconds`; kill the others now."""
        self._ending = True
        for rank in self.ranks:
            if message is not None and rank.state.phase in SEATED:
                rank.watch.finishing()
                rank.send(message)
            else:
                rank.process.kill()
        try:
            async with timeout(seconds):
                while self._ranks:
                    self._changed.clear()
                    await self._changed.wait()
        except TIME_IS_UP:
            for rank in self.ranks:
                rank.process.kill()

    def _died(self, death: reaper.Death) -> None:
        rank = self._ranks.pop(death.pid)
        state = rank.dead(death, self._out_of_memory(death), at_once=self._ending)
        self._dead.add(state, time.monotonic())
        self._retired.update(rank.counters)
        self._was_seated = self._was_seated or state.epoch is not None
        now = time.monotonic()
        if rank.was_ready:
            self._failures = 0
            self._not_before = now
        else:
            self._failures += 1
            self._not_before = now + min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2.0 ** (self._failures - 1))
        self._died_at = now
        self._step_at_death = max(state.step, *(other.state.step for other in self.ranks), -1)
        self._epoch_at_death = max(
            each or EpochId(0, 0) for each in (state.epoch, *(r.state.epoch for r in self.ranks))
        )
        if not self._ending:
            log.warning(
                "a rank process died",
                extra={
                    "rank_process": state.id,
                    "exit_code": death.exit_code,
                    "signal": death.signal,
                    "step": state.step,
                },
            )
        self._changed.set()
        self._events.on_change(urgent=True)
        self._loop.call_soon(self.fill)
        # After the report: reading all of /proc takes milliseconds, and what is left behind proves nothing.
        self._loop.call_later(0.01, rank.process.kill_strays)

    def _calm(self, now: float) -> bool:
        """Whether a new spare would not be in anybody's way."""
        if now < self._not_before or now < self._died_at + SPARE_DELAY_SECONDS:
            return False
        goes_on = any(rank.state.step > self._step_at_death for rank in self.ranks)
        goes_on = goes_on or any(rank.stands_anew(self._epoch_at_death) for rank in self.ranks)
        return goes_on or now >= self._died_at + SPARE_LIMIT_SECONDS

    def _out_of_memory(self, death: reaper.Death) -> bool:
        """Whether the kernel has killed something for memory since it was asked last, and this may have been it."""
        return self._memory_kills.happened() and death.signal == signal.SIGKILL

    def _start(self, level: str | None) -> None:
        try:
            self.adopt(self._spawn(level, self._free_place() if level is None else None))
        except OSError as error:  # No more processes or descriptors: another time may do.
            log.error("cannot spawn a rank process", extra={"error": str(error)})
            self._failures += 1
            wait = min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2.0 ** (self._failures - 1))
            self._not_before = time.monotonic() + wait
            if level is None:
                self._again(wait)
        self._events.on_change(urgent=True)

    def _free_place(self) -> int:
        """The lowest local rank that no live process holds."""
        taken = {rank.local_rank for rank in self._ranks.values()}
        return next(number for number in itertools.count() if number not in taken)

    def _again(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.fill)
