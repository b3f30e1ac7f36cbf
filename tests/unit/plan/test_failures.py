"""What each failure costs, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.constants import REQUIREMENTS_CONTAINER
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import NEVER_STARTED, OUT_OF_MEMORY, Progress
from drivetrain_api.report import Failure, Incompatible, JobState
from drivetrain_api.status import MAX_FAILURES, Counted, Phase
from drivetrain_operator.plan.effects import (
    CreateWorker,
    RecordEvent,
)
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.policies.tally import MAX_REMEDIES
from drivetrain_operator.plan.view import PodPhase, Terminated
from unit.plan.builders import (
    NOW,
    ago,
    coordinator,
    ended,
    pending,
    process_failure,
    replaced,
    report,
    running,
    service,
    spec,
    started,
    worker,
)
from unit.plan.tables import conditions, with_secret

HANDLED = 'Traceback (most recent call last):\n  File "train.py", line 3\nValueError: tried again'
"""Printed by a script that went on."""


def lost(index: int) -> CreateWorker:
    return CreateWorker(f"lm-{index}-1-11111", index, 1, 0)


FAILURES: list[tuple[str, Any, dict[str, Any]]] = [
    ("a crash of the launcher costs one", ended(1, 70), {"restarts": 1, "reason": "LauncherCrashed"}),
    ("out of memory costs one", ended(1, 137, reason="OOMKilled"), {"restarts": 1, "reason": "OOMKilled"}),
    ("killed from outside costs one", ended(1, 137), {"restarts": 1, "reason": "Killed"}),
    ("an unknown exit code costs one", ended(1, 3), {"restarts": 1, "reason": "WorkerFailed"}),
    ("refused by the coordinator costs one", ended(1, 66), {"restarts": 1, "reason": "Refused"}),
    (
        "a container that cannot be set up costs one",
        ended(1, 128, reason="StartError"),
        {"restarts": 1, "reason": "StartError"},
    ),
    ("told to go costs nothing", ended(1, 143), {"restarts": 0}),
    ("cut off and fenced costs nothing", ended(1, 67), {"restarts": 0}),
    ("preempted costs nothing", ended(1, 137, disruption="PreemptionByScheduler"), {"restarts": 0}),
    ("node shut down costs nothing", replace(ended(1, 137), reason="Terminated"), {"restarts": 0}),
    ("on its way out costs nothing", worker(1, deleting=True), {"restarts": 0}),
    (
        "refused by its node costs nothing",
        pending(1, phase=PodPhase.FAILED, reason="OutOfcpu", message="no cpu"),
        {"restarts": 0},
    ),
]


@pytest.mark.parametrize(("name", "pod", "expected"), FAILURES, ids=[f[0] for f in FAILURES])
def test_a_lost_worker_is_replaced_under_a_new_name(name: str, pod: Any, expected: dict[str, Any]) -> None:
    found = plan(with_secret(replaced(running(), pod)))
    assert found.status.incarnations == {1: 1}
    assert found.status.restarts == expected["restarts"]
    assert [f.reason for f in found.status.failures] == ([expected["reason"]] if "reason" in expected else [])
    assert [e for e in found.effects if not isinstance(e, RecordEvent)] == [lost(1)]


HOPELESS = [
    (ended(1, 68, tail="sh: pyton: not found"), "CommandNotFound", "not found"),
    (ended(1, 65), "IncompatibleWorkerImage", "protocol 7 to 9, the coordinator 1"),
    (ended(1, 64), "LauncherUsage", ""),
    (
        ended(1, 128, reason="StartError", tail='exec: "drivetrain-launcher": executable file not found'),
        "CommandNotFound",
        "",
    ),
]


@pytest.mark.parametrize(("pod", "reason", "words"), HOPELESS, ids=lambda v: v if isinstance(v, str) else "")
def test_what_every_replacement_would_meet_again_fails_the_job_at_once(pod: Any, reason: str, words: str) -> None:
    offers = [Incompatible(pod_name="lm-1-0-11111", protocol_min=7, protocol_max=9)]
    view = replaced(running(report=report(world=0, state=JobState.WAITING, incompatible=offers)), pod)
    found = plan(view).status
    assert conditions(found)["Failed"] == f"True {reason}"
    assert words in found.message


def test_while_others_train_it_is_only_charged() -> None:
    found = plan(replaced(running(), ended(1, 68))).status
    assert (found.finished, found.restarts) == (False, 1)


def test_pods_that_end_together_for_one_reason_are_one_incident() -> None:
    together = replaced(running(), ended(0, 70, finished=ago(2)), ended(1, 70, finished=ago(1)))
    first = plan(replaced(running(), ended(0, 70))).status
    later = {seconds: replace(running(status=first), now=NOW + timedelta(seconds=seconds)) for seconds in (4, 6)}
    soon, apart = (replaced(view, worker(0, 1), ended(1, 70), without=("lm-0-0-11111",)) for view in later.values())
    differently = replaced(running(), ended(0, 70), ended(1, 3))
    assert [plan(v).status.restarts for v in (together, soon, apart, differently)] == [1, 1, 2, 2]


def test_a_pod_deleted_by_force_gets_a_successor_of_another_name() -> None:
    """It may still run, on a node that is cut off."""
    view = replace(replaced(running(), without=("lm-1-0-11111",)), absent=frozenset({"lm-1-0-11111", "w-1-0"}))
    found = plan(with_secret(view))
    assert CreateWorker("lm-1-1-11111", 1, 1, 0) in found.effects
    assert found.status.restarts == 0


def test_what_nodes_clocks_say_makes_no_incident() -> None:
    """One node is half an hour late: its pod ended in the same second."""
    view = replaced(running(), ended(0, 70, finished=ago(1800)), ended(1, 70, finished=ago(1)))
    assert plan(view).status.restarts == 1


def test_failed_processes_are_charged_by_incident_and_once() -> None:
    failures = [process_failure(0, 0), process_failure(1, 0, rank=2), process_failure(2, 1)]
    first = plan(running(report=report(failures=failures))).status
    assert (first.restarts, [f.counted for f in first.failures]) == (2, [True, False, True])
    assert first.failures[0].reason == "ScriptError"
    assert "ValueError: bad batch" in first.failures[0].log_tail
    again = plan(running(status=first, report=report(failures=[*failures, process_failure(3, 1)]))).status
    assert (again.restarts, len(again.failures)) == (2, 4)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"exit_code": 1}, "ScriptError"),
        ({"exit_code": 3, "log_tail": "bye"}, "ProcessExited"),
        ({"exit_code": 75, "log_tail": "StateLost: rank 1 of 2 has taken along ..."}, "StateLost"),
        ({"exit_code": 3, "log_tail": "StateLost: says the script"}, "ProcessExited"),
        ({"exit_code": 77, "log_tail": "drivetrain: Deviation: rank 0 is at ..."}, "Deviation"),
        ({"exit_code": 1, "log_tail": "Deviation: says the script"}, "ProcessExited"),
        ({"exit_code": None, "signal": 11, "log_tail": ""}, "ProcessCrashed"),
        ({"exit_code": None, "signal": 9, "log_tail": "step 7"}, "ProcessKilled"),
        ({"exit_code": None, "signal": 9, "log_tail": f"step 7\n{OUT_OF_MEMORY}"}, "OOMKilled"),
        ({"exit_code": None, "signal": 9, "log_tail": f"{HANDLED}\nstep 7"}, "ProcessKilled"),
        ({"exit_code": None, "signal": 15, "log_tail": f"{HANDLED}\nstep 7"}, "ProcessCrashed"),
        ({"exit_code": None, "signal": 6, "log_tail": HANDLED}, "ScriptError"),
    ],
)
def test_a_failed_process_has_one_word_of_why(fields: dict[str, Any], reason: str) -> None:
    status = plan(running(report=report(failures=[process_failure(0, 0, **fields)]))).status
    assert status.failures[0].reason == reason
    assert status.failures[0].log_tail == fields.get("log_tail", status.failures[0].log_tail)


def test_scripts_that_have_come_apart_end_the_job_at_once() -> None:
    """A repeat cannot help, so no budget is asked."""
    where = "the ranks' scripts have come apart: rank 0 is at run.save in t.py:31, rank 1 is at run.step in t.py:24"
    of = spec(recovery={"maxRestarts": 9})
    apart = [process_failure(0, 0, exit_code=77, log_tail=f"bye\ndrivetrain: Deviation: {where}")]
    told = plan(running(of, report=report(failures=apart))).status
    assert (conditions(told)["Failed"], told.message) == ("True Deviation", where)


def test_the_budget_is_spent() -> None:
    of = spec(recovery={"maxRestarts": 1})
    inside = plan(running(of, report=report(failures=[process_failure(0, 0)]))).status
    beyond = plan(running(of, report=report(failures=[process_failure(0, 0), process_failure(1, 1)]))).status
    assert not inside.finished
    assert conditions(beyond)["Failed"] == "True ScriptError"
    assert "2 incidents, spec.recovery.maxRestarts allows 1" in beyond.message
    assert "ValueError: bad batch" in beyond.message


def test_all_state_lost_is_a_new_attempt_and_said_so() -> None:
    before = started(progress=plan(running()).status.progress)
    told = plan(running(status=before, report=report(state_lost=1, progress=None))).status
    assert (told.attempt, told.progress, conditions(told)["StateLost"]) == (1, None, "True NoSurvivor")
    assert "at step 10" in next(c.message for c in told.conditions if c.type == "StateLost")
    assert told.state_losses == 1
    again = plan(running(status=told, report=report(state_lost=1))).status
    assert again.state_losses == 1
    assert again.attempt == 1


LOST = "bye\ndrivetrain: StateLost: rank 1 of 2 has taken along a part of the state of step 9"


def test_a_part_lost_is_a_new_attempt_and_said_with_its_cost() -> None:
    line = f"{LOST}: back to the save of step 6, which costs 3 steps: asking for a fresh process"
    lost = process_failure(0, 0, exit_code=75, log_tail=line)
    told = plan(running(report=report(state_lost=1, failures=[lost]))).status
    assert (told.attempt, conditions(told)["StateLost"]) == (1, "True PartLost")
    assert next(c.message for c in told.conditions if c.type == "StateLost") == (
        "rank 1 of 2 has taken along a part of the state of step 9: back to the save of step 6, which costs 3 steps; "
        "attempt 1"
    )
    assert not told.finished


def test_a_part_lost_for_good_fails_the_job() -> None:
    lost = process_failure(0, 0, exit_code=76, log_tail=f"{LOST}, and nothing was saved")
    status = plan(running(report=report(failures=[lost]))).status
    assert conditions(status)["Failed"] == "True StateLost"
    assert status.message.startswith("rank 1 of 2 has taken along a part of the state of step 9, and nothing was saved")


def test_a_coordinator_that_came_after_the_loss_cannot_know_but_steps_tell() -> None:
    before = started(progress=plan(running()).status.progress)  # 10 steps
    restarted = report(progress=report().report.progress.model_copy(update={"step": 0}))  # type: ignore[union-attr]
    one_behind = report(progress=report().report.progress.model_copy(update={"step": 8}))  # type: ignore[union-attr]
    assert plan(running(status=before, report=restarted)).status.attempt == 1
    assert plan(running(status=before, report=one_behind)).status.attempt == 0


def test_a_script_that_goes_back_to_its_own_checkpoint_has_lost_no_state() -> None:
    before = started(progress=plan(running()).status.progress)  # 10 steps
    told = Progress(step=4, steps=100, metrics={"learning_rate": 0.123456}, goes_back=True)
    after = replace(running(status=before, report=report(progress=told)), now=NOW + timedelta(minutes=1))
    found = plan(after).status
    assert (found.attempt, found.progress and found.progress.step) == (0, 5)
    assert found.progress is not None
    assert found.progress.metrics == {"learning_rate": 0.12346}


def test_what_the_last_coordinator_reported_costs_nothing_again() -> None:
    """Launchers list their dead for a minute, so the next one numbers the same deaths anew."""
    paid = plan(running(report=report(failures=[process_failure(5, 3)]))).status
    paid = paid.model_copy(
        update={"membership": paid.membership.model_copy(update={"term": 2}), "counted": Counted()},
    )
    again = process_failure(0, 0, process="p5")
    beside = process_failure(1, 0)
    new = process_failure(2, 1)
    view = replaced(
        running(status=paid, report=report(term=2, failures=[again, beside, new]), service=service(2)), coordinator(2)
    )
    found = plan(view).status
    assert (found.restarts, [f.process for f in found.failures]) == (2, ["p5", "p1", "p2"])


def raised(seq: int, error: str, step: int | None = -1, **fields: Any) -> Failure:
    """The script raised this, in an incident of its own."""
    tail = f'Traceback (most recent call last):\n  File "train.py", line {seq}\n{error}'
    return process_failure(seq, seq, **{"log_tail": tail, "step": step, **fields})


USAGE = "drivetrain.errors.UsageError: batch: 7 samples for 2 ranks"
ONE_AFTER_ANOTHER: list[tuple[str, list[Failure], str | None]] = [
    ("a module that is not there", [raised(0, "ModuleNotFoundError: No module named 'x'")], "No module named 'x'"),
    ("a typing error", [raised(0, "SyntaxError: invalid syntax")], "invalid syntax"),
    ("a usage error of ours, at any step", [raised(0, USAGE, 9)], "7 samples for 2 ranks"),
    ("a missing module after some steps may come back", [raised(0, "ImportError: x.so", 9)], None),
    ("one that may be this node's", [raised(0, "ImportError: libcuda.so.1: cannot open shared object file")], None),
    ("something else gets two more tries", [raised(n, "ValueError: no rows") for n in range(2)], None),
    (
        "and no more, if nothing was trained between",
        [raised(n, "ValueError: no rows") for n in range(3)],
        "3 times in a row before the first step: ValueError: no rows",
    ),
    (
        "later, too",
        [raised(n, "ValueError: nan", 41) for n in range(3)],
        "3 times in a row after step 42: ValueError: nan",
    ),
    *(
        ("what storage, networks and devices do passes", [raised(n, error, 41) for n in range(5)], None)
        for error in (
            "OSError: [Errno 107] Transport endpoint is not connected: '/mnt/data'",
            "requests.exceptions.ConnectionError: storage.example: connection refused",
            "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
            "RuntimeError: NCCL watchdog",
        )
    ),
    ("training went on between", [raised(0, "ValueError: nan", 41), raised(1, "ValueError: nan", 45)], None),
    ("another error", [raised(0, "ValueError: nan", 41), raised(1, "OSError: x", 41)], None),
    ("a coordinator that does not tell the step", [raised(0, "ValueError", None), raised(1, "ValueError", None)], None),
    (
        "a crash is no error of the script",
        [raised(0, "x", 3, signal=11, exit_code=None, log_tail="x"), raised(1, "x", 3, signal=11, log_tail="x")],
        None,
    ),
    (
        "a script that never joins",
        [process_failure(0, 0, exit_code=0, log_tail=f"hello\n{NEVER_STARTED}", step=-1)],
        "the script ended with exit code 0 and never called drivetrain.start()",
    ),
]


@pytest.mark.parametrize(("name", "failures", "why"), ONE_AFTER_ANOTHER, ids=[case[0] for case in ONE_AFTER_ANOTHER])
def test_what_would_fail_again_ends_the_job(name: str, failures: list[Failure], why: str | None) -> None:
    status = started()
    for count in range(1, len(failures) + 1):
        status = plan(running(status=status, report=report(failures=failures[:count], progress=None))).status
    assert status.finished is (why is not None)
    if why is not None:
        assert why in status.message


def test_what_drivetrain_ended_itself_costs_nothing_for_a_while() -> None:
    """A worker was paused for 5 s; its rank came back to a membership without it, and wished to be replaced."""
    of = spec(recovery={"maxRestarts": 0})
    wish = "out of step: asking for a fresh process"

    def remedy(seq: int, step: int, event: int) -> Failure:
        fields = {"exit_code": 75, "log_tail": f"drivetrain: {wish}", "remedy": wish, "step": step}
        return process_failure(seq, -event, **fields)

    found = plan(running(of, report=report(failures=[remedy(0, 9, 1)])))
    assert not found.status.finished
    assert (found.status.restarts, found.status.failures[0].reason) == (0, "Replaced")
    event = next(e for e in found.effects if isinstance(e, RecordEvent) and e.reason == "Replaced")
    assert (event.type, wish in event.message) == ("Normal", True)
    status = started(of)
    for seq in range(100):  # one each step, forth and back: training goes on
        told = [remedy(seq, (seq * 7) % 50, seq + 1)]
        status = plan(running(of, status=status, report=report(failures=told))).status
    assert not status.finished
    together = [remedy(100 + rank, 99, 101) for rank in range(64)]
    status = plan(running(of, status=status, report=report(failures=together))).status
    assert not status.finished  # 64 ranks, one event
    for seq in range(200, 200 + MAX_REMEDIES + 1):
        status = plan(running(of, status=status, report=report(failures=[remedy(seq, 99, seq)]))).status
    assert status.finished


def test_of_many_ranks_that_fail_together_the_one_that_is_charged_is_kept() -> None:
    tail = "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'x'"
    of = spec(recovery={"maxRestarts": 3})
    failures = [process_failure(rank, 1, rank=rank, log_tail=tail, step=-1) for rank in range(16)]
    found = plan(running(of, report=report(failures=failures))).status
    assert found.finished
    assert "No module named 'x'" in found.message
    assert len(found.failures) == MAX_FAILURES
    assert sum(each.counted for each in found.failures) == 1


def test_deaths_that_a_new_coordinator_hears_again_cost_nothing_more() -> None:
    """Of sixteen, status keeps ten; the others were charged, and recorded, once more."""
    failures = [process_failure(rank, 1, rank=rank, step=100) for rank in range(16)]
    once = plan(running(report=report(failures=failures))).status
    assert once.restarts == 1
    later = once.model_copy(update={"counted": Counted()})  # a new term
    again = [each.model_copy(update={"incident": 1, "step": None}) for each in failures]
    assert plan(running(status=later, report=report(failures=again))).status.restarts == 1


def test_a_replica_whose_clock_was_ahead_makes_no_failure_free() -> None:
    first = plan(replaced(running(), ended(0, 137, reason="OOMKilled"))).status
    ahead = first.failures[0].model_copy(update={"time": ago(-3600)})
    status = first.model_copy(update={"failures": [ahead]})
    view = replaced(running(status=status), worker(0, 1), ended(1, 137, reason="OOMKilled"), without=("lm-0-0-11111",))
    assert plan(view).status.restarts == 2


def test_what_is_gone_of_a_large_state_ends_the_job_whatever_is_left_of_its_line() -> None:
    failure = process_failure(0, 1, exit_code=76, log_tail="StateLost: rank 1 ... " + "x" * 3000, step=9)
    found = plan(running(report=report(failures=[failure]))).status
    cut = found.failures[0].model_copy(update={"reason": "StateLost"})
    assert plan(running(status=found.model_copy(update={"failures": [cut], "conditions": []}))).status.finished


EVICTIONS = [
    ("the node was full", "The node was low on resource: ephemeral-storage.", "", 0),
    ("Kubernetes says so", "whatever", "TerminationByKubelet", 0),
    ("its own limit", "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", "", 1),
    ("its own volume", 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi". ', "", 1),
]


@pytest.mark.parametrize(("name", "message", "disruption", "restarts"), EVICTIONS, ids=[c[0] for c in EVICTIONS])
def test_evictions_are_charged_to_who_used_too_much(name: str, message: str, disruption: str, restarts: int) -> None:
    pod = replace(ended(0, 137), reason="Evicted", message=message, disruption=disruption)
    found = plan(replaced(running(), pod)).status
    assert found.restarts == restarts
    if restarts:
        assert (found.failures[0].reason, found.failures[0].log_tail) == ("Evicted", message)


@pytest.mark.parametrize(("code", "ends"), [(ExitCode.REQUIREMENTS, True), (1, False)])
def test_packages_that_cannot_be_installed_end_the_job_at_once_and_others_cost_a_restart(code: int, ends: bool) -> None:
    said = "Looking\nrequirements: they cannot be installed: No matching distribution found for nonesuch"
    init = (REQUIREMENTS_CONTAINER, Terminated(code, None, "Error", said, ago(5), ago(1)))
    pod = replace(ended(0, 1), terminated=None, init_failed=init, phase=PodPhase.FAILED)
    found = plan(replaced(replace(running(), report=None), pod)).status
    assert (found.phase == Phase.FAILED) == ends
    assert found.failures[0].reason == "RequirementsNotInstalled"
    assert "No matching distribution found for nonesuch" in (found.message if ends else found.failures[0].log_tail)


def test_an_init_container_that_failed_is_named_with_what_it_said() -> None:
    init = ("fetch", Terminated(3, None, "Error", "downloading\n404 Not Found", ago(5), ago(1)))
    pod = replace(ended(0, 1), terminated=None, init_failed=init, phase=PodPhase.FAILED)
    found = plan(replaced(running(), pod)).status
    assert (found.restarts, found.failures[0].exit_code) == (1, 3)
    assert found.failures[0].reason == "InitContainerFailed"
    assert "404 Not Found" in found.failures[0].log_tail
