"""What of a job's life becomes a span, and does a receiver understand what it is sent? OpenTelemetry's own protobuf
reads the requests; a server on loopback takes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from drivetrain_api.status import (
    Condition,
    ConditionType,
    DepartedPod,
    DepartureStatus,
    FailureStatus,
    Membership,
    ProgressStatus,
    ReplacedFor,
    TrainingJobStatus,
    Workers,
)
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.traces import exporter
from drivetrain_operator.traces.exporter import Exporter
from drivetrain_operator.traces.life import ended
from drivetrain_operator.traces.otlp import request
from drivetrain_operator.traces.span import Span
from harness.patience import patiently
from unit.plan.builders import NOW, UID, ago, job

Fields = dict[str, Any]


def condition(type_: ConditionType, status: str, since: datetime, reason: str = "x") -> Condition:
    return Condition.model_validate(
        {"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": ""}
    )


def running(status: str, since: datetime, reason: str = "x") -> list[Condition]:
    return [condition(ConditionType.RUNNING, status, since, reason)]


def progress(step: int, seconds: float, **fields: Any) -> ProgressStatus:
    return ProgressStatus(step=step, last_update_time=ago(seconds), **fields)


STARTS: Fields = {"start_time": ago(600), "workers": Workers(target=3), "conditions": running("False", ago(599))}
UP: Fields = STARTS | {"workers": Workers(target=3, ready=3, world=3)}
TRAINS: Fields = UP | {"conditions": running("True", ago(500)), "progress": progress(10, 400)}
STANDS: Fields = TRAINS | {"conditions": running("False", ago(20), "Forming")}
SUSPENDED: Fields = {"conditions": [condition(ConditionType.SUSPENDED, "True", ago(700))]}
FAILURE = FailureStatus(
    time=ago(7), reason="ScriptError", pod="lm-1-0", rank=1, process="p1", log_tail="Traceback\nValueError: no\n"
)
TAKEN = DepartureStatus(time=ago(9), reason="Deleted", count=2, pods=[DepartedPod(name="lm-0-0", node="n")])

LIFE: list[tuple[str, Fields, Fields, list[tuple[str, float, float]]]] = [
    ("it becomes active", {}, STARTS, [("queued", 900, 600)]),
    ("after a rest", SUSPENDED, STARTS, [("suspended", 700, 600)]),
    ("all processes are up", STARTS, UP, [("pulled", 600, 0)]),
    ("the first membership trains", UP, UP | {"conditions": running("True", NOW)}, [("joined", 600, 0)]),
    (
        "both at once",
        STARTS,
        UP | {"conditions": running("True", NOW)},
        [("pulled", 600, 0), ("joined", 600, 0)],
    ),
    ("the first steps", TRAINS | {"progress": None}, TRAINS, [("steps", 500, 400)]),
    ("more steps", TRAINS, TRAINS | {"progress": progress(15, 340)}, [("steps", 400, 340)]),
    ("no step", TRAINS, TRAINS | {"progress": progress(10, 340)}, []),
    ("steps after a rest", TRAINS | {"progress": progress(9, 650)}, TRAINS, [("steps", 500, 400)]),
    ("a failure", TRAINS, TRAINS | {"failures": [FAILURE]}, [("fault", 7, 7)]),
    ("pods are taken", TRAINS, TRAINS | {"departures": [TAKEN]}, [("fault", 9, 9)]),
    ("known ones are told once", TRAINS | {"failures": [FAILURE]}, TRAINS | {"failures": [FAILURE]}, []),
    (
        "survivors go on",
        TRAINS,
        TRAINS | {"recoveries": 1, "last_recovery_seconds": 1.5},
        [("recovered", 1.5, 0)],
    ),
    ("it stands still", TRAINS, STANDS, []),
    ("and goes on", STANDS, STANDS | {"conditions": running("True", NOW)}, [("waiting", 20, 0)]),
    ("silence is no wait", TRAINS | {"conditions": running("Unknown", ago(20))}, TRAINS, []),
    (
        "another coordinator",
        TRAINS | {"membership": Membership(term=1)},
        TRAINS | {"membership": Membership(term=2, since=ago(3), replaced_for=ReplacedFor.GONE)},
        [("coordinator", 3, 3)],
    ),
    ("it starts over", TRAINS, TRAINS | {"attempt": 1}, [("restart", 0, 0)]),
    (
        "it succeeds",
        TRAINS,
        TRAINS | {"completion_time": ago(1), "conditions": [condition(ConditionType.COMPLETE, "True", ago(1))]},
        [("TrainingJob", 900, 1)],
    ),
]


def spans(before: Fields, after: Fields) -> list[Span]:
    return list(ended(job(status=TrainingJobStatus(**before)), TrainingJobStatus(**after), NOW))


@pytest.mark.parametrize(("name", "before", "after", "expect"), LIFE, ids=[case[0] for case in LIFE])
def test_what_ended(name: str, before: Fields, after: Fields, expect: list[tuple[str, float, float]]) -> None:
    told = spans(before, after)
    assert [(s.name, (NOW - s.start).total_seconds(), (NOW - s.end).total_seconds()) for s in told] == expect
    assert {s.trace.hex() for s in told} <= {UID.replace("-", "")}


def test_a_life_is_one_tree_whoever_tells_each_piece_of_it() -> None:
    told = [span for _, before, after, _ in LIFE for span in spans(before, after)]
    root = {s.id for s in told if s.name == "TrainingJob"}
    joined = {s.id for s in told if s.name == "joined"}
    assert {s.parent for s in told if s.name == "TrainingJob"} == {None}
    assert {s.parent for s in told if s.name == "pulled"} == joined
    assert {s.parent for s in told if s.name not in ("TrainingJob", "pulled")} == root


def test_why_it_failed() -> None:
    failed = condition(ConditionType.FAILED, "True", ago(1))
    after = TRAINS | {"conditions": [failed], "reason": "ScriptError", "message": "rank 1", "failures": [FAILURE]}
    fault, whole = spans(TRAINS, after)
    assert (fault.error, whole.error) == ("ScriptError: ValueError: no", "ScriptError: rank 1")
    assert fault.attributes == {
        "k8s.namespace.name": "ns",
        "drivetrain.job": "lm",
        "drivetrain.attempt": 0,
        "drivetrain.reason": "ScriptError",
        "drivetrain.pod": "lm-1-0",
        "drivetrain.rank": 1,
        "drivetrain.counted": True,
    }


def read(body: bytes) -> ExportTraceServiceRequest:
    found = ExportTraceServiceRequest()
    found.ParseFromString(body)
    return found


def test_opentelemetry_reads_what_is_written() -> None:
    values: Fields = {
        "text": "größe\n\x00",
        "yes": True,
        "no": False,
        "zero": 0,
        "minus": -3,
        "big": 2**62,
        "part": -0.5,
    }
    start = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
    span = Span(bytes(range(16)), b"12345678", b"abcdefgh", "steps", start, start + timedelta(hours=30), values, "no")
    bare = replace(span, parent=None, attributes={}, error=None)
    (resource,) = read(request([span, bare], {"service.name": "drivetrain-operator"})).resource_spans
    assert [(a.key, a.value.string_value) for a in resource.resource.attributes] == [
        ("service.name", "drivetrain-operator")
    ]
    (scope,) = resource.scope_spans
    first, second = scope.spans
    assert (first.trace_id, first.span_id, first.parent_span_id) == (span.trace, span.id, span.parent)
    assert (first.name, first.kind) == ("steps", trace_pb2.Span.SPAN_KIND_INTERNAL)
    assert first.start_time_unix_nano == 1_795_262_400_123_456_000
    assert first.end_time_unix_nano - first.start_time_unix_nano == 30 * 3600 * 10**9
    kinds = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in first.attributes}
    assert kinds == values
    assert [type(each) for each in kinds.values()] == [type(each) for each in values.values()]
    assert (first.status.code, first.status.message) == (trace_pb2.Status.STATUS_CODE_ERROR, "no")
    assert (second.parent_span_id, second.status.code, len(second.attributes)) == (b"", 0, 0)


@dataclass
class Receiver:
    """Takes spans as a collector does; `answers` are given first."""

    answers: list[int] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""

    async def take(self, asked: web.Request) -> web.Response:
        assert asked.path == "/v1/traces"
        self.headers.append(asked.headers)
        body = await asked.read()
        if self.answers and (status := self.answers.pop(0)) != 200:
            return web.Response(status=status, text="no")
        for resource in read(body).resource_spans:
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(body=b"", content_type="application/x-protobuf")


@pytest_asyncio.fixture(loop_scope="function")
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{any:.*}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


class Counts:
    def __init__(self) -> None:
        self.total: Counter[str] = Counter()

    def __call__(self, result: str, number: int) -> None:
        self.total[result] += number


async def until(what: Callable[[], bool]) -> None:
    async with patiently(30):
        while not what():
            await asyncio.sleep(0.01)


def changed(before: Fields, after: Fields) -> tuple[JobView, TrainingJobStatus]:
    return job(status=TrainingJobStatus(**before)), TrainingJobStatus(**after)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "GATHER_SECONDS", 0.01)


def sending(url: str, counts: Counts, **fields: Any) -> Exporter:
    return Exporter(url, {"Authorization": "Bearer x"}, {"service.name": "o"}, SystemClock(), counts, **fields)


async def test_a_receiver_gets_one_trace_also_when_the_leader_changes(receiver: Receiver) -> None:
    counts = Counts()
    for _, before, after, _ in LIFE:  # each piece is told by another operator
        one = sending(receiver.url, counts)
        one.written(*changed(before, after))
        await one.flush()
    expect = [name for *_, told in LIFE for name, _, _ in told]
    assert [span.name for span in receiver.spans] == expect
    assert {span.trace_id.hex() for span in receiver.spans} == {UID.replace("-", "")}
    assert counts.total == {"sent": len(expect)}
    assert {each["Authorization"] for each in receiver.headers} == {"Bearer x"}
    assert {each["Content-Type"] for each in receiver.headers} == {"application/x-protobuf"}


@pytest.mark.parametrize("answers", [[503], [429, 500], [502, 504, 408]])
async def test_what_cannot_be_taken_now_is_sent_again(answers: list[int], receiver: Receiver) -> None:
    receiver.answers = [*answers]
    counts = Counts()
    one = sending(receiver.url, counts)
    one.written(*changed({}, STARTS))
    task = asyncio.create_task(one.run())
    await until(lambda: counts.total["sent"] == 1)
    one.written(*changed(STARTS, UP))
    await until(lambda: counts.total["sent"] == 2)
    task.cancel()
    assert [span.name for span in receiver.spans] == ["queued", "pulled"]
    assert len(receiver.headers) == len(answers) + 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 302])
async def test_what_is_refused_is_counted_and_not_sent_again(status: int, receiver: Receiver) -> None:
    receiver.answers = [status]
    counts = Counts()
    one = sending(receiver.url, counts)
    one.written(*changed({}, STARTS))
    await one.flush()
    one.written(*changed(STARTS, UP))
    await one.flush()
    assert counts.total == {"refused": 1, "sent": 1}
    assert [span.name for span in receiver.spans] == ["pulled"]


async def test_nobody_waits_for_a_receiver_that_is_away_and_what_finds_no_room_is_counted(receiver: Receiver) -> None:
    counts = Counts()
    one = sending("http://127.0.0.1:1", counts, room=5)
    task = asyncio.create_task(one.run())
    for _ in range(12):
        one.written(*changed({}, STARTS))
    await asyncio.sleep(0.1)
    task.cancel()
    assert counts.total == {"dropped": 7}
    await one.flush()
    one.lost()
    assert counts.total == {"dropped": 12}


async def test_a_stop_while_a_batch_is_under_way_sends_it_once(receiver: Receiver) -> None:
    counts = Counts()
    one = sending(receiver.url, counts)
    one.written(*changed({}, STARTS))
    await asyncio.gather(one.flush(), one.flush())
    assert [span.name for span in receiver.spans] == ["queued"]
    assert counts.total == {"sent": 1}


async def test_a_defect_costs_its_spans_and_nothing_else(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    one = sending(receiver.url, counts)
    broken, after = changed({}, STARTS)
    one.written(replace(broken, created=None), after)  # type: ignore[arg-type]
    one.written(broken, after)
    await one.flush()
    assert [span.name for span in receiver.spans] == ["queued"]
    assert "no trace, by a defect" in caplog.text


def test_a_long_outage_has_a_longest_wait() -> None:
    one = sending("http://127.0.0.1:1", Counts())
    one._failures = 5_000
    assert 0 < one._wait() <= exporter.WAIT_LIMIT
