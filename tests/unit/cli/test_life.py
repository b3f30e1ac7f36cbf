"""What do list, status, scale, suspend, resume, delete and events do to a job, say of it, and end with?

Against the embedded API server; what an operator would write of a job, the tests write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivetrain_cli.main import main
from harness.served import Served, served
from unit.api.cases import job

Json = dict[str, Any]
RUNNING: Json = {
    "phase": "Running",
    "startTime": "2026-01-01T00:00:00Z",
    "workers": {"target": 2, "current": 2, "ready": 2, "world": 2, "summary": "2/2"},
    "progress": {"step": 120, "steps": 400, "percent": 30, "summary": "30%", "eta": "5m", "loss": 2.5},
    "membership": {"term": 1, "epoch": 3},
    "budget": {"used": 1, "summary": "1/10"},
    "recoveries": 1,
    "lastRecoverySeconds": 0.4,
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "AllWorkersReady", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ],
}
PENDING: Json = {
    "phase": "Pending",
    "reason": "QuotaExceeded",
    "message": 'pods "lm-0-0" is forbidden: exceeded quota: team, requested: pods=1, used: pods=4, limited: pods=4',
    "workers": {"target": 2, "ready": 0, "summary": "0/2"},
}


def holds(condition: str, reason: str) -> list[Json]:
    since = "2026-01-01T00:00:00Z"
    return [{"type": condition, "status": "True", "reason": reason, "lastTransitionTime": since}]


FAILED: Json = {
    "phase": "Failed",
    "reason": "ScriptError",
    "message": "ValueError: bad",
    "conditions": holds("Failed", "ScriptError"),
}
SUSPENDED: Json = {
    "phase": "Suspended",
    "progress": {"step": 240, "steps": 400, "durableStep": 238},
    "conditions": holds("Suspended", "JobSuspended"),
}
KEPT: Json = {"storage": {"persistentVolumeClaim": "shared"}}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """An API server that KUBECONFIG names."""
    with served(tmp_path) as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig))
        yield found


def test_list_is_a_table_with_what_holds_jobs_up(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    api.put(job("runs", RUNNING, workers=2))
    api.put(job("waits", PENDING, workers=2))
    api.put(job("young", workers=3))
    assert main(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "PHASE", "WORKERS", "STEP", "PROGRESS", "AGE", "WHY"]
    assert lines[1][:5] == ["runs", "Running", "2/2", "120", "30%"]
    assert len(lines[1]) == 6  # age, and nothing holds it up
    assert lines[2][:5] == ["waits", "Pending", "0/2", "-", "-"]
    assert lines[2][6] == "QuotaExceeded:"
    assert lines[2][-1].endswith("…")
    assert lines[3][:3] == ["young", "New", "0/3"]
    assert main(["list", "-o", "wide"]) == 0
    assert "limited: pods=4" in capsys.readouterr().out


def test_list_of_all_namespaces_and_for_programs(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    api.put(job("here", labels=None))
    there = job("there")
    there["metadata"] |= {"namespace": "team", "labels": {"kind": "lm"}}
    api.put(there)
    assert main(["list", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == ["here"]
    assert main(["list", "-A"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["NAMESPACE", "NAME"],
        ["default", "here"],
        ["team", "there"],
    ]
    assert main(["list", "-A", "-l", "kind=lm", "-o", "json"]) == 0
    assert [each["metadata"]["name"] for each in json.loads(capsys.readouterr().out)["items"]] == ["there"]
    assert main(["list", "-n", "nothing"]) == 0
    assert "No TrainingJobs in namespace 'nothing'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        ("drivetrain", ["(runtime drivetrain, as its workers found out)", "Survivors went on 1 time after a loss"]),
        ("torchrun", ["Its script is a stock one", "All ranks were started again in their pods 1 time after a loss"]),
    ],
)
def test_status_and_why_tell_stock_scripts_from_others(
    api: Served, capsys: pytest.CaptureFixture[str], runtime: str, told: list[str]
) -> None:
    api.put(job("lm", RUNNING | {"runtime": runtime}))
    assert main(["status", "lm"]) == 0
    page = capsys.readouterr().out
    assert [each for each in told if each not in page] == []
    assert main(["why", "lm"]) == 0
    assert told[1] in capsys.readouterr().out


def test_a_selector_that_cannot_be_read_is_named(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "-l", "a in ("]) == 2
    assert capsys.readouterr().err.startswith("drivetrain: -l: ")


def test_status_is_one_page(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    made = api.put(job("lm", RUNNING, workers=2))
    labels = {"drivetrain.dev/job-uid": made["metadata"]["uid"], "drivetrain.dev/role": "worker",
              "drivetrain.dev/index": "0"}  # fmt: skip
    container = {"name": "worker", "image": "train"}
    pod: Json = {
        "metadata": {"name": "lm-0-0", "labels": labels},
        "spec": {"containers": [container], "nodeName": "n1"},
    }
    api.post("/api/v1/namespaces/default/pods", pod)
    assert main(["status", "lm"]) == 0
    text = capsys.readouterr().out
    for told in (
        "TrainingJob default/lm",
        "lm is Running at step 120 of 400 (30 %), 2 of 2 workers ready, world size 2, membership 1.3.",
        "About 5m left, loss 2.5.",
        "Training went on 1 time after a loss, last after 0.4 s.",
        "1/10",
    ):
        assert told in text
    rows = [line.split() for line in text.splitlines()]
    assert ["lm-0-0", "worker", "n1", "Pending", "no"] in [row[:5] for row in rows]
    assert ["Ready", "True"] in [row[:2] for row in rows]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (PENDING, ["It waits for:", "exceeded quota", "→ Raise the ResourceQuota"]),
        (SUSPENDED, ["somebody to resume it", "drivetrain resume lm"]),
        (None, ["No operator has looked at it yet"]),
    ],
)
def test_status_says_what_a_job_waits_for(
    api: Served, capsys: pytest.CaptureFixture[str], status: Json | None, told: list[str]
) -> None:
    api.put(job("lm", status) if status else job("lm"))
    assert main(["status", "lm"]) == 0
    text = capsys.readouterr().out
    assert [each for each in told if each not in text] == []


def test_status_of_a_failed_job_is_1_and_for_programs_the_object(
    api: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(job("lm", FAILED))
    assert main(["status", "lm", "-o", "yaml"]) == 1
    assert yaml.safe_load(capsys.readouterr().out)["status"]["reason"] == "ScriptError"
    assert main(["status", "lm", "--watch"]) == 1  # it is over, so there is one page and no more
    assert capsys.readouterr().out.count("TrainingJob default/lm") == 1
    assert main(["status", "--watch"]) == 2
    assert "--watch and -o: of which job?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "status", "count", "code", "told"),
    [
        ({"workers": 2, "elastic": {"minWorkers": 2, "maxWorkers": 4}}, RUNNING, 4, 0, "New ones start, and join"),
        (
            {"workers": 3, "elastic": {"minWorkers": 2, "maxWorkers": 4}},
            RUNNING,
            2,
            0,
            "Those that cost least to lose leave",
        ),
        ({"workers": 2}, RUNNING, 3, 0, "Without spec.elastic all 3 are needed"),
        ({"workers": 2, "runtime": "torchrun"}, RUNNING, 3, 0, "All ranks get SIGTERM"),
        ({"workers": 2}, RUNNING, 3, 0, "Any other script gets SIGTERM"),
        ({"workers": 2}, RUNNING | {"runtime": "torchrun"}, 3, 0, "All ranks get SIGTERM"),
        (
            {"workers": 2},
            RUNNING | {"runtime": "drivetrain"},
            3,
            0,
            "\nNo process that stays is restarted, and no step",
        ),
        ({"workers": 2, "runtime": "drivetrain"}, RUNNING, 3, 0, "No process that stays is restarted, and no step"),
        ({"workers": 2, "suspend": True}, SUSPENDED, 3, 0, "so many start when it is resumed"),
        ({"workers": 2, "elastic": {"minWorkers": 2, "maxWorkers": 4}}, RUNNING, 5, 2, "spec.elastic.maxWorkers of lm"),
        ({"workers": 2, "elastic": {"minWorkers": 2, "maxWorkers": 4}}, RUNNING, 1, 2, "spec.elastic.minWorkers of lm"),
        ({"workers": 2}, RUNNING, 0, 2, "drivetrain suspend lm"),
        ({"workers": 2}, RUNNING, 5000, 2, "4096, the most that spec.workers may be"),
        ({"workers": 2}, FAILED, 3, 1, "lm has failed already: there is nothing to scale"),
    ],
)
def test_scale(
    api: Served, capsys: pytest.CaptureFixture[str], spec: Json, status: Json, count: int, code: int, told: str
) -> None:
    api.put(job("lm", status, **spec))
    assert main(["scale", "lm", str(count)]) == code
    said = capsys.readouterr()
    assert told in (said.err if code else said.out)
    assert api.job("lm")["spec"]["workers"] == (spec["workers"] if code else count)


def test_what_the_server_refuses_is_told_in_its_words(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    api.put(job("lm", RUNNING, workers=4, training={"parallel": {"tensor": 4}}))
    assert main(["scale", "lm", "2"]) == 2
    assert "spec.training.parallel.tensor" in capsys.readouterr().err
    assert api.job("lm")["spec"]["workers"] == 4


@pytest.mark.parametrize(
    ("spec", "progress", "told"),
    [
        ({"snapshots": KEPT}, {"step": 240, "durableStep": 238}, "goes on from step 238 or later"),
        ({"snapshots": KEPT}, {"step": 240}, "nothing is known to be in its snapshots yet"),
        (
            {"snapshots": KEPT, "restoreFrom": {"job": "old", "step": 7}},
            {"step": 1},
            "begins with step 7 of old",
        ),
        ({}, {"step": 240}, "from its last run.save that prepare(resume=…) finds, else from step 0"),
        ({}, None, "it begins with step 0"),
        ({"runtime": "torchrun"}, None, "from its own last checkpoint"),
        ({}, None, "it begins with the script's own checkpoint"),
    ],
)
def test_resume_says_from_which_step(
    api: Served, capsys: pytest.CaptureFixture[str], spec: Json, progress: Json | None, told: str
) -> None:
    api.put(
        job("lm", {**SUSPENDED, "progress": progress} if progress else {"phase": "Suspended"}, suspend=True, **spec)
    )
    assert main(["resume", "lm", "--no-wait"]) == 0
    assert told in capsys.readouterr().out
    assert not api.job("lm")["spec"].get("suspend")


def test_suspend_waits_for_the_operator_and_says_what_comes_after(
    api: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(job("lm", RUNNING, snapshots=KEPT))
    assert main(["suspend", "lm", "--timeout", "0.1"]) == 1  # nobody is there to do it
    assert "--timeout" in capsys.readouterr().err
    assert api.job("lm")["spec"]["suspend"] is True
    api.say("lm", SUSPENDED)
    assert main(["suspend", "lm"]) == 0
    said = capsys.readouterr().out
    assert "lm is suspended at step 240 of 400" in said
    assert "goes on from step 238" in said


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_a_job_that_is_over_does_not_rest(api: Served, capsys: pytest.CaptureFixture[str], command: str) -> None:
    api.put(job("lm", FAILED))
    assert main([command, "lm"]) == 1
    assert f"there is nothing to {command}" in capsys.readouterr().err


def test_resume_of_what_is_not_suspended_changes_nothing(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    before = api.put(job("lm", RUNNING))
    assert main(["resume", "lm"]) == 0
    assert "lm is not suspended; it is Running." in capsys.readouterr().out
    assert api.job("lm")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_delete_names_what_stays_and_goes_on_after_one_that_is_not_there(
    api: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = api.put(job("lm", RUNNING, snapshots=KEPT))["metadata"]["uid"]
    api.put(job("other"))
    assert main(["delete", "nobody", "lm", "other", "--wait"]) == 4
    said = capsys.readouterr()
    assert "no TrainingJob 'nobody'" in said.err
    assert "TrainingJob default/lm deleted, which was Running at step 120" in said.out
    assert f"folder default/lm-{uid[:8]}" in said.out
    assert "TrainingJob default/other deleted" in said.out
    assert main(["list", "-o", "name"]) == 0
    assert capsys.readouterr().out == ""


def event(name: str, kind: str, of: str, uid: str, reason: str, at: str = "2126-01-01T00:00:00Z") -> Json:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": kind, "name": of, "uid": uid, "namespace": "default"},
        "type": "Normal",
        "reason": reason,
        "message": f"{reason} it\nwas",
        "count": 2,
        "firstTimestamp": at,
        "lastTimestamp": at,
    }


def test_events_are_those_of_the_job_and_its_pods_also_of_those_that_are_gone(
    api: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = api.put(job("lm", RUNNING))["metadata"]["uid"]
    for body in (
        event("a", "TrainingJob", "lm", uid, "Training"),
        event("b", "Pod", f"lm-0-0-{uid[:5]}", "gone", "Killing"),
        event("c", "Pod", f"lm-0-0-{uid[:5]}", "older", "Older", "2020-01-01T00:00:00Z"),
        event("d", "Pod", f"lm-0-0-{'0' * 5}", "x", "OfAnotherOfThisName"),
        event("e", "Pod", f"lm-eval-0-0-{uid[:5]}", "x", "OfAnother"),
        event("f", "TrainingJob", "lm", "other", "OfAnotherUid"),
    ):
        api.post("/api/v1/namespaces/default/events", body)
    assert main(["events", "lm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split("   ")[1:][-1].strip() for line in lines[1:]) == ["Killing it was", "Training it was"]
    assert "(x2)" in lines[1]
    assert main(["events", "lm", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 2


def test_events_are_followed_until_the_job_ends(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    uid = api.put(job("lm", FAILED))["metadata"]["uid"]
    api.post("/api/v1/namespaces/default/events", event("a", "TrainingJob", "lm", uid, "JobFailed"))
    assert main(["events", "lm", "-f"]) == 0
    assert capsys.readouterr().out.count("JobFailed") == 2  # its reason and its message, once


@pytest.mark.parametrize("command", ["status", "why", "logs", "events", "suspend", "resume", "delete", "scale"])
def test_the_nearest_names_are_told(api: Served, capsys: pytest.CaptureFixture[str], command: str) -> None:
    for name in ("charlm-8b2f4", "words", "charlm-eval"):
        api.put(job(name))
    assert main([command, "charlm", *(["2"] if command == "scale" else [])]) == 4
    assert "did you mean charlm-8b2f4 or charlm-eval?" in capsys.readouterr().err


def test_a_job_of_another_namespace_is_pointed_at(api: Served, capsys: pytest.CaptureFixture[str]) -> None:
    api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    there = job("lm")
    there["metadata"]["namespace"] = "team"
    api.put(there)
    assert main(["status", "lm"]) == 4
    assert "there is one in -n team" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["list"], ["status", "lm"], ["scale", "lm", "2"], ["delete", "lm"], ["events", "lm"], ["resume", "lm"]]
)
def test_without_a_cluster_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([*command, "--state", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no cluster is configured" in said


@pytest.mark.parametrize("name", ["", ".", ".."])
@pytest.mark.parametrize(
    "command", [["status"], ["report", "-o", "-"], ["delete"], ["suspend"], ["goodput"], ["energy"]]
)
def test_what_is_no_name_is_no_job(
    api: Served, capsys: pytest.CaptureFixture[str], command: list[str], name: str
) -> None:
    """Such as that of a variable of a shell that is not set: its path is that of all jobs, or of the namespace."""
    assert main([*command, name]) == 4
    assert f"no TrainingJob {name!r}" in capsys.readouterr().err
