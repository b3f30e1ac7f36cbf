"""Every number, text and list that goes over the wire has a bound: out of it, it is refused, cut or dropped."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

import pytest
from pydantic import BaseModel, ValidationError

from drivetrain_api import holdup, messages, places
from drivetrain_api import report as reports
from drivetrain_api.bounds import MAX_MEMBERS, MAX_METRICS, MAX_TAIL, MAX_TOLD
from drivetrain_api.counters import LAUNCHER_COUNTERS
from drivetrain_api.messages import EpochId, LauncherState, Message, Progress
from drivetrain_api.report import Report

EPOCH = [1, 2]
MEMBER = {"process": "u/b/1", "pod_uid": "u", "new": False}
CALL = {
    "operation": "all-reduce",
    "number": 812,
    "group": "world",
    "peer": 1,
    "bytes": 4,
    "dtype": "float32",
    "step": 3,
    "state": "waiting",
    "seconds": 0.5,
}
PLACE = {"operation": "step", "step": 3, "line": "train.py:3", "number": 4, "seconds": 0.5, "call": CALL}
COMMUNICATION = {"method": "int8", "reason": "measured", "bytes_per_step": 12}
FORM = {
    "type": "form",
    "epoch": EPOCH,
    "members": [MEMBER],
    "boundary": "now",
    "fresh": True,
    "deadline_seconds": 3.0,
    "reason": "loss",
    "recoveries": 1,
}
SNAPSHOTTED = {
    "durable": 3,
    "age_seconds": 0.5,
    "restored": 2,
    "restored_seconds": 1.5,
    "bytes_written": 9,
    "backlog_bytes": 1,
    "dropped_steps": 0,
    "failure": "cannot write",
    "differs": "Noisy made other bits",
}
CORRUPTION = {
    "step": 3,
    "rank": 1,
    "process": "u/b/1",
    "peer": 0,
    "ranks": 3,
    "known": True,
    "what": "parameter fc.weight",
    "tensors": 1,
    "only_buffers": False,
}
PROGRESS = {
    "step": 3,
    "steps": 9,
    "loss": 0.5,
    "samples_per_second": 7.0,
    "step_seconds": 0.1,
    "communication": COMMUNICATION,
    "snapshots": SNAPSHOTTED,
    "corruptions": [CORRUPTION],
    "metrics": {"accuracy": 0.5},
    "goes_back": True,
}
STAGES = {"steps": 3, "seconds": {"forward": 1.5}, "waited": 0.5, "samples": 24, "part": 1}
SEEN = {"number": 7, "at": "train.py:8", "stack": "File", "calls": [CALL]}
PROCESS = {
    "id": "u/b/1",
    "pid": 5,
    "start_ticks": 6,
    "phase": "member",
    "epoch": EPOCH,
    "formed": True,
    "has_state": True,
    "step": 3,
    "fault": "reset",
    "waiting": False,
    "place": PLACE,
    "silent_seconds": 0.1,
    "spent": {"work": 2.5},
    "stages": STAGES,
    "seen": SEEN,
    "exit_code": 1,
    "signal": 9,
    "log_tail": "Traceback",
    "remedy": "out of step",
    "dead_seconds": 1.0,
}
MEMBER_REPORT = {
    "rank": 0,
    "process": "u/b/1",
    "pod_uid": "u",
    "pid": 5,
    "start_ticks": 6,
    "step": 3,
    "place": PLACE,
    "waiting": True,
}
FAILURE = {
    "seq": 0,
    "incident": 1,
    "process": "u/b/1",
    "pod_uid": "u",
    "pod_name": "n",
    "rank": 0,
    "exit_code": 1,
    "signal": 9,
    "log_tail": "Traceback",
    "step": 3,
    "remedy": "",
}
INCOMPATIBLE = {"pod_name": "n", "protocol_min": 1, "protocol_max": 2}
HOLDUP = {
    "rank": 1,
    "process": "u/b/1",
    "pod_uid": "u",
    "stage": "forward",
    "slower_by": 0.1,
    "share": 0.4,
    "late": [1],
    "message": "rank 1 takes longer",
}
LOOK = {"rank": 1, "process": "u/b/1", "where": "train.py:8", "stack": "File", "calls": [CALL]}
STANDSTILL = {"message": "rank 1 is late", "seconds": 3.0, "late": [1], "looks": [LOOK]}
RECOVERED = {"cause": "process", "detected": 0.1, "formed": 0.1, "copied": 0.1, "first_step": 0.1}
COUNTED = {"term": 1, "uptime": 2.5}
ASKED = {"uptime": 0.5, "counted": COUNTED}
METER = {"component": "gpu", "source": "nvml", "device": "GPU-1", "joules": 9.5, "before": 1.5}
METERED = {"seconds": 9.0, "seconds_before": 1.0, "meters": [METER], "readable": True}
TOLD = {"joules": {"gpu": {"nvml": 8.0}}, "worker_seconds": 8.0, "seconds": 8.0, "refused": 0, "uptime": 9.0}
POD = {"uid": "u", "name": "n", "index": 0, "draining": False}

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "Member": MEMBER,
    "Form": FORM,
    "Hello": {
        "type": "hello",
        "protocol_min": 1,
        "protocol_max": 1,
        "job_uid": "j",
        "pod_uid": "u",
        "pod_name": "n",
        "index": 0,
        "boot": "b",
        "highest_term": 1,
        "version": "1",
    },
    "ProcessState": PROCESS,
    "Communication": COMMUNICATION,
    "Snapshotted": SNAPSHOTTED,
    "Corruption": CORRUPTION,
    "Progress": PROGRESS,
    "LauncherState": {
        "type": "state",
        "seq": 1,
        "processes": [PROCESS],
        "leaving": False,
        "tabled": EPOCH,
        "forms": [FORM],
        "progress": PROGRESS,
        "counters": {"joins": 1.0},
        "energy": METERED,
    },
    "Put": {"type": "put", "epoch": EPOCH, "process": "u/b/1", "key": "k", "value": "dg=="},
    "Welcome": {"type": "welcome", "protocol": 1, "term": 1, "heartbeat_seconds": 0.5, "energy": ASKED},
    "EnergyAsked": ASKED,
    "EnergyCounted": COUNTED,
    "Reject": {"type": "reject", "reason": "term", "message": "over", "protocol_min": 1, "protocol_max": 1},
    "Table": {"type": "table", "epoch": EPOCH, "entries": {"k": "v"}},
    "Kill": {"type": "kill", "process": "u/b/1", "reason": "silent", "stacks": True},
    "Inspect": {"type": "inspect", "process": "u/b/1", "number": 7},
    "Released": {"type": "released"},
    "Complete": {"type": "complete"},
    "Stop": {"type": "stop", "reason": "suspended"},
    "Place": PLACE,
    "Call": CALL,
    "Seen": SEEN,
    "Look": LOOK,
    "Standstill": STANDSTILL,
    "StageTimes": STAGES,
    "HoldUp": HOLDUP,
    "MemberReport": MEMBER_REPORT,
    "Failure": FAILURE,
    "Incompatible": INCOMPATIBLE,
    "Report": {
        "protocol": 1,
        "job_uid": "j",
        "namespace": "n",
        "job": "charlm",
        "term": 1,
        "seq": 1,
        "roster_seen": 1,
        "state": "training",
        "message": "trains",
        "epoch": EPOCH,
        "world": 1,
        "members": [MEMBER_REPORT],
        "joined": ["u"],
        "ready": ["u"],
        "released": ["u"],
        "progress": PROGRESS,
        "standstill": STANDSTILL,
        "holdup": HOLDUP,
        "holdup_known": True,
        "failures": [FAILURE],
        "incompatible": [INCOMPATIBLE],
        "state_lost": 0,
        "recoveries": 1,
        "recoveries_before": 1,
        "last_recovery_seconds": 0.5,
        "last_recovery": RECOVERED,
        "spent": {"productive": 2.5},
        "untold_seconds": 0.5,
        "energy": TOLD,
        "went_on": True,
    },
    "Recovered": RECOVERED,
    "RosterPod": POD,
    "Roster": {
        "protocol": 1,
        "revision": 1,
        "term": 1,
        "target": 1,
        "minimum": 1,
        "pods": [POD],
        "proven_dead": ["u"],
        "no_progress_seconds": 1.0,
        "trained": 9,
        "energy": COUNTED,
        "stop": "over",
    },
    "LostCoordinator": {"protocol": 1, "job_uid": "j", "pod_uid": "u", "term": 1},
}
MODELS: Final[dict[str, type[BaseModel]]] = {
    name: model
    for module in (messages, reports, places, holdup)
    for name, model in vars(module).items()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and not name.startswith("_")
    and model is not Message
    and model is not BaseModel
}

Path = tuple[str | int, ...]


def leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if (
        inside is None
        or not path
        or isinstance(node, list)
        or path[-1] in ("entries", "metrics", "counters", "spent", "seconds")
    ):
        yield path, node
    for key, value in inside or ():
        yield from leaves(value, (*path, key))


def changed(example: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    whole = deepcopy(example)
    node: Any = whole
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return whole


def beyond(value: Any) -> list[str]:
    """Values of the same type that nobody means, as JSON."""
    if isinstance(value, bool):
        return []
    if isinstance(value, int | float):
        return ["-1e300", "1e300", "NaN", "Infinity", "-Infinity", str(10**30), str(-(10**30)), str(2**53), "-2"]
    if isinstance(value, str):
        return [json.dumps("x" * 5_000_000), json.dumps("\u0000" * 9000)]
    if isinstance(value, dict):
        key, one = next(iter(value.items()))
        return [json.dumps({f"{key}{n}": one for n in range(1000)}), json.dumps({key * 5000: one})]
    return ["[" + ",".join([json.dumps(value[0])] * 400_000) + "]" if isinstance(value[0], str | int) else "null"]


def numbers(node: Any) -> Iterator[float]:
    match node:
        case bool():
            return
        case int() | float():
            yield node
        case dict() | list() | tuple():
            for value in node.values() if isinstance(node, dict) else node:
                yield from numbers(value)


def texts(node: Any) -> Iterator[str]:
    match node:
        case str():
            yield node
        case dict():
            for key, value in node.items():
                yield key
                yield from texts(value)
        case list():
            for value in node:
                yield from texts(value)


def within(model: BaseModel) -> None:
    found = model.model_dump(mode="json")
    json.dumps(found, allow_nan=False)
    assert all(math.isfinite(n) and abs(n) <= 1e300 for n in numbers(found))
    assert all(abs(n) <= MAX_TOLD for n in numbers(found) if isinstance(n, int))
    limit = 1024 if not isinstance(model, messages.Put | messages.Table) else messages.MAX_VALUE
    assert all(len(text) <= max(limit, MAX_TAIL) for text in texts(found))


def test_every_field_of_every_model_is_tried() -> None:
    assert EXAMPLES.keys() == MODELS.keys()
    for name, model in MODELS.items():
        assert EXAMPLES[name].keys() == model.model_fields.keys(), name
        within(model.model_validate_json(json.dumps(EXAMPLES[name])))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_out_of_bounds_is_refused_or_cut(name: str) -> None:
    model, example = MODELS[name], EXAMPLES[name]
    for path, value in leaves(example):
        if not path:
            continue
        for odd in beyond(value):
            text = json.dumps(changed(example, path, "@")).replace('"@"', odd, 1)
            try:
                taken = model.model_validate_json(text)
            except ValidationError:
                continue
            if name in ("Progress", "Communication"):
                continue  # impossible steps are dropped by whoever carries them
            within(taken)


def test_any_bytes_at_all_are_refused_with_one_kind_of_error() -> None:
    chance = random.Random(20261129)
    whole = json.dumps(EXAMPLES["Report"]).encode()
    for _ in range(2000):
        odd = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            odd[chance.randrange(len(odd))] = chance.randrange(256)
        try:
            within(
                Report.model_validate_json(bytes(odd[: chance.randint(1, len(odd))] if chance.random() < 0.3 else odd))
            )
        except ValidationError:
            pass


def test_one_odd_number_of_a_script_does_not_silence_its_worker() -> None:
    odd = {**PROGRESS, "loss": 1e308 * 10, "metrics": {"a": math.nan, "b": 1.0, **{f"m{n}": 0.0 for n in range(99)}}}
    told = LauncherState.model_validate({**EXAMPLES["LauncherState"], "progress": odd})
    assert told.progress is not None
    assert told.progress.loss is None
    assert "a" not in told.progress.metrics
    assert (told.progress.metrics["b"], len(told.progress.metrics)) == (1.0, MAX_METRICS - 1)


@pytest.mark.parametrize(
    "odd", [{"step": 10**30}, {"steps": -1}, {"communication": {**COMMUNICATION, "bytes_per_step": -1}}]
)
def test_progress_that_cannot_be_is_dropped_by_coordinator_and_operator(odd: dict[str, Any]) -> None:
    for name in ("LauncherState", "Report"):
        told = MODELS[name].model_validate({**EXAMPLES[name], "progress": {**PROGRESS, **odd}})
        assert getattr(told, "progress") is None  # noqa: B009  Both have it.


def test_a_launcher_chooses_no_names_of_metrics() -> None:
    told = LauncherState.model_validate(
        {**EXAMPLES["LauncherState"], "counters": {"joins": 1, "evil": 2, "redone_steps": -1, "memberships": math.inf}}
    )
    assert told.counters == {"joins": 1}
    assert "evil" not in LAUNCHER_COUNTERS


def test_the_greatest_honest_values_are_taken() -> None:
    """A bound that an honest caller meets would silence it."""
    members = [{"process": f"{'u' * 36}/{'b' * 16}/{n}", "pod_uid": "u" * 36, "new": True} for n in range(4096)]
    form = {**FORM, "members": members, "epoch": [999_999_999, 2**31]}
    tail = "x" * 16_384
    process = {**PROCESS, "exit_code": -(2**31), "log_tail": tail, "step": MAX_TOLD, "start_ticks": MAX_TOLD}
    state = LauncherState.model_validate_json(
        json.dumps({**EXAMPLES["LauncherState"], "forms": [form] * 3, "processes": [process] * 100})
    )
    assert state.processes[0].log_tail == tail[-MAX_TAIL:]
    assert state.forms is not None
    assert state.forms[0].epoch == EpochId(999_999_999, 2**31)
    assert MAX_MEMBERS >= 4096 * 64
    assert Progress(step=-1).step == -1


def errors(name: str, text: str) -> int:
    try:
        MODELS[name].model_validate_json(text)
    except ValidationError as error:
        return error.error_count()
    return 0


def test_a_body_full_of_errors_is_one_error() -> None:
    """Half a megabyte of them took four seconds and a gigabyte."""
    for name, example in EXAMPLES.items():
        for path, value in leaves(example):
            if not path or not isinstance(value, list | dict):
                continue
            many = "[" + ",".join(["{}"] * 100_000) + "]"
            if isinstance(value, dict):
                many = "{" + ",".join(f'"k{n}":[]' for n in range(100_000)) + "}"
            text = json.dumps(changed(example, path, "@")).replace('"@"', many, 1)
            if (name, path[-1]) == ("Table", "entries"):
                continue  # said by coordinators only
            assert errors(name, text) <= 80, (name, path)
