"""Is a job's history written down, over the death of coordinators and operators, and by whom else is it not touched?"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from drivetrain_api.history import LOSS, RANKS, RATE, STEP, History, Kind, decoded, own
from drivetrain_api.holdup_status import HoldUpStatus
from drivetrain_api.messages import EpochId, Progress
from drivetrain_api.recovery_status import RecoveryStatus
from drivetrain_api.report import JobState, Report
from drivetrain_api.status import (
    DepartedPod,
    DepartureStatus,
    FailureStatus,
    Membership,
    Phase,
    ReplacedFor,
    TrainingJobStatus,
    Workers,
)
from drivetrain_local.apiserver import Fault
from drivetrain_operator.history.happened import happened, numbers
from drivetrain_operator.history.historian import FIRST_SECONDS, USUAL_SECONDS, Historian
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.render import names
from unit.operator_shell.world import JOBS, NAMESPACE, World, a_job
from unit.plan.builders import NOW, ago, job

Json = dict[str, Any]


def report(uid: str, *, term: int = 1, step: int = 4, state: JobState = JobState.TRAINING, **told: Any) -> Report:
    said = {"loss": 0.5, "samples_per_second": 100.0, "metrics": {"lr": 0.1, "loss": 0.5}} | told
    return Report(
        job_uid=uid,
        namespace=NAMESPACE,
        job="charlm",
        term=term,
        seq=1,
        state=state,
        epoch=EpochId(term, 1),
        world=2,
        progress=Progress(step=step, **said),
    )


@pytest.mark.parametrize(
    ("state", "expect"),
    [
        (JobState.TRAINING, {RANKS: 2, STEP: 5, LOSS: 0.5, RATE: 100.0, own("lr"): 0.1}),
        (JobState.FORMING, {RANKS: 0, STEP: 5}),  # loss and rate of before say nothing of now
    ],
)
def test_numbers_of_a_report(state: JobState, expect: dict[str, float]) -> None:
    assert numbers(report("u", state=state)) == expect


RECOVERED = {
    "recoveries": 1,
    "last_recovery_seconds": 2.0,
    "last_recovery": RecoveryStatus(
        cause="pod", detected_seconds=0.5, formed_seconds=0.5, copied_seconds=0.5, first_step_seconds=0.5
    ),
}


@pytest.mark.parametrize(
    ("name", "after", "kind", "text"),
    [
        ("phase", {"phase": Phase.RUNNING}, Kind.PHASE, "Running"),
        ("ranks", {"workers": Workers(world=3)}, Kind.RANKS, "3 ranks in the membership, before 0"),
        (
            "failure",
            {
                "failures": [
                    FailureStatus(time=ago(5), reason="RankFailed", pod="lm-0", rank=1, signal=9, log_tail="x\nE: y")
                ]
            },
            Kind.FAILURE,
            "RankFailed: rank 1 in lm-0 (signal 9, E: y)",
        ),
        (
            "departure",
            {"departures": [DepartureStatus(time=ago(5), reason="Deleted", count=2, pods=[DepartedPod(name="lm-0")])]},
            Kind.DEPARTURE,
            "Deleted: 2 workers taken (lm-0)",
        ),
        (
            "held up",
            {"hold_up": HoldUpStatus(rank=1, pod="lm-1-0", stage="data", slower_by_seconds=0.4, since=ago(1))},
            Kind.HELD_UP,
            "rank 1 in lm-1-0 holds the others up by 0.4 s in each step (data)",
        ),
        ("recovery", RECOVERED, Kind.RECOVERY, "training went on 2 s after the loss (pod)"),
        (
            "coordinator",
            {"membership": Membership(term=2, replaced_for=ReplacedFor.DELETED, since=ago(1))},
            Kind.COORDINATOR,
            "coordinator replaced (Deleted); training went on meanwhile if it could",
        ),
        (
            "all lost",
            {"attempt": 1, "state_losses": 1},
            Kind.STARTED_OVER,
            "all training state was lost: training started over",
        ),
    ],
)
def test_what_happened_follows_from_two_statuses(name: str, after: Json, kind: Kind, text: str) -> None:
    (found,) = happened(job(), TrainingJobStatus(**after), NOW)
    assert (found.kind, found.text) == (kind, text)
    assert happened(job(status=TrainingJobStatus(**after)), TrainingJobStatus(**after), NOW) == []


def test_that_nobody_is_held_up_any_more_is_told_once() -> None:
    late = HoldUpStatus(rank=1, process="p", stage="data", slower_by_seconds=0.4, since=ago(1))
    before = TrainingJobStatus(hold_up=late)
    later = TrainingJobStatus(hold_up=late.model_copy(update={"slower_by_seconds": 0.5}))
    assert happened(job(status=before), later, NOW) == []
    (found,) = happened(job(status=before), TrainingJobStatus(), NOW)
    assert found.text == "nobody holds the others up any more"


class Life:
    """One operator's historian, and a job of its own."""

    def __init__(self, world: World, uid: str) -> None:
        self.world, self.uid = world, uid
        self.client = KubeClient(
            FixedCredentials(world.api.address, token=world.api.token), world.clock, random.Random(1)
        )
        world.closing.append(self.client.close)
        self.writer = Historian(self.client, world.clock, self._find)

    def _find(self, uid: str) -> Json | None:
        found = self.world.api.store.get(JOBS, NAMESPACE, "charlm")
        return found if found is not None and found["metadata"]["uid"] == uid else None

    def hear(self, seconds: int, **told: Any) -> None:
        """A report each second."""
        for _ in range(seconds):
            self.world.clock.skip(1.0)
            self.writer.heard(report(self.uid, **told))

    async def due(self) -> None:
        """As `run` does, once."""
        await self.writer.write_due()

    def stored(self) -> History:
        return decoded(self.map()["data"]["history.json"])

    def map(self) -> Json:
        found = self.world.api.store.get("configmaps", NAMESPACE, names.history("charlm", self.uid))
        assert found is not None
        return found

    def writes(self) -> int:
        return int(self.map()["metadata"]["resourceVersion"])


@pytest.fixture
async def life(world: World) -> Life:
    made = await world.create_job(a_job())
    return Life(world, made["metadata"]["uid"])


async def test_it_is_written_now_and_then_and_goes_with_the_job(life: Life) -> None:
    life.hear(int(FIRST_SECONDS) - 1)
    await life.due()
    assert life.world.all("configmaps") == []
    life.hear(2)
    await life.due()
    (owner,) = life.map()["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (life.uid, True)
    assert {LOSS, RATE, STEP, RANKS, own("lr")} == set(life.stored().series)

    life.hear(400)
    await life.due()
    before = life.writes()
    for _ in range(int(USUAL_SECONDS) - 1):
        life.hear(1)
        await life.due()
    assert life.writes() == before, "at most once a minute"
    life.hear(2)
    await life.due()
    assert life.writes() > before
    assert sum(each.heard for each in life.stored().buckets.values()) == 11 - 2 + 2 + 400 + 59 + 2


async def test_neither_a_coordinators_death_nor_an_operators_costs_what_was_written(life: Life) -> None:
    life.hear(20, step=10)
    await life.due()
    life.hear(5, step=11, term=2)  # another coordinator
    life.world.clock.skip(30)  # nobody reports
    life.hear(10, step=12, term=2)
    await life.writer.flush()
    assert {each.values[STEP].high for each in life.stored().buckets.values()} == {11, 12, 13}

    successor = Life(life.world, life.uid)
    successor.world.clock.skip(20)
    successor.hear(30, step=20, term=2)
    await successor.due()
    kept = life.stored()
    begun = sorted(kept.buckets)
    assert {kept.buckets[number].values[STEP].high for number in begun} == {11, 12, 13, 21}
    gaps = [after - before for before, after in itertools.pairwise(begun) if after - before > 5]
    assert len(gaps) == 2, "what nobody heard is missing, not drawn over"


async def test_the_end_is_written_at_once_and_nothing_after_it(life: Life) -> None:
    life.hear(20)
    await life.due()
    view = job_view(life.world.job())
    life.hear(2, step=99)
    life.writer.written(view, TrainingJobStatus.model_validate({"phase": "Succeeded", "conditions": [complete()]}))
    life.hear(5, step=500)
    await life.due()
    kept = life.stored()
    assert max(each.values[STEP].high for each in kept.buckets.values()) == 100
    assert [each.text for each in kept.happenings] == ["Succeeded"]


def complete() -> Json:
    since = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "Complete", "status": "True", "reason": "Completed", "message": "", "lastTransitionTime": since}


@pytest.mark.parametrize("verb", ["create", "patch"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_cannot_be_written_is_written_later(life: Life, verb: str, when: Any) -> None:
    if verb == "patch":
        life.hear(12, step=1)
        await life.due()
    life.world.api.faults.add(Fault(verb=verb, resource="configmaps", when=when, error=500, times=None))
    life.hear(70, step=2)
    await life.due()
    life.world.api.faults.clear()
    life.hear(70, step=3)
    await life.due()
    found = {each.values[STEP].high for each in life.stored().buckets.values()}
    assert found >= {3, 4}


@pytest.mark.parametrize(
    ("name", "change", "taken"),
    [
        ("another's", {"metadata": {"ownerReferences": None}}, False),
        ("damaged", {"data": {"history.json": "<b>"}}, True),
    ],
)
async def test_what_stands_there(life: Life, name: str, change: Json, taken: bool) -> None:
    life.hear(12)
    await life.due()
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{names.history('charlm', life.uid)}"
    await life.world.request("PATCH", path, change, "application/merge-patch+json")
    before = life.writes()
    life.hear(70, step=70)
    await life.due()
    assert (life.writes() > before) is taken
    if taken:
        assert {each.values[STEP].high for each in life.stored().buckets.values()} == {71}


async def test_a_defect_costs_no_job(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("drivetrain_operator.history.historian.numbers", broken)
    monkeypatch.setattr("drivetrain_operator.history.historian.happened", broken)
    life.hear(3)
    life.writer.written(job_view(life.world.job()), TrainingJobStatus())
    await life.due()


async def test_of_a_job_that_is_gone_nothing_is_kept(life: Life) -> None:
    life.hear(3)
    await life.world.delete_job()
    life.world.clock.skip(FIRST_SECONDS)
    await life.due()
    assert len(life.writer) == 0
