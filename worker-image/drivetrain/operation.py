"""How is an operation that all members share done exactly once, however often the membership changes under it?

An operation (a step, or a reduction) is tried until it is committed. Interrupted, it is undone and tried again in the
next membership; if it turns out there that a peer had committed it already, that peer's state has been taken over and
its result is used. Nothing is applied twice and nothing is lost.

It begins by comparing who is at what (identity.py), and an error on one rank ends it on all (closing.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from drivetrain.alike import NOTHING
from drivetrain.between import Between
from drivetrain.closing import Closed, common_error
from drivetrain.comm.transport import Transport
from drivetrain.counts import Counts
from drivetrain.errors import Deviation, Interrupted, OutOfStep, StateMismatch, UsageError
from drivetrain.identity import Identity, Kind, compare, here, told_arguments
from drivetrain.position import Position, StepResult
from drivetrain.readied import Readied, Update, heard_of_all
from drivetrain.reduction import nothing, reduce, reduced
from drivetrain.state import TrainingState
from drivetrain.stranded import Stranded, ends_the_process
from drivetrain.subject import Subject
from drivetrain.turn import at_work, operation
from drivetrain.world.base import Entry, World
from drivetrain.world.heal import Doing, Healed, give, synchronise, take
from drivetrain.world.reunion import parts_of_all, settle
from drivetrain_api.messages import EpochId


class Operations:
    """The sequence of shared operations of one process."""

    def __init__(self, training: TrainingState) -> None:
        self.position = Position()
        self.counts = Counts()
        self._state = training
        self._world: World | None = None
        self._bound = False
        """This script's own place equals `position`: it asked for its first step, or it never was a newcomer."""
        self._replayed = 0
        self._guests: frozenset[int] = frozenset()
        """Ranks that ask for the next step and take part in reductions without running the script's part."""
        self._live: tuple[int, ...] = (0,)
        self._between = Between(training)
        self.on_update: Callable[[StepResult], None] = lambda result: None
        """Called once for every update, as a part of it, when all parameters are there."""
        self.subject = Subject()
        self.stranded = Stranded()
        self._readied: Readied | None = None
        """An update that may have to be made in the next membership."""
        self._failure: BaseException | None = None
        """Of this rank in the current operation, not told yet."""
        self._closed: BaseException | None = None
        """What the members raise because one of them failed, not raised yet."""
        self._where = ""
        """The current operation, for people."""
        self._told: list[bytes] = []
        """What the ranks told of their state when they entered it."""

    def attach(self, world: World) -> None:
        """Use this world from now on."""
        self._world = world

    @property
    def world(self) -> World:
        """The world of this process."""
        assert self._world is not None
        return self._world

    @property
    def live_ranks(self) -> tuple[int, ...]:
        """Ranks that take part in the script's reductions: all but newcomers which wait for their first step."""
        return self._live

    @at_work
    def synchronise(self, transport: Transport | None, doing: Doing, entry: Entry) -> Healed:
        """Bring a new group to one state; the world calls this whenever a group has formed."""
        self.counts.memberships += 1
        held = self.position.has_state
        before = self.position.step, len(self.position.since)
        if entry.new:
            self.position.has_state = False
        if transport is None:
            self._first_state()
            self.position.has_state = True
            self._closed, self._failure = self._failure, None
            return Healed(False, 0, 1, (doing,))
        healed = synchronise(
            transport,
            self.position,
            self._state,
            doing,
            self._first_state,
            may_start=entry.may_start,
            sharded=self.subject.sharded,
            saved_step=self.subject.saved_step,
            failed=self._failure is not None,
            for_those_behind=self._between.for_those_behind,
            agreed=self._readied,
        )
        self._readied = None
        processes = [self.world.process(rank) for rank in range(transport.world)]
        if self.position.writer not in processes:
            self.position.writer = processes[healed.source]
        if self._bound and healed.received and held and not self.position.follows(*before):
            raise OutOfStep(
                f"the members are at step {self.position.step}, this script stands at step {before[0]} and cannot jump"
            )
        if healed.failed:
            error = common_error(transport, self._failure, self._where)
            self._closed = error if doing in (Doing.STEP, Doing.REDUCTION) else None
            self._failure = None
        # Not where parts came together for the operation that this rank is in: its script has nothing to repeat then.
        behind = (self.position.step, len(self.position.since)) != before
        if healed.received and held and behind and not entry.new:
            self._between.taken_over(healed.later)
        self.counts.states_received += healed.received
        if healed.sent_to:
            self.counts.joins += healed.joined
        ranks = range(transport.world)
        self._live = tuple(rank for rank in ranks if healed.doing[rank] is not Doing.BINDING) or tuple(ranks)
        someone_reduces = Doing.REDUCTION in healed.doing
        self._guests = frozenset(set(ranks) - set(self._live)) if someone_reduces else frozenset()
        return healed

    def _first_state(self) -> None:
        """Nobody has any, and this process is to find some."""
        self.subject.on_first_state()
        self.position.life = secrets.token_hex(4)

    def next_batch(self) -> None:
        """The script asks for a batch: reductions from here on come before a step, not after one."""
        if self._bound:
            self.position.mark = self._replayed

    @operation
    def bind(self, total: int) -> int:
        """The number of the next step, for a script that asks for it. Waits for membership.

        A newcomer's place jumps to the members'; until they reach their next step it takes part in their reductions
        with nothing to add.
        """
        self.stranded.refuse("run.batches")
        while not self._bound:
            self.world.at("batch", self.position.step, here()[0])
            self.world.ensure(Doing.BINDING)
            try:
                while self._guests and self.position.step < total:
                    transport = self.world.transport
                    assert transport is not None
                    if not self._serve_as_guest(transport):
                        break
                self._bind()
            except Interrupted as error:
                self.world.interrupted(error)
        return self.position.step

    def _bind(self) -> None:
        self._bound = True
        position = self.position
        if position.step == position.first:
            position.mark = self._replayed  # everybody's script began here, and came as far as this one
        else:
            # A newcomer enters where the members asked for this batch. If none of them is left that did, what they
            # reduced is nobody's business any more.
            self._replayed = len(position.since) if position.mark is None else position.mark

    def _serve_as_guest(self, transport: Transport) -> bool:
        """Take part in one operation of the members; False when it is a step, which this process then joins."""
        kind, size = self._announce(transport, Kind.GUEST, 0)
        if kind in (Kind.STEP, Kind.SKIP):
            # Once more, as it is where this script enters: the others' have gone on since this member came.
            take(transport, self.position, self._state, self._live[0], self.subject.sharded)
            self._guests = frozenset()
            self.position.mark = size
            return False
        transport.enter(Identity(Kind.GUEST).packed(), compare)
        result = reduced(transport, kind, size, nothing(kind, size))
        if result is None:
            common_error(transport, None, kind.told)  # nothing to a script that is not there yet
        else:
            self.position.commit_reduction(result, self.world.epoch)
        return True

    def _announce(self, transport: Transport, kind: Kind, size: int) -> tuple[Kind, int]:
        """While there are guests: the first live rank says what comes next. All ranks call this.

        `size` is that of the reduction; of a step, its mark (see `Position`).
        """
        header = torch.tensor([int(kind), size], dtype=torch.int64)
        transport.broadcast(header, root=self._live[0])
        return Kind(int(header[0])), int(header[1])

    def _enter(self, transport: Transport | None, kind: Kind, size: int, data: int | None, at: tuple[str, int]) -> None:
        """Begin an operation; who is `at` another one is found out before anything is sent."""
        line, way = at
        trained, arguments = self.subject.follow(self.position.step) if kind is Kind.STEP else (0, {})
        place = self.position.step, len(self.position.since)
        healing = self.subject.healing
        compares = healing is not None and kind is Kind.STEP and transport is not None
        sums = healing.told(self.position) if healing is not None and compares else NOTHING
        identity = Identity(kind, *place, size, trained, way, line, data, told_arguments(arguments), sums)
        self._where = identity.told(numbered=False)
        self.world.at(kind.name.lower(), self.position.step, line)
        if transport is not None:
            guest = transport.rank in self._guests
            transport.enter(
                (Identity(Kind.GUEST) if guest else identity).packed(), partial(self._entered, list(arguments))
            )
            if healing is not None and compares and healing.due:
                transport.pass_gate()
                healing.settle(transport, self.position, self._told)
                self.counts.corruptions = healing.healed

    def _entered(self, arguments: list[str], messages: list[bytes]) -> None:
        compare(messages, arguments)
        self._told = [each[-len(NOTHING) :] for each in messages]

    @operation
    def step(
        self,
        number: int,
        attempt: Callable[[Transport | None, bool], tuple[Callable[[], StepResult], bool]],
        undo: Callable[[], None],
        kind: Kind = Kind.STEP,
    ) -> StepResult:
        """Commit step `number`. `attempt(transport, change_pending)` returns the update that is to be made, and whether
        a change is due. What it raises is raised on all ranks, and the step can be tried again; what the update raises
        strands this process.
        """
        self.stranded.refuse(kind.told)
        if self.position.step != number:
            raise UsageError(f"{kind.told}: step {number} is done already; call it once for every batch")
        at = here()
        self._between.enter()
        while True:
            self._ensure(Doing.STEP)
            if self.position.step != number:
                break
            transport = self.world.transport
            try:
                if self._guests and transport is not None:
                    self._announce(transport, kind, self.position.mark or 0)
                    if transport.rank == self._live[0]:
                        give(transport, self.position, self._state.collect(), sorted(self._guests))
                if transport is not None:
                    # On all ranks alike, also where there were no guests, or this one was a guest and has been told
                    # of the step already: an evaluation is shared out, and a file written, by what each takes for live.
                    self._guests = frozenset()
                    self._live = tuple(range(transport.world))
                self._enter(transport, kind, 0, self.subject.data_size, at)
                update, change_due = attempt(transport, self.world.change_pending)
                if transport is not None and self.subject.in_two_phases:
                    give_up = partial(self._give_up, undo)
                    self._readied = Readied(number, self.world.epoch, update, self._commit, give_up)
                    heard_of_all(transport, number)
            except Interrupted as error:
                if self._readied is None:
                    self._give_up(undo)
                self.world.interrupted(error)
                continue
            except BaseException as error:  # noqa: BLE001  Whatever it is, all ranks get it.
                self._readied = None
                undo()
                self._close(transport, error)
                continue
            result = self._commit(number, update, self.world.epoch)
            self.world.committed(result, number)
            self._settle(transport, result, change_due)
            self._catch_up(result)
            return result
        # A peer had committed it, and its state is ours now; or ours was brought to where that is.
        self.counts.redone_steps += 1
        assert self.position.last is not None
        self._catch_up(self.position.last)
        return self.position.last

    def _give_up(self, undo: Callable[[], None]) -> None:
        """An attempt was interrupted."""
        undo()
        self.counts.recomputed_steps += 1

    def _commit(self, number: int, update: Update, epoch: EpochId) -> StepResult:
        """Make the update of a step that was computed in this membership."""
        self._readied = None
        with self.stranded.updating(number):
            result = update()
            if self.subject.sharded is None and not result.skipped:
                self.on_update(result)
                self.position.hooked = number + 1
        self.position.commit_step(result, epoch)
        self._between.committed()
        self.counts.skipped_steps += result.skipped
        return result

    def _catch_up(self, result: StepResult) -> None:
        """What belongs to the last update, if that had to wait until all parameters were there."""
        if self.position.hooked < self.position.step and not result.skipped:
            with self.stranded.updating(result.step):
                self.on_update(result)
            self._between.committed()
        self.position.hooked = self.position.step

    def _ensure(self, doing: Doing) -> Healed | None:
        """A membership to go on in. Raises what closed the operation that this rank was in."""
        healed = self.world.ensure(doing)
        error, self._closed = self._closed, None
        if error is not None and doing is not Doing.BINDING:
            raise error
        return healed

    def _close(self, transport: Transport | None, error: BaseException) -> None:
        """This rank's attempt failed, and nothing is left of it: raises the error that all ranks get, or returns if the
        others must be told in the next membership."""
        if isinstance(error, Deviation):
            self.world.deviated(error)
        if ends_the_process(error):
            if transport is not None and transport.world > 1:
                self.stranded.left(self._where, error)
            raise error
        own = error.own if isinstance(error, Closed) else error
        if isinstance(error, Closed) and transport is not None:
            try:
                raise common_error(transport, own, self._where)
            except Interrupted as interrupted:
                self.world.interrupted(interrupted)
        elif transport is None or own is None:
            raise error
        else:
            self.world.failed(error)
        self._failure = own

    def _settle(self, transport: Transport | None, result: StepResult, change_due: bool) -> None:
        """What follows a step that is committed: updated parts go to everybody, and all parts before a change."""
        if transport is not None and transport.world > 1:
            try:
                if self.subject.sharded is not None:
                    settle(transport, self.subject.sharded, updated=not result.skipped, whole=change_due)
                if change_due:
                    self.subject.hand_over(transport)
            except Interrupted as error:
                self.world.interrupted(error)
                # Now, because the script may look at its parameters. It may go on with whatever it likes, which the
                # others will be told: see `_announce`.
                self.world.ensure(Doing.REDUCTION)
                return
        if change_due:
            self.world.boundary()

    def parts_of_all(self, receiver: int) -> list[dict[str, Any]] | None:
        """For `contribute`: the parts of the state at rank `receiver`, nothing elsewhere; None if all are whole.

        Raises `Interrupted`.
        """
        transport = self.world.transport
        sharded = self.subject.sharded
        if sharded is None or transport is None or sharded.part == (0, 0):
            return None
        return parts_of_all(transport, sharded, sharded.sources(transport.world), [receiver])

    @operation
    def reduce(
        self, size: int, contribute: Callable[[], list[float]], kind: Kind = Kind.REDUCE, data: int | None = None
    ) -> list[float]:
        """Sum `size` float64 numbers over the members (see reduction.py). `contribute()` is called again when the
        membership changed; what it raises is raised on all ranks. `data`: samples of the dataset that it is about."""
        self.stranded.refuse(kind.told)
        at = here()
        self._between.enter()
        while True:
            known = self._known_result()
            if known is not None:
                return known
            if not self._bound and self.position.step > self.position.first:
                raise StateMismatch("this script reduces more before its first step than the other members' did")
            place = (self.position.step, len(self.position.since))
            healed = self._ensure(Doing.REDUCTION)
            if healed is not None and (self.position.step, len(self.position.since)) != place:
                continue
            transport = self.world.transport
            try:
                if self._guests and transport is not None:
                    self._announce(transport, kind, size)
                self._enter(transport, kind, size, data, at)
                in_band = self.subject.tells_in_band or kind is not Kind.EVALUATE  # in which alone ranks talk meanwhile
                own = None if transport is not None and transport.rank in self._guests else contribute
                result = reduce(transport, kind, size, own, in_band=in_band)
            except Interrupted as error:
                self.world.interrupted(error)
                continue
            except BaseException as error:  # noqa: BLE001  Whatever it is, all ranks get it.
                self._close(transport, error)
                continue
            self.position.commit_reduction(result, self.world.epoch)
            self._between.committed()
            self._replayed = len(self.position.since)
            if kind is not Kind.FINISH:  # nobody will take anything over any more
                self._between.refuse()
            return self.position.since[-1]

    def _known_result(self) -> list[float] | None:
        """The result of this script's next reduction when the members have it already."""
        journal = self.position.since
        if not self._bound and self.position.step > self.position.first:
            # A newcomer's script before its first step: the members did this before theirs.
            journal = self.position.before_first
        if self._replayed < len(journal):
            self._replayed += 1
            return journal[self._replayed - 1]
        return None

    def stepped(self) -> None:
        """The script has left a step: its next reduction is the first one after it."""
        self._replayed = 0

    def refuse(self) -> None:
        """After a step: raises `UsageError` for registered state that became what cannot be copied."""
        self._between.refuse()
