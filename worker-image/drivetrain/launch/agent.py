"""The launcher at work: carries messages between coordinator and ranks, and decides when and how this pod ends.

One asyncio loop, one thread. `run` returns when the pod's part is over and all its ranks have ended.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

from drivetrain.energy.meter import EnergyMeter
from drivetrain.launch.blackbox import Recordings
from drivetrain.launch.channel import Channel, Command
from drivetrain.launch.errors import CommandError, FencedError, LauncherError, StorageFailed
from drivetrain.launch.fence import Fence
from drivetrain.launch.handover import Handover
from drivetrain.launch.leave import SIGNALS, EarlySignals, Leave
from drivetrain.launch.link import Finish, Hurry, StopRank, ToRank
from drivetrain.launch.memory import MemoryKills
from drivetrain.launch.output import Console
from drivetrain.launch.process import RankProcess
from drivetrain.launch.rank import Rank
from drivetrain.launch.readiness import Readiness
from drivetrain.launch.settings import Settings
from drivetrain.launch.stopped import INTERVAL_SECONDS
from drivetrain.launch.storage import COPY_SECONDS, FAILED_COPY_SECONDS, OutputFolder
from drivetrain.launch.supervisor import Spawn, Supervisor
from drivetrain.launch.witness import Witness
from drivetrain.torchrun.endpoint import Endpoint
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import (
    Boundary,
    Complete,
    EpochId,
    Form,
    Inspect,
    Kill,
    LauncherState,
    Progress,
    Put,
    Released,
    Stop,
    Table,
    Welcome,
)

log = logging.getLogger(__name__)

FINISH_SECONDS: Final = 600.0
"""After `complete` the script's last lines run (evaluate, save): so long at most."""
STOP_SECONDS: Final = 1.0
LAST_WORD_SECONDS: Final = 0.1


class Agent:
    """The parts of a launcher, wired. Implements `RankEvents`."""

    def __init__(
        self,
        settings: Settings,
        console: Console,
        spawn: Spawn,
        memory_kills: MemoryKills,
        stop_seconds: float = STOP_SECONDS,
        output: OutputFolder | None = None,
        endpoint: Endpoint | None = None,
        meter: EnergyMeter | None = None,
    ) -> None:
        """`stop_seconds`: how long ranks may take to end when the job is stopped; `output`: for their results;
        `endpoint`: where stock scripts tell their progress; `meter`: of what this pod draws."""
        self._settings = settings
        self._stop_seconds = stop_seconds
        self._output = output
        self._supervisor = Supervisor(
            settings.spec,
            settings.spare_level,
            spawn,
            memory_kills,
            console,
            self,
            self._prefix,
            Recordings(settings.recordings, settings.pod_name),
        )
        self._witness = Witness(settings)
        self._channel = Channel(
            settings, state=self._state, deliver=self._deliver, contact=self._contact, witness=self._witness
        )
        self._fence = Fence(settings.spec.fence_seconds, time.monotonic())
        self._leave = Leave(settings.grace_seconds)
        self._outcome: asyncio.Future[ExitCode] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[None] | None = None
        self._handover = Handover()
        self._readiness = Readiness(settings.ready_file)
        self._progress: Progress | None = None
        self._progress_from: str | None = None
        self._endpoint = endpoint
        self._meter = meter if meter is not None else EnergyMeter(lambda: ())
        self._channel.welcomed = self._welcomed

    async def run(self, processes: Sequence[RankProcess], early: EarlySignals) -> ExitCode:
        """Work until the pod's part is over. Raises LauncherError for the ways to end that nobody wished for."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._told_to_leave)
        loop.add_signal_handler(signal.SIGCHLD, self._supervisor.reap)
        loop.set_exception_handler(lambda _, context: self._defect(context))
        for process in processes:
            self._supervisor.adopt(process)
        self._meter.start()
        self._supervisor.reap()  # One may have died before there was a handler.
        for _ in range(early.count):
            self._told_to_leave()
        tasks = [asyncio.create_task(work) for work in (self._channel.run(), self._watch(), self._witness.run())]
        for task in tasks:
            task.add_done_callback(self._failed)
        if self._endpoint is not None:
            await self._endpoint.serve(self._first, self._tell)
        try:
            return await self._outcome
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._endpoint is not None:
                await self._endpoint.close()
            await self._supervisor.end(None, STOP_SECONDS)
            if self._output is not None:
                await self._take_out(self._output)
            loop.remove_signal_handler(signal.SIGCHLD)

    # --- what ranks say (RankEvents) --------------------------------------------------------------------------------

    def on_change(self, *, urgent: bool) -> None:
        """Pass it on, and see whether processes are missing."""
        self._channel.changed(urgent=urgent)
        if urgent:
            self._supervisor.fill()

    def on_put(self, put: Put) -> None:
        """Pass it on."""
        self._channel.put(put)

    def on_commit(self) -> None:
        """A step was committed by all members, so nobody took this pod's place."""
        self._fence.seen(time.monotonic())

    def on_progress(self, rank: Rank, progress: Progress) -> None:
        """Keep the newest."""
        self._tell(rank.process.id, progress)

    def _tell(self, process: str, progress: Progress) -> None:
        self._progress, self._progress_from = progress, process
        self._channel.changed(urgent=False)

    def _first(self) -> tuple[str, EpochId] | None:
        """The process with rank 0, and the membership in which it is that."""
        form = self._handover.newest
        return (form.members[0].process, form.epoch) if form is not None and form.members else None

    def on_exec_failed(self, message: str) -> None:
        """The command can never run here."""
        self._fail(CommandError(f"{message} (spec.command)"))

    # --- what the coordinator says ----------------------------------------------------------------------------------

    def _welcomed(self, welcome: Welcome) -> None:
        self._meter.asked(welcome.term, welcome.energy)

    def _deliver(self, command: Command) -> None:
        match command:
            case Form():
                self._formed(command)
            case Table():
                self._handover.table(command.epoch)
                for rank in self._supervisor.ranks:
                    if self._seated_in(rank, command):
                        rank.send(command)
            case Kill():
                self._supervisor.kill(command.process, command.reason, stacks=command.stacks)
            case Inspect():
                self._supervisor.look(command.process, command.number)
            case Released():
                if self._leave.leaving:
                    self._end(ExitCode.LEFT, StopRank(reason="left"), STOP_SECONDS)
            case Complete():
                self._end(ExitCode.COMPLETE, Finish(), FINISH_SECONDS)
            case Stop():
                log.info("the job is stopped", extra={"reason": command.reason})
                self._end(ExitCode.STOPPED, StopRank(reason=command.reason), self._stop_seconds)

    def _formed(self, form: Form) -> None:
        self._handover.formed(form)
        seats = [member.process for member in form.members]
        if self._progress_from is not None and (not seats or seats[0] != self._progress_from):
            self._progress = self._progress_from = None  # Another rank 0 tells it from now on.
        for rank in self._supervisor.ranks:
            if form.boundary is Boundary.NOW:
                rank.lost(form)
            if rank.process.id in seats:
                rank.promote()
                rank.send(form)
            elif rank.state.epoch is not None:
                rank.send(form)  # Left out: it must not wait for its old epoch's members any more.

    def _seated_in(self, rank: Rank, table: Table) -> bool:
        form = self._handover.newest
        if form is not None and form.epoch == table.epoch:
            return any(member.process == rank.process.id for member in form.members)
        return rank.state.epoch == table.epoch

    # --- what this launcher says ------------------------------------------------------------------------------------

    def _state(self, seq: int, first: bool) -> LauncherState:
        return LauncherState(
            seq=seq,
            processes=self._supervisor.states(),
            leaving=self._leave.leaving,
            tabled=self._handover.tabled,
            forms=self._handover.forms if first else None,
            progress=self._progress,
            counters=self._supervisor.counters(),
            energy=self._meter.told(whole=first),
        )

    def _prefix(self, rank: Rank) -> str:
        form = self._handover.newest
        if form is not None and rank.state.epoch == form.epoch:
            for number, member in enumerate(form.members):
                if member.process == rank.process.id:
                    return f"[rank {number}] "
        return f"[worker {self._settings.index}] " if rank.needed else "[spare] "

    # --- ends -------------------------------------------------------------------------------------------------------

    def _contact(self) -> None:
        self._fence.seen(time.monotonic())

    def _told_to_leave(self) -> None:
        self._leave.told(time.monotonic())
        log.info("told to leave (SIGTERM)", extra={"connected": self._channel.connected})
        for rank in self._supervisor.ranks:
            rank.send(Hurry())
        self._channel.changed(urgent=True)

    async def _watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            now = time.monotonic()
            self._supervisor.watch(now - last)
            self._readiness.tell(takes_part=self._supervisor.seated)
            last = now
            if self._leave.over(now):
                self._end(ExitCode.LEFT, None, STOP_SECONDS, again=True)
            elif self._leave.leaving and not self._supervisor.seated and not self._channel.connected:
                self._end(ExitCode.LEFT, None, STOP_SECONDS)  # Nobody knows this pod: nobody can release it.
            elif self._ending is None and self._fence.expired(now, seated=self._supervisor.seated):
                seconds = self._settings.spec.fence_seconds
                raise FencedError(f"no coordinator and no finished step for {seconds:g} s (recovery.fenceSeconds)")

    def _end(self, code: ExitCode, message: ToRank | None, seconds: float, *, again: bool = False) -> None:
        """Begin to end, once; `again` overrides an end that waits for its ranks."""
        if self._outcome.done() or (self._ending is not None and not again):
            return
        if self._ending is not None:
            self._outcome.set_result(code)
            return
        self._ending = asyncio.create_task(self._finish(code, message, seconds))

    async def _finish(self, code: ExitCode, message: ToRank | None, seconds: float) -> None:
        await self._supervisor.end(message, seconds)
        self._meter.hurry()
        if failed := [state for state in self._supervisor.states() if code is ExitCode.COMPLETE and state.exit_code]:
            log.error("a rank failed after the job's last step", extra={"rank_process": failed[-1].id})
        if self._channel.connected:
            await asyncio.sleep(LAST_WORD_SECONDS / 2)  # The meter looks once more.
            self._channel.changed(urgent=True)
            await asyncio.sleep(LAST_WORD_SECONDS)  # The last `state` is on its way.
        if not self._outcome.done():
            self._outcome.set_result(code)

    async def _take_out(self, output: OutputFolder) -> None:
        """What ranks have left, within the pod's grace if it was told to go. Only of a job that has ended well, whose
        results nobody makes again, is failing to do so how this launcher ends."""
        well = self._outcome.done() and self._outcome.exception() is None
        complete = well and self._outcome.result() is ExitCode.COMPLETE
        until = time.monotonic() + (COPY_SECONDS if well else FAILED_COPY_SECONDS)

        def seconds_left() -> float:
            return self._leave.most(until) - time.monotonic()

        try:
            await output.end(seconds_left)
        except StorageFailed as error:
            if complete:
                raise
            log.error("results are lost", extra={"reason": str(error)})

    def _failed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # Once an end is decided, a coordinator that goes away, or refuses, changes nothing about it.
        if error is not None and (self._ending is None or not isinstance(error, LauncherError)):
            self._fail(error)

    def _defect(self, context: Mapping[str, object]) -> None:
        """A callback of the loop raised: end and say so, rather than go on with half of the work undone."""
        error = context.get("exception")
        log.error("defect in a callback", exc_info=error if isinstance(error, Exception) else None)
        self._fail(RuntimeError(f"{context.get('message')}"))

    def _fail(self, error: BaseException) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)
