"""Does `drivetrain why` say what is the matter, in a sentence that names the thing to change?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from drivetrain_cli.reasons import explain, failures, state

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)


def job(status: Json | None = None, **spec: Any) -> Json:
    """A TrainingJob."""
    meta = {"name": "lm", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"workers": 2, **spec}, "status": status or {}}


def pod(name: str, *, waiting: Json | None = None, unplaced: str = "") -> Json:
    """A worker pod."""
    status: Json = {}
    if unplaced:
        status["conditions"] = [{"type": "PodScheduled", "status": "False", "message": unplaced}]
    if waiting:
        status["containerStatuses"] = [{"name": "worker", "image": "nobody/nothing:1", "state": {"waiting": waiting}}]
    return {"metadata": {"name": name, "labels": {}}, "spec": {"nodeName": "node-7"}, "status": status}


def pending(reason: str, message: str) -> Json:
    """Status of a job that does not start."""
    return {"phase": "Pending", "reason": reason, "message": message, "workers": {"ready": 0, "target": 2}}


FAILURE = {
    "time": "2026-01-01T00:05:00Z",
    "reason": "ScriptError",
    "pod": "lm-1-0",
    "node": "node-2",
    "rank": 1,
    "exitCode": 1,
    "logTail": 'Traceback (most recent call last):\n  File "train.py", line 3\nValueError: the data is bad',
}
FAILED: Json = {
    "phase": "Failed",
    "reason": "ScriptError",
    "message": "4 incidents, spec.recovery.maxRestarts allows 3",
    "restarts": 4,
    "failures": [FAILURE],
    "progress": {"step": 41, "steps": 60, "percent": 68},
}
RUNNING: Json = {
    "phase": "Running",
    "workers": {"ready": 2, "target": 2, "world": 2},
    "membership": {"term": 1, "epoch": 3},
    "progress": {"step": 41, "steps": 60, "percent": 68},
    "recoveries": 2,
    "lastRecoverySeconds": 0.12,
}
STILL = (
    "no progress for more than 30 s at step 41: rank 1 (lm-1-0) is at train.py:57 between operations, "
    "and rank 0 waits for it in run.step (train.py:24)"
)
STANDS: Json = {
    **RUNNING,
    "reason": "StandingStill",
    "message": STILL,
    "conditions": [{"type": "StandingStill", "status": "True", "reason": "RanksLate", "message": STILL}],
}
LATE_RANK = {
    "rank": 1,
    "pod": "lm-1-0",
    "node": "a",
    "where": "train.py:57 in main",
    "collective": "all-reduce #811, done",
    "stack": 'Thread MainThread:\n  File "train.py", line 57, in main\n    time.sleep(1000)',
}
LATE = {
    **FAILURE,
    "reason": "NoProgress",
    "exitCode": None,
    "signal": 9,
    "logTail": "Thread MainThread, which runs the script:\n"
    '  File "train.py", line 57, in main\n    time.sleep(1000)\n'
    f"killed by its launcher: NoProgress: {STILL} (recovery.noProgressSeconds)",
}
HELD: Json = {
    **RUNNING,
    "holdUp": {"rank": 1, "message": "rank 1 (lm-1-0) takes 100 ms longer, in data; it runs on node-7"},
}
GPU_NODES = [
    {"metadata": {"name": "a"}, "status": {"allocatable": {"nvidia.com/gpu": "3"}}},
    {"metadata": {"name": "b"}, "status": {"allocatable": {}}},
]
QUOTA = 'lm-0-0: pods "lm-0-0" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4'


@pytest.mark.parametrize(
    ("given", "pods", "nodes", "said"),
    [
        (job(), [], None, ["created 10m ago", "No operator has looked at it", "drivetrain up"]),
        (job(pending("QuotaExceeded", QUOTA)), [], None, ["exceeded quota: small", "Raise the ResourceQuota"]),
        (
            job(pending("ImagePullFailed", "lm-0-0 cannot pull its image: not found")),
            [pod("lm-0-0", waiting={"reason": "ImagePullBackOff", "message": "Back-off"})],
            None,
            ["Correct spec.image", "lm-0-0 on node-7 waits, ImagePullBackOff (image nobody/nothing:1): Back-off"],
        ),
        (
            job(pending("CreateContainerConfigError", 'configmap "x" not found')),
            [],
            None,
            ['configmap "x" not found', "create it, and the pod starts"],
        ),
        (
            job(pending("Unschedulable", "2 of 2 workers cannot be placed"), gpusPerWorker=4),
            [pod("lm-0-0", unplaced="0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")],
            GPU_NODES,
            ["asks for 8 nvidia.com/gpu (2 workers of 4)", "have 3 (a: 3)", "lm-0-0 has no node: 0/2 nodes"],
        ),
        (job(RUNNING), [], None, ["Running at step 41 of 60 (68 %)", "membership 1.3", "2 times", "last after 0.12 s"]),
        (
            job(FAILED, recovery={"maxRestarts": 3}),
            [],
            None,
            ["Failed at step 41 of 60", "4 of 3 allowed", "rank 1 in lm-1-0 on node-2, exit code 1", "the data is bad"],
        ),
        (
            job(
                {
                    **RUNNING,
                    "conditions": [{"type": "StateLost", "status": "True", "message": "attempt 1 started over"}],
                }
            ),
            [],
            None,
            ["Training state was lost: attempt 1 started over"],
        ),
        (job(STANDS), [], None, [f"StandingStill: {STILL}", "Look at that line of the script"]),
        (
            job(HELD),
            [],
            None,
            ["Each step is held up: rank 1 (lm-1-0)", "in data; it runs on node-7", "→ Look at what"],
        ),
        (
            job({**STANDS, "lateRanks": [LATE_RANK]}),
            [],
            None,
            ["rank 1 (lm-1-0 on a) train.py:57 in main, all-reduce #811, done:\n  Thread", "    time.sleep(1000)"],
        ),
        (
            job({**STANDS, "reason": "Unschedulable", "message": "1 of 2 workers cannot be placed"}),
            [],
            None,
            ["Unschedulable: 1 of 2", f"It stands still: {STILL}"],
        ),
        (
            job({**FAILED, "reason": "NoProgress", "failures": [LATE]}),
            [],
            None,
            ["raise spec.recovery.noProgressSeconds", 'train.py", line 57', "rank 0 waits for it"],
        ),
    ],
)
def test_why(given: Json, pods: list[Json], nodes: list[Json] | None, said: list[str]) -> None:
    text = "\n".join(explain(given, pods, [], nodes, NOW))
    assert [part for part in said if part not in text] == []


def test_warnings_that_nothing_else_says() -> None:
    def event(reason: str, message: str, kind: str = "Warning") -> Json:
        about = {"name": "lm-0-0", "uid": "u"}
        return {
            "type": kind,
            "reason": reason,
            "message": message,
            "involvedObject": about,
            "lastTimestamp": "2026-01-01T00:09:00Z",
        }

    status = pending("QuotaExceeded", QUOTA)
    events = [event("FailedMount", "no such volume"), event("QuotaExceeded", QUOTA), event("Pulled", "x", "Normal")]
    lines = explain(job(status), [], events, None, NOW)
    assert lines[lines.index("Warnings:") + 1 :] == ["  60s ago FailedMount lm-0-0: no such volume"]


def test_a_failure_keeps_only_the_end_of_a_long_text() -> None:
    long = {**FAILURE, "logTail": "\n".join(f"line {n}" for n in range(100))}
    (text,) = failures(job({"failures": [long]}))
    assert "line 99" in text
    assert "line 50" not in text


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, "lm is new: no operator has looked at it yet"),
        (pending("WorkersStarting", "0 of 2 workers are ready"), "lm is Pending: 0 of 2 workers are ready"),
        (pending("QuotaExceeded", "no room"), "lm is Pending, QuotaExceeded: no room"),
        (RUNNING, "lm is Running: 2 of 2 workers ready"),
        (STANDS, f"lm is Running: 2 of 2 workers ready, {STILL}"),
        ({"phase": "Succeeded", "progress": {"step": 60}}, "lm is Succeeded after 60 steps"),
        ({"phase": "Suspended"}, "lm is Suspended"),
    ],
)
def test_one_line(status: Json, line: str) -> None:
    assert state(job(status)) == line


def test_a_sentence_is_said_once() -> None:
    text = "\n".join(explain(job(STANDS), [], [], None, NOW))
    assert text.count(STILL) == 1


@pytest.mark.parametrize("kind", ["KeptElsewhere", "CredentialsLost", "ReportUnusable"])
def test_who_keeps_a_job_and_whether_it_can_be_led(kind: str) -> None:
    condition = {"type": kind, "status": "True", "reason": "x", "message": "what is the matter, and what to do"}
    lines = explain(job({**RUNNING, "conditions": [condition]}), [], [], None, NOW)
    assert f"{kind}: what is the matter, and what to do" in lines
    gone = {**condition, "status": "False"}
    assert not any(kind in line for line in explain(job({**RUNNING, "conditions": [gone]}), [], [], None, NOW))
