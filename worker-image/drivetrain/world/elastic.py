"""A world whose members come and go: the rank's half of the membership protocol (docs/protocol.md).

Two threads meet here. The link's thread hears what the coordinator says; it only notes it, and ends waits; it never
calls torch. The training thread acts on it in `ensure`: it leaves the old group, forms the new one and synchronises.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from drivetrain import faults, say
from drivetrain.comm.nccl import connect_nccl
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.store import LinkStore
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault, Deviation, Interrupted, MembershipOver, OutOfStep, StateLost
from drivetrain.launch.rank_link import RankLink
from drivetrain.position import StepResult
from drivetrain.world.base import Entry, Synchronise
from drivetrain.world.heal import Doing, Healed
from drivetrain_api.constants import ENV_POD_IP
from drivetrain_api.exit_codes import RankExitCode
from drivetrain_api.messages import (
    DEVIATION,
    Boundary,
    EpochId,
    Form,
    ProcessPhase,
    Progress,
)

_STUCK_GROUPS: Final = 16
"""A group with operations that never end keeps threads and descriptors: above this many, the process asks to be
replaced."""

_SHARE: Final = 16
"""Bytes of a member's share of what links between ranks are known by."""

_STUCK_SECONDS: Final = 30.0
"""After so long an abandoned operation counts as never ending."""


class Elastic:
    """This rank's view of the job's membership."""

    def __init__(self, link: RankLink, synchronise: Synchronise) -> None:
        self.transport: Transport | None = None
        self.epoch = EpochId(0, 0)
        self._link = link
        self._synchronise = synchronise
        self._quarantine = Quarantine()
        self._address = os.environ.get(ENV_POD_IP)
        self._news = threading.Condition()
        self._form: Form | None = None
        self._store: LinkStore | None = None
        self._tables: dict[EpochId, dict[str, bytes]] = {}
        self._interrupt = Interrupt()
        self._change_due = False
        self._finished = False
        self._step = -1
        self._has_state = False
        self._fault: str | None = None
        self._members: list[str] = []
        """Processes of the current group, by rank."""
        self._rank = -1
        self._size = 0
        self._pid = os.getpid()
        self._payload_bytes = 0
        """Of the groups that this process has left."""
        link.on_form(self._on_form)
        link.on_table(self._on_table)
        link.on_finish(self._on_finish)
        link.on_stop(self._on_stop)
        self.before_end: Callable[[], object] = lambda: None
        """Called where this process is about to end at somebody's wish; must not take longer than a second."""

    # --- the link's thread: note and wake, never touch torch --------------------------------------------------------

    def _on_form(self, form: Form) -> None:
        with self._news:
            if form.epoch <= self.epoch or (self._form is not None and form.epoch <= self._form.epoch):
                return
            self._form = form
            if form.boundary is Boundary.NOW:
                self._interrupt.end(f"membership {form.epoch}: {form.reason}")
            self._news.notify_all()

    def _on_table(self, epoch: EpochId, entries: dict[str, bytes]) -> None:
        with self._news:
            if epoch == self.epoch and self._store is not None:
                self._store.feed(entries)
            elif epoch > self.epoch:
                self._tables[epoch] = entries

    def _on_finish(self) -> None:
        with self._news:
            self._finished = True
            self._news.notify_all()

    def _on_stop(self, reason: str) -> None:
        say.note(f"stopping: {reason}")
        self.before_end()
        sys.stderr.flush()
        os._exit(0)

    # --- the training thread ----------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """Rank in the current group."""
        return self._rank

    @property
    def size(self) -> int:
        """Size of the current group."""
        return self._size

    def process(self, rank: int) -> str:
        return self._members[rank]

    @property
    def is_spare(self) -> bool:
        """Started as a spare, and no member yet."""
        return self._link.is_spare and not self._has_state

    @property
    def unplaced(self) -> str | None:
        if os.getpid() != self._pid:
            return "a process that was forked from a rank (a data worker) does not learn of changes of the membership"
        return None if self._size else "this process is no member of the job yet"

    @property
    def change_pending(self) -> bool:
        """A form with a step boundary has arrived, and is not obeyed yet."""
        return self._form is not None

    @property
    def member_or_called(self) -> bool:
        """A member already, or asked to become one: no time to warm up."""
        return self.transport is not None or self._form is not None

    def ensure(self, doing: Doing) -> Healed | None:
        if self.transport is not None and self._interrupt.reason is None and not self._change_due:
            return None
        self._leave()
        # With the fault, if there was one: a launcher passes on only the newest that it was told.
        self._tell(ProcessPhase.DONE if doing is Doing.LINGERING else ProcessPhase.READY)
        faults.point("ready", self._step)
        while True:
            form = self._next_form()
            try:
                return self._enter(form, doing)
            except Interrupted as error:
                self.interrupted(error)
            except OutOfStep as error:
                self._replace_me(str(error))
            except StateLost as error:
                if error.saved:
                    self._replace_me(str(error))
                self._end(str(error), RankExitCode.STATE_LOST)

    def interrupted(self, error: Interrupted) -> None:
        """Give the group up. A fault of communication is told; the coordinator decides what follows."""
        self._leave()
        if isinstance(error, CommFault):
            self._fault = str(error)
            self._tell(ProcessPhase.MEMBER)

    def failed(self, error: BaseException) -> None:
        self.interrupted(CommFault(f"{type(error).__name__} in the script ended an operation of all ranks"))

    def deviated(self, error: Deviation) -> NoReturn:
        self._end(f"{DEVIATION}: {error}", RankExitCode.DEVIATION)

    def boundary(self) -> None:
        self._change_due = True

    def at(self, operation: str, step: int, line: str) -> None:
        self._link.at(operation, step, line)

    def committed(self, result: StepResult, step: int) -> None:
        self._step = step
        self._link.spending.stepped()
        self._tell(ProcessPhase.MEMBER, formed=True)

    def progress(self, progress: Progress, *, due: bool) -> None:
        self._link.progress(progress, due=due)

    def counters(self, counters: dict[str, float]) -> None:
        current = self.transport.payload_bytes if self.transport is not None else 0
        self._link.counters(
            {
                **counters,
                "abandoned_operations": float(self._quarantine.sweep()),
                "payload_bytes": float(self._payload_bytes + current),
            }
        )

    def linger(self, serve: Callable[[], object]) -> None:
        """Keep the state until the coordinator says that all members are done."""
        self._tell(ProcessPhase.DONE, formed=True)
        while True:
            with self._news:
                while not self._finished and self._form is None:
                    self._news.wait(1.0)
                if self._finished:
                    break
            self._change_due = True
            serve()
            self._tell(ProcessPhase.DONE, formed=True)
        self._link.close()

    def close(self) -> None:
        self._link.close()
        transport, self.transport = self.transport, None
        if transport is not None:
            self._interrupt.end("the process ends")
            transport.close(self._quarantine)

    def _tell(self, phase: ProcessPhase, *, formed: bool = False) -> None:
        self._link.send_phase(
            phase,
            epoch=self.epoch if self.epoch > (0, 0) else None,
            formed=formed,
            has_state=self._has_state,
            step=self._step,
            fault=self._fault,
        )

    def _leave(self) -> None:
        """Abandon the current group. Its tensors stay out of use until nothing can write to them."""
        transport, self.transport = self.transport, None
        self._change_due = False
        if transport is None:
            return
        self._payload_bytes += transport.payload_bytes
        self._interrupt.end("left")
        transport.abandon(self._quarantine)
        self._quarantine.sweep()
        if self._quarantine.stuck_groups(_STUCK_SECONDS) > _STUCK_GROUPS:
            self._replace_me("too many abandoned operations never ended")

    def _replace_me(self, reason: str) -> NoReturn:
        self._end(f"{reason}: asking for a fresh process", RankExitCode.REPLACE_ME)

    def _end(self, reason: str, code: RankExitCode) -> NoReturn:
        say.note(reason, level="warning" if code is RankExitCode.REPLACE_ME else "error")
        self._link.error(f"drivetrain: {reason}", remedy=code is RankExitCode.REPLACE_ME)
        self.before_end()
        self._link.close()
        os._exit(code)

    def _next_form(self) -> Form:
        """Wait for an epoch that has a seat for this process. How long that takes is the coordinator's business."""
        with self._news:
            while True:
                if self._finished:
                    # The job ended while this process had no seat (a spare): leave without touching anything.
                    self._link.close()
                    sys.stdout.flush()
                    os._exit(0)
                form = self._form
                if form is not None:
                    self._form = None
                    if any(member.process == self._link.process for member in form.members):
                        return form
                    continue
                self._news.wait(1.0)

    def _enter(self, form: Form, doing: Doing) -> Healed:
        rank = [member.process for member in form.members].index(self._link.process)
        size = len(form.members)
        started = time.monotonic()
        with self._news:
            if self._form is not None and self._form.boundary is Boundary.NOW:
                raise MembershipOver("superseded before it formed")
            self._interrupt = interrupt = Interrupt()
            self.epoch = form.epoch
            self._store = store = LinkStore(
                lambda key, value: self._link.put(form.epoch, key, value),
                interrupt,
                form.deadline_seconds,
                secrets.token_bytes(_SHARE),
            )
            early = self._tables.pop(form.epoch, None)
            self._tables = {epoch: table for epoch, table in self._tables.items() if epoch > form.epoch}
        if early is not None:
            store.feed(early)
        self._rank, self._size = rank, size
        say.about["rank"] = rank
        self._members = [member.process for member in form.members]
        self._fault = None
        new = form.members[rank].new
        self._has_state = self._has_state and not new
        # Where a start is permitted nobody reported state: what this process holds is then newer than its report.
        entry = Entry(new=new and not form.fresh, may_start=form.fresh)
        self._tell(ProcessPhase.MEMBER)
        faults.point("forming", self._step)
        group = connect_gloo(store, rank, size, interrupt, form.deadline_seconds, self._address)
        connected = time.monotonic()
        secret = store.secret(size)
        calls = self._link.calls("world", form.epoch)
        self.transport = Transport(group, rank, size, interrupt, self._link.set_waiting, secret, calls)
        self.transport.nccl = connect_nccl(store, self.transport, form.deadline_seconds)
        if self._link.is_spare and not self._has_state:
            faults.point("promoted", self._step)
        healed = self._synchronise(self.transport, doing, entry)
        self._has_state = True
        self._tell(ProcessPhase.MEMBER, formed=True)
        if os.environ.get("DRIVETRAIN_TRACE"):
            done = time.monotonic()
            say.note(
                f"membership {form.epoch} rank {rank}/{size} "
                f"connected {1e3 * (connected - started):.0f} ms "
                f"synchronised {1e3 * (done - connected):.0f} ms received={healed.received}"
            )
        return healed
