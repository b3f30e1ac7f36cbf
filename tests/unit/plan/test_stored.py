"""What stands in a status that no operator of this release wrote: refused, or dropped, or taken; never a burden."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivetrain_api.crd import schema
from drivetrain_api.messages import Progress
from drivetrain_api.report import Report
from drivetrain_api.spec import MAX_WORKERS
from drivetrain_api.status import TrainingJobStatus
from drivetrain_local.apiserver.crd_schema import validate
from drivetrain_operator.metrics.jobs import samples
from drivetrain_operator.plan import slots, stored
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.plan.patch import status_json, status_patch
from drivetrain_operator.plan.plan import plan
from harness.often import often
from unit.plan.builders import process_failure, report, running

GOOD = status_json(plan(running(report=report(failures=[process_failure(0, 0)]))).status)
LATE = "9999-01-01T00:00:00Z"
EARLY = "1999-12-31T23:59:59Z"
BEYOND = "9999-12-31T23:59:59-12:00"
"""UTC has no name for it."""
MEGABYTES = "x" * 3_000_000


def job(status: Any) -> dict[str, Any]:
    meta = {"name": "lm", "namespace": "ns", "uid": "u", "resourceVersion": "5", "generation": 1}
    return {"metadata": meta, "spec": {"image": "i", "command": ["x"], "workers": 3}, "status": status}


def with_field(path: str, value: Any) -> dict[str, Any]:
    """The good status with another value at this path."""
    found: dict[str, Any] = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    at: Any = found
    for step in parents:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[int(last) if isinstance(at, list) else last] = value
    return found


def applied(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    found = dict(target)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            before = found.get(key)
            found[key] = applied(before if isinstance(before, dict) else {}, value)
        else:
            found[key] = value
    return found


REFUSED: list[tuple[str, Any]] = [
    ("workers.indices", "0-3000000"),
    ("workers.indices", "0-2,1-2"),
    ("workers.indices", "0-5000"),
    ("workers.indices", "0-2-4"),
    ("workers.indices", "3-1"),
    ("workers.indices", " 1"),
    ("workers.indices", MEGABYTES),
    ("workers.target", 10**9),
    ("workers.target", -1),
    ("incarnations", {str(10**12): 1}),
    ("incarnations", {str(MAX_WORKERS): 1}),
    ("incarnations", {"0": 10**9}),
    ("incarnations", {"0": -1}),
    ("incarnations", {"x": 1}),
    ("incarnations", {str(n): 1 for n in range(MAX_WORKERS + 1)}),
    ("membership.term", 2**63 - 1),
    ("membership.since", EARLY),
    ("attempt", 2**63 - 1),
    ("restarts", 2**63),
    ("restarts", "many"),
    ("counted.failure", 2**63),
    ("startTime", EARLY),
    ("startTime", BEYOND),
    ("startTime", "2026-11-21T12:00:00"),
    ("startTime", "0001-01-01T00:00:00Z"),
    ("completionTime", EARLY),
    ("completionTime", "soon"),
    ("keeper.operator", MEGABYTES),
    ("keeper.root", 7),
    ("resolved.processesPerWorker", 10**9),
    ("resolved.coordinatorAddress", MEGABYTES),
    ("conditions.0.status", "Perhaps"),
    ("conditions.0.lastTransitionTime", EARLY),
    ("failures.0.time", EARLY),
    ("budget.charges.0.time", EARLY),
    ("budget.charges.0.step", 2**60),
    ("budget.charges", [GOOD["budget"]["charges"][0] for _ in range(99)]),
    ("failures.0.counted", "perhaps"),
    ("failures", "none"),
]
"""Fields that decide something, and what cannot be their value."""

DROPPED: list[tuple[str, Any]] = [
    ("phase", "Dreaming"),
    ("reason", MEGABYTES),
    ("message", MEGABYTES),
    ("observedGeneration", 2**70),
    ("selector", MEGABYTES),
    ("progress.step", 10**30),
    ("progress.percent", 400),
    ("progress.loss", float("nan")),
    ("progress.samplesPerSecond", float("inf")),
    ("progress.lastUpdateTime", "2026-11-21T12:00:00"),
    ("progress.lastUpdateTime", BEYOND),
    ("departures", [{"time": BEYOND, "reason": "Gone", "count": 1}]),
    ("progress", "half"),
    ("lastRecoverySeconds", float("inf")),
    ("recoveries", -1),
    ("budget.used", -1),
    ("budget.summary", MEGABYTES),
    ("takenAway", {"9999": 1}),
    ("energy.used.joules", {"gpu": {"nvml": 1e18}}),
    ("energy.used.joules", {"gpu": {"nvml": -1}}),
    ("energy.used.joules", {f"c{n}": {} for n in range(99)}),
    ("energy.used.counted.trace.values", [0.0] * 10_000),
    ("energy.used.kwh", MEGABYTES),
    ("workers.current", 10**9),
    ("workers.ready", -1),
    ("workers.world", 10**12),
    ("workers.summary", MEGABYTES),
    ("membership.replaced", 2**63),
    ("membership.replacedFor", "Whim"),
    ("membership.epoch", -1),
    ("membership.avoidNode", MEGABYTES),
    ("conditions.0.message", MEGABYTES),
    (
        "conditions",
        [{"type": f"Of{n}", "status": "True", "reason": "R", "lastTransitionTime": "?"} for n in range(999)],
    ),
    ("failures.0.logTail", MEGABYTES),
    ("failures.0.exitCode", 2**40),
    ("failures.0.signal", -3),
    ("failures.0.rank", 10**30),
    ("failures.0.step", -7),
    ("failures", [GOOD["failures"][0] | {"logTail": MEGABYTES} for _ in range(500)]),
]
"""Fields that only describe."""


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=[f"{path} {str(value)[:20]}" for path, value in REFUSED])
def test_what_decides_is_refused_and_the_job_left_alone(path: str, value: Any) -> None:
    seen = job_view(job(with_field(path, value)))
    assert seen.unreadable.startswith(f"status.{path.split('.')[0]}")
    assert len(seen.unreadable) < 500
    view = replace(running(), job=seen)
    assert (plan(view).status, plan(view).effects, plan(view).requeue_after) == (seen.status, (), None)


@pytest.mark.parametrize(("path", "value"), DROPPED, ids=[f"{path} {str(value)[:20]}" for path, value in DROPPED])
def test_what_describes_is_dropped_and_written_anew_once(path: str, value: Any) -> None:
    raw = with_field(path, value)
    seen = job_view(job(raw))
    assert seen.unreadable == ""
    assert (seen.status.membership.term, seen.status.restarts) == (1, 1)
    found = plan(replace(running(), job=replace(seen, name="lm", uid=running().job.uid))).status
    mended = applied(raw, status_patch(seen.status, found, seen.replaces)["status"])
    again = job_view(job(mended))
    assert (again.replaces, again.status) == (None, found)
    assert validate(json.loads(json.dumps(job(mended))), schema()) == []


def test_the_servers_own_schema_refuses_most_of_it() -> None:
    accepted = [path for path, value in REFUSED if not validate(job(with_field(path, value)), schema())]
    # What a schema cannot say: keys of a map, times, an order.
    assert set(accepted) <= {
        "workers.indices",
        "incarnations",
        "startTime",
        "completionTime",
        "membership.since",
        "conditions.0.lastTransitionTime",
        "failures.0.time",
        "budget.charges.0.time",
    }
    assert validate(job(GOOD), schema()) == []


def test_what_is_written_can_be_read() -> None:
    """Whatever a coordinator says."""
    odd = Progress(step=10**30, steps=10**40, loss=float("nan"), step_seconds=float("inf"))
    failure = process_failure(0, 0, step=2**80)
    told = report(progress=odd, failures=[failure], last_recovery_seconds=1.0, recoveries=1)
    told = replace(told, report=Report.model_validate(told.report.model_dump()))
    found = plan(running(report=told)).status
    raw = json.loads(json.dumps(status_json(found), allow_nan=False))
    assert stored.read(raw) == (found, False)
    assert (found.restarts, found.progress) == (1, None)


def test_a_status_of_another_release_is_taken() -> None:
    assert stored.read({"fromTheFuture": {"deep": 1}}) == (TrainingJobStatus(), False)
    assert stored.read({})[0] == TrainingJobStatus()


def test_all_slots_that_a_job_can_have_fit() -> None:
    every_third = [index for index in range(MAX_WORKERS) if index % 3 != 2]
    for indices in (range(0, MAX_WORKERS, 2), every_third):
        text = slots.format_(indices)
        assert stored.read(with_field("workers.indices", text))[0].workers.indices == text
        assert slots.parse(text) == frozenset(indices)


def test_a_job_that_cannot_be_read_is_counted_and_no_more() -> None:
    shown = list(samples([job(with_field("workers.target", 10**9)), job(GOOD)]))
    assert [each.readable for each in shown] == [False, True]


def paths(value: Any, path: str = "") -> list[str]:
    """Of all fields of the good status, and of all that is in them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [where for key, each in inner for where in paths(each, f"{path}.{key}" if path else str(key))]
    return ([path] if path else []) + below


odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**53 + 1, 2**63, 10**30, -1])
    | st.floats()
    | st.text(max_size=5)
    | st.just("x" * 20_000)
    | st.sampled_from(["0-9999", LATE, BEYOND, "2026-11-21T12:00:00", "True", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.sampled_from(["0", "9999", "type", "x"]), inner),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(paths(GOOD)), odd_values), min_size=1, max_size=4))
@settings(max_examples=often(500, 100), suppress_health_check=list(HealthCheck), deadline=None)
def test_whatever_stands_there_is_taken_or_refused(changes: list[tuple[str, Any]]) -> None:
    raw = json.loads(json.dumps(GOOD))
    for path, value in changes:
        *parents, last = path.split(".")
        at: Any = raw
        for step in parents:
            if isinstance(at, list):  # a change before may have made it shorter
                at = at[int(step)] if step.isdecimal() and int(step) < len(at) else None
            else:
                at = at.get(step)
            if not isinstance(at, dict | list):
                break
        if isinstance(at, dict):
            at[last] = value
    seen = job_view(job(raw))
    view = replace(running(), job=replace(seen, uid=running().job.uid))
    found = plan(view).status
    if seen.unreadable:
        assert found == seen.status
    else:
        mended = applied(raw, status_patch(seen.status, found, seen.replaces).get("status", {}))
        assert job_view(job(mended)).status == found


texts = st.text("0123456789-, ", max_size=30)


@given(texts)
@settings(max_examples=often(300, 100))
def test_any_text_of_slots_is_taken_or_refused(text: str) -> None:
    try:
        found = slots.parse(text)
    except ValueError:
        return
    assert all(0 <= index < MAX_WORKERS for index in found)
