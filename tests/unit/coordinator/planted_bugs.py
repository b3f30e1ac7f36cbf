"""Wrong versions of the membership rules, each with what the simulation (or a table) must make of it.

A planted bug replaces one small function. `focus` narrows the faults, so that it is found in few histories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from drivetrain_api.messages import Boundary, EpochId, ProcessPhase
from drivetrain_coordinator.membership import (
    Machine,
    drop,
    facts,
    formation,
    inherit,
    machine,
    seats,
    standstill,
    triggers,
    waits,
)
from drivetrain_coordinator.membership.state import Launcher, Membership
from unit.coordinator import test_rules as rules
from unit.coordinator import test_standstill as still

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class PlantedBug:
    """One wrong rule, and a piece of the complaint that it must cause."""

    name: str
    patch: Patch
    complaint: str = "seed"
    focus: tuple[str, ...] = ()
    table: Callable[[], None] | None = None
    """The rule's own test, where histories meet the case too seldom."""


def _replace(module: Any, name: str, wrong: Any) -> Patch:
    return lambda patch: patch.setattr(module, name, wrong)


def _without(*names: str) -> Patch:
    kept = tuple(trigger for trigger in triggers.TRIGGERS if trigger.__name__ not in names)
    return lambda patch: patch.setattr(Machine, "triggers", kept)


def _only_late_ones(m: Membership, now: float) -> triggers.Move | None:
    found = m.still
    return triggers.no_progress(m, now) if found is not None and waits.late(found.seats) else None


def _any_that_moves(m: Membership, now: float) -> float | None:
    epoch = m.active
    if _right_since(m, now) is None or epoch is None:
        return None
    return max(m.launchers[member.pod_uid].moved[member.process].since for member in epoch.members)


def _deaf(m: Membership, now: float) -> float | None:
    epoch = m.active
    if epoch is None or epoch.formed_at is None:
        return None
    return min(m.launchers[member.pod_uid].moved[member.process].since for member in epoch.members)


def _forgets_forms(m: Membership, launcher: Launcher, state: Any) -> None:
    launcher.handed_over = True


def _only_tabled_forms(m: Membership, launcher: Launcher, state: Any) -> None:
    forms = state.forms and [form for form in state.forms if form.epoch == state.tabled]
    _right_hand_over(m, launcher, state.model_copy(update={"forms": forms}))


def _disconnected_is_dead(m: Membership, process: str, pod_uid: str) -> bool:
    launcher = m.launchers.get(pod_uid)
    return _right_dead(m, process, pod_uid) or (launcher is not None and not launcher.connected)


def _roster_unheard(m: Membership, process: str, pod_uid: str) -> bool:
    return process in m.dead


def _stale_state_counts(m: Membership, process: Any) -> bool:
    return bool(process.has_state and process.phase is not ProcessPhase.DEAD)


def _number_reused(m: Membership) -> Any:
    m.n = max(m.n, 1)
    return EpochId(m.identity.term, m.n)


def _always_step(*_: Any) -> Boundary:
    return Boundary.STEP


def _releases_at_once(self: Machine, now: float, outputs: list[Any]) -> None:
    for launcher in self.state.launchers.values():
        if launcher.leaving:
            self.state.released.add(launcher.pod_uid)
            outputs += self._last_word(launcher, now)


def _any_done(self: Machine) -> bool:
    m = self.state
    if m.active is None:
        return False
    found = [facts.find(m, member) for member in m.active.members]
    return any(process is not None and process.phase is ProcessPhase.DONE for process in found)


def _seat_twice(m: Membership, pod: str, taken: set[str]) -> list[Any]:
    return list(facts.alive(m.launchers[pod]))


def _more_than_its_seats(m: Membership, now: float) -> seats.Proposal:
    m.identity = replace(m.identity, processes_per_worker=m.identity.processes_per_worker + 1)
    try:
        return _right_propose(m, now)
    finally:
        m.identity = replace(m.identity, processes_per_worker=m.identity.processes_per_worker - 1)


_right_dead = facts.dead
_right_open = formation.open_epoch
_right_since = standstill.since
_right_hand_over = inherit.hand_over
_right_propose = seats.propose

CUTS = ("network_splits", "rank_dies", "partition")
FORKED = "commits after|begins from|gives up|is lost|different states"
STUCK = "storm|not complete"
KILLS = ("rank_dies", "two_ranks_die", "launcher_dies")

PLANTED_BUGS = (
    # Safety: found by whole histories.
    PlantedBug("no proof and no majority needed", _replace(drop, "objection", lambda *_, **__: None), FORKED, CUTS),
    PlantedBug("half of the members are enough", _replace(drop, "majority", lambda n, of: n * 2 >= of), FORKED, CUTS),
    PlantedBug("a closed connection proves death", _replace(facts, "dead", _disconnected_is_dead), FORKED, CUTS),
    PlantedBug("an epoch number is used twice", _replace(formation, "next_id", _number_reused), "two epochs", KILLS),
    PlantedBug("complete when the first is done", _replace(Machine, "_complete", _any_done), "complete, though"),
    PlantedBug("a process sits on two seats", _replace(seats, "_candidates", _seat_twice), "twice"),
    PlantedBug("a pod gets one seat too many", _replace(seats, "propose", _more_than_its_seats), "seats more than"),
    PlantedBug("the minimum is ignored", _replace(seats, "required", lambda m: 1), "fewer than the minimum", KILLS),
    # Liveness: found by whole histories.
    PlantedBug("the roster proves nothing", _replace(facts, "dead", _roster_unheard), "not complete", KILLS),
    PlantedBug("losses wait for a step boundary", _replace(formation, "boundary", _always_step), STUCK, KILLS),
    PlantedBug("a formation may take for ever", _without("deadline"), "not complete", ("rank_hangs", "rank_dies")),
    PlantedBug("a hanging rank is left alone", _without("no_progress"), "not complete", ("rank_hangs",)),
    PlantedBug("ranks that wait for one another are left alone",
               lambda patch: patch.setattr(Machine, "triggers", tuple(
                   _only_late_ones if trigger is triggers.no_progress else trigger for trigger in triggers.TRIGGERS)),
               "not complete", ("operation_hangs",)),
    # Rare, slow or merely impolite: found by a table.
    PlantedBug("a coordinator that slept blames others", _replace(standstill, "since", _deaf),
               table=still.test_a_coordinator_that_slept_blames_nobody),
    PlantedBug("ranks that wait for one another are asked to finish their step first",
               _replace(formation, "open_epoch", lambda m, seats, why, now, abandon: _right_open(m, seats, why, now)),
               table=still.test_ranks_that_all_wait_are_brought_together_anew_and_killed_if_that_does_not_help),
    PlantedBug("who is out of reach counts as standing still", _replace(standstill, "since", _deaf),
               table=still.test_nothing_is_said_of_ranks_that_are_out_of_reach),
    PlantedBug("going round in circles counts as moving", _replace(standstill, "since", _any_that_moves),
               table=still.test_going_round_without_a_step_is_no_progress_for_those_who_wait),
    PlantedBug("the table goes out after the first acknowledgement",
               _replace(formation, "entered_by_all", lambda epoch: bool(epoch.acknowledged)),
               table=rules.test_first_table_waits_for_every_member),
    PlantedBug("a new term asks nobody what there was", _replace(inherit, "hand_over", _forgets_forms),
               table=rules.test_new_term_needs_a_majority_of_the_epoch_that_it_finds),
    PlantedBug("a new term ignores forms without a table", _replace(inherit, "hand_over", _only_tabled_forms),
               table=rules.test_new_term_heeds_forms_whose_table_nobody_shows),
    PlantedBug("a fresh start needs no proof", _replace(seats, "_nobody_outside_holds_state", lambda *_: True),
               table=rules.test_holders_out_of_reach_forbid_a_fresh_start),
    PlantedBug("a stale state counts", _replace(facts, "holds_state", _stale_state_counts),
               table=rules.test_stale_state_of_a_member_that_was_dropped_does_not_count),
    PlantedBug("old messages overwrite new ones", _replace(machine, "newer", lambda *_: True),
               table=rules.test_old_and_repeated_states_are_ignored),
    PlantedBug("deaths are ignored", _without("member_dead", "departures"),
               table=rules.test_death_is_answered_in_the_same_turn_by_shrinking),
    PlantedBug("faults are ignored", _without("fault"),
               table=rules.test_fault_waits_a_second_for_a_proof_then_forms_the_same_members),
    PlantedBug("lost connections are ignored", _without("connection_lost"),
               table=rules.test_silence_and_no_progress_are_a_loss),
    PlantedBug("nobody may join", _without("arrivals"),
               table=rules.test_newcomers_join_together_at_a_step_boundary),
    PlantedBug("leavers are released before the others stand", _replace(Machine, "_release", _releases_at_once),
               table=rules.test_leaver_goes_at_a_step_boundary_and_is_released_when_the_others_stand),
)  # fmt: skip
