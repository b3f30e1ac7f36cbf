"""All that the launcher knows of one rank process: its link, its output, its state as it goes to the coordinator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from drivetrain.launch import procfs, stacks
from drivetrain.launch.blackbox import BlackBox, Recordings, last_calls
from drivetrain.launch.environment import ENV_PROCESS
from drivetrain.launch.inquest import Inquest
from drivetrain.launch.link import (
    Activate,
    ExecFailed,
    Link,
    RankBeat,
    RankCounters,
    RankError,
    RankHello,
    RankMessage,
    RankPhase,
    RankPlace,
    RankProgress,
    RankPut,
    RankStacks,
    ToRank,
)
from drivetrain.launch.output import Console, OutputPump
from drivetrain.launch.process import RankProcess
from drivetrain.launch.reaper import Death
from drivetrain.launch.stopped import StopWatch
from drivetrain_api.exit_codes import RankExitCode
from drivetrain_api.holdup import StageTimes
from drivetrain_api.messages import (
    KILLED,
    NEVER_STARTED,
    NO_PROGRESS,
    OUT_OF_MEMORY,
    EpochId,
    Form,
    ProcessPhase,
    ProcessState,
    Progress,
    Put,
)
from drivetrain_api.places import STOCK, Place, Seen

_TRACEBACK_CHARS: Final = 16_384
DEAF_SECONDS: Final = 1.0
"""A rank of which nothing was heard for so long is not asked, but made to write where it is."""
NOTED_CALLS: Final = 4
SEATED: Final = (ProcessPhase.MEMBER, ProcessPhase.DONE)


class RankEvents(Protocol):
    """Whom a rank's news concern."""

    def on_change(self, *, urgent: bool) -> None:
        """Some state changed; `urgent` is false for what only counts on (steps, progress, counters)."""

    def on_put(self, put: Put) -> None:
        """A rank published a rendezvous key."""

    def on_commit(self) -> None:
        """A rank committed a step."""

    def on_progress(self, rank: Rank, progress: Progress) -> None:
        """A rank told how far the job is."""

    def on_exec_failed(self, message: str) -> None:
        """The command cannot be started, now or ever."""


class Rank:
    """One live rank process."""

    def __init__(
        self,
        process: RankProcess,
        console: Console,
        events: RankEvents,
        prefix: Callable[[Rank], str],
        free_place: Callable[[], int],
        recordings: Recordings,
    ) -> None:
        self.process: Final = process
        self.state = ProcessState(
            id=process.id, pid=process.pid, start_ticks=process.start_ticks, phase=ProcessPhase.STARTING
        )
        self.needed = process.spare_level is None
        """One of `processes_per_worker`, not a spare (any more)."""
        self.local_rank = process.local_rank
        """Place among the needed ones of this pod; None for a spare."""
        self.was_ready = False
        self.killed_for: str | None = None
        """Why this launcher sent SIGKILL; None if it did not."""
        self.counters: dict[str, float] = {}
        self.watch: Final = StopWatch()
        self._traceback = ""
        self._remedy = False
        self._attached_to = False
        """The script called `drivetrain.start()`, or what calls it."""
        self._place: Place | None = None
        self._place_since = 0.0
        self._spent: dict[str, float] = {}
        self._stages: StageTimes | None = None
        self._events = events
        self._free_place = free_place
        self._link = Link(process.link, self._handle)
        self._pump = OutputPump(process.output, console, lambda: prefix(self))
        self._inquest = Inquest(self.send)
        self._stacks = ""
        """Where it was when it had to be killed."""
        self._seen: Seen | None = None
        self._looks_at: int | None = None
        """The number of the place at which it is being looked at."""
        self._box: Final = BlackBox()
        self._recordings = recordings

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to listen."""
        self._link.attach(loop)
        self._pump.attach(loop)

    def send(self, message: ToRank) -> None:
        """Tell the rank."""
        self._link.send(message)

    def picture(self) -> ProcessState:
        """Its state as the coordinator is told it, with the time that it has been where it is."""
        now: dict[str, object] = {
            "silent_seconds": round(self.watch.silent, 1),
            "spent": self._spent,
            "stages": self._stages,
            "seen": self._seen,
        }
        if self._place is not None:
            seconds = round(time.monotonic() - self._place_since, 1)
            now["place"] = self._place.model_copy(update={"seconds": seconds})
        return self.state.model_copy(update=now)

    def inquest(self, then: Callable[[], None]) -> None:
        """Find out where its threads are, and go on with `then`, after a few seconds at most."""

        def found(text: str) -> None:
            self._stacks = stacks.shortened(text)
            self._pump.note(text)
            then()

        self._ask(found)

    def look(self, number: int) -> None:
        """Others wait for it, at the place with this number: see where its threads are, and tell the coordinator."""
        known = self._looks_at if self._seen is None else self._seen.number
        if self._place is None or self._place.number != number or known == number:
            return

        def found(text: str) -> None:
            records = self._box.records()
            self._looks_at = None
            self._seen = Seen(number=number, at=stacks.dumped_line(text), stack=text, calls=last_calls(records))
            calls = "\n".join(f"  {call} of step {call.step}, {call.state}" for call in self._seen.calls[-NOTED_CALLS:])
            self._pump.note(
                f"other ranks wait for this one. Its threads:\n{text}\nits last collectives:\n{calls or '  none'}"
            )
            self._recordings.write(self._box, self.process.id, lambda: "other ranks wait for this one", text)
            self._events.on_change(urgent=False)

        self._looks_at = number
        self._ask(found)

    def _ask(self, found: Callable[[str], None]) -> None:
        self._inquest.begin(self.state.pid, self.state.start_ticks, found, answers=self.watch.silent < DEAF_SECONDS)

    def lost(self, form: Form) -> None:
        """Its membership is over before its time: another one is formed."""
        if self.state.epoch is not None and self.state.epoch < form.epoch:
            self._recordings.soon(self._box, self.process.id, lambda: f"membership {form.epoch}: {form.reason}")

    def promote(self) -> None:
        """A spare becomes one of the needed ones."""
        if not self.needed:
            self.needed = True
            self.local_rank = self._free_place()
            self._link.send(Activate(local_rank=self.local_rank))

    def tick(self, elapsed: float) -> str | None:
        """One poll of /proc; why this process must be killed, if so."""
        states = [found.state for pid in {self.process.pid, self.state.pid} if (found := procfs.stat(pid)) is not None]
        return self.watch.tick(elapsed, "T" if "T" in states else "")

    def stands_anew(self, epoch: EpochId) -> bool:
        """It has started a script in a later membership, of whose steps nothing will be heard."""
        stock = self._place is not None and self._place.operation == STOCK
        return stock and self.state.formed and self.state.epoch is not None and self.state.epoch > epoch

    def dead(self, death: Death, out_of_memory: bool, *, at_once: bool) -> ProcessState:
        """Read what it left, let go of it, and return its last state. `at_once`: this launcher ends, too."""
        self._link.drain()
        self._pump.drain()
        self._link.detach()
        self._pump.detach()
        self._inquest.close()
        self.process.close()
        self._keep_recording(death, at_once=at_once)
        tail = self._stacks or self._traceback or self._pump.tail()
        if self.killed_for is not None:
            tail = f"{tail}\n{KILLED}{self.killed_for}".lstrip()
        elif out_of_memory:
            tail = f"{tail}\n{OUT_OF_MEMORY}".lstrip()
        elif death.exit_code == 0 and not self._attached_to:
            tail = f"{tail}\n{NEVER_STARTED}".lstrip()
        return self.picture().model_copy(
            update={
                "phase": ProcessPhase.DEAD,
                "exit_code": death.exit_code,
                "signal": death.signal,
                "log_tail": tail,
                "remedy": self._why_remedy(death),
                "seen": None,
            }
        )

    def _keep_recording(self, death: Death, *, at_once: bool) -> None:
        """Of one that took part and did not end well."""
        how = f"signal {death.signal}" if death.signal is not None else f"exit code {death.exit_code}"
        why = f"it ended with {how}{f', {self.killed_for}' if self.killed_for else ''}"
        if self.state.epoch is None or death.exit_code == 0:
            self._box.close()
        elif at_once:
            self._recordings.write(self._box, self.process.id, lambda: why)
            self._box.close()
        else:
            self._recordings.soon(self._box, self.process.id, lambda: why, then=self._box.close)

    def _why_remedy(self, death: Death) -> str:
        """Why it was ended that did nothing wrong; empty if it ended by itself, or for what its script does."""
        if self.killed_for is not None and death.signal is not None and not self.killed_for.startswith(NO_PROGRESS):
            return self.killed_for
        if self._remedy and death.exit_code == RankExitCode.REPLACE_ME:
            return self._traceback.strip().removeprefix("drivetrain: ")
        return ""

    def _handle(self, message: RankMessage) -> None:
        self.watch.beat()
        match message:
            case RankPhase():
                self._phase(message)
            case RankPlace():
                self._place = Place.model_validate(message.model_dump(exclude={"type"}))
                if self._seen is not None and self._seen.number != message.number:
                    self._seen = None  # it has moved
                self._place_since = time.monotonic() - message.seconds
                self._events.on_change(urgent=False)
            case RankBeat():
                self._spent, self._stages = message.spent, message.stages
            case RankStacks():
                self._inquest.answered(message.text)
            case RankPut():
                put = Put(epoch=message.epoch, process=self.process.id, key=message.key, value=message.value)
                self._events.on_put(put)
            case RankProgress():
                self._events.on_progress(self, Progress.model_validate(message.model_dump(exclude={"type"})))
            case RankCounters():
                self.counters = message.counters
                self._events.on_change(urgent=False)
            case RankError():
                self._traceback = message.traceback[-_TRACEBACK_CHARS:]
                self._remedy = message.remedy
            case RankHello():
                self._attached_to = True
                self._inquest.dump_fd = message.dump_fd
                self._attached(message.pid)
                if message.flight_fd is not None and self.state.pid == message.pid:
                    self._box.open(message.pid, message.flight_fd)
            case ExecFailed():
                self._events.on_exec_failed(message.message)

    def _phase(self, message: RankPhase) -> None:
        before = self.state
        epoch = message.epoch
        if before.epoch is not None and (epoch is None or epoch < before.epoch):
            epoch = before.epoch  # An acknowledgement is never taken back.
        self.state = before.model_copy(
            update={
                "phase": ProcessPhase(message.phase),
                "epoch": None if epoch is None else EpochId(*epoch),
                "formed": message.formed,
                "has_state": message.has_state,
                "step": message.step,
                "fault": message.fault,
                "waiting": message.waiting,
            }
        )
        self.was_ready = self.was_ready or self.state.phase is not ProcessPhase.STARTING
        if self.state.phase in SEATED:
            self.promote()
        if self.state.step > before.step:
            self._events.on_commit()
        if self.state.fault is not None and self.state.fault != before.fault:
            fault = self.state.fault
            self._recordings.soon(self._box, self.process.id, lambda: f"its communication failed: {fault}")
        if self.state != before:
            calm = before.model_copy(update={"step": self.state.step, "waiting": self.state.waiting})
            self._events.on_change(urgent=self.state != calm)

    def _attached(self, pid: int) -> None:
        """The process that runs the script, if it is not the spawned one itself."""
        found = procfs.stat(pid)
        if found is not None and procfs.environment_has(pid, ENV_PROCESS, self.process.id):
            self.state = self.state.model_copy(update={"pid": pid, "start_ticks": found.start_ticks})
            self._events.on_change(urgent=False)
