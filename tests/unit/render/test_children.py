"""What a job has beside its pods: names that nobody else has, a budget for evictions, a script that stays as it was."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kubernetes import client

from drivetrain_operator.plan.effects import (
    CreateBudget,
    CreateScript,
    CreateSecret,
    CreateWorker,
    PatchBudget,
    PodOwner,
    SecretKind,
)
from drivetrain_operator.plan.observe import budget_view
from drivetrain_operator.render import names
from drivetrain_operator.render.budget import budget, budget_patch
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.script import lacks, script
from drivetrain_operator.render.secret import secret
from unit.plan.builders import JOB, UID, job, spec, started

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
OTHER = "22222222-0000-0000-0000-000000000000"
PLATFORM = Platform("operator", "https://reports:7443")


def all_names(of: str, uid: str) -> set[str]:
    return {
        names.worker(of, names.suffix(uid), 0, 0),
        names.coordinator(of, names.suffix(uid), 1),
        names.service(of, names.suffix(uid)),
        names.budget(of, uid),
        names.network_policy(of, uid, "worker"),
        names.network_policy(of, uid, "coordinator"),
        names.script(of, uid, 0),
        names.worker_secret(of, uid, "r" * 64),
        names.coordinator_secret(of, uid, 1, "r" * 64),
    }


def test_a_job_made_again_under_its_name_shares_no_name_with_the_old_one() -> None:
    assert not all_names(JOB, UID) & all_names(JOB, OTHER)


@pytest.mark.parametrize("of", ["a", "a" * 50, "a" * 44 + "-b-c-d"])
def test_the_service_of_any_job_has_a_dns_label_for_a_name(of: str) -> None:
    assert LABEL.fullmatch(names.service(of, names.suffix(UID)))


@pytest.mark.parametrize("of", ["lm", "lm-0", "lm-0-0", "lm-coordinator"])
def test_a_name_means_the_pod_that_it_was_made_for(of: str) -> None:
    worker = names.identify(of, names.worker(of, names.suffix(UID), 12, 34))
    leader = names.identify(of, names.coordinator(of, names.suffix(UID), 56))
    assert (worker.role, worker.index, worker.incarnation) == ("worker", 12, 34)
    assert (leader.role, leader.term) == ("coordinator", 56)


def test_the_budget_is_about_all_workers_and_nothing_else() -> None:
    view = job(spec(), started())
    body = budget(view, CreateBudget("b", 2))
    assert client.V1PodDisruptionBudget.model_validate(body).spec
    selector = body["spec"]["selector"]["matchLabels"].items()
    pod = worker_pod(view, CreateWorker("w", 0, 0, 0), PLATFORM)
    assert selector <= pod["metadata"]["labels"].items()
    assert not selector <= names.coordinator_labels(view, 1).items()


CHANGES: list[dict[str, Any]] = [
    {"minAvailable": None, "maxUnavailable": 2},
    {"minAvailable": None},
    {"minAvailable": "50%"},
    {"selector": {"matchLabels": {"a": "b"}}},
    {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
    {"unhealthyPodEvictionPolicy": "IfHealthyBudget"},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_budget_that_somebody_changed_is_seen_and_mended(change: dict[str, Any]) -> None:
    view = job(spec(), started())
    stored = budget(view, CreateBudget("b", 2))
    assert budget_view(stored).as_rendered
    changed = stored | {"spec": {key: value for key, value in (stored["spec"] | change).items() if value is not None}}
    assert not budget_view(changed).as_rendered
    patch = budget_patch(view, PatchBudget("b", "u", 2, budget_view(changed).surplus))
    assert merged(changed["spec"], patch["spec"]) == stored["spec"]
    assert patch["metadata"] == {"uid": "u"}


def merged(base: Json, patch: Json) -> Json:
    """RFC 7386."""
    found = dict(base)
    for key, value in patch.items():
        if isinstance(value, dict):
            found[key] = merged(found[key] if isinstance(found.get(key), dict) else {}, value)
        elif value is None:
            found.pop(key, None)
        else:
            found[key] = value
    return found


def spread(template: Json) -> list[Json]:
    view = job(spec(podTemplate=template), started())
    found: list[Json] = worker_pod(view, CreateWorker("w", 0, 0, 0), PLATFORM)["spec"]["topologySpreadConstraints"]
    return found


def test_workers_are_spread_over_nodes_by_preference() -> None:
    (ours,) = spread({})
    assert (ours["topologyKey"], ours["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert ours["labelSelector"]["matchLabels"] == {"drivetrain.dev/job-uid": UID, "drivetrain.dev/role": "worker"}


def test_a_template_has_the_last_word_on_it() -> None:
    zone = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    own = {"maxSkew": 5, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    both = spread({"spec": {"topologySpreadConstraints": [zone, own]}})
    assert {(each["topologyKey"], each["maxSkew"]) for each in both} == {("zone", 1), ("kubernetes.io/hostname", 5)}


def test_a_coordinators_secret_goes_with_its_pod() -> None:
    view = job(spec(), started())
    body = secret(view, CreateSecret("s", SecretKind.COORDINATOR, 3, PodOwner("lm-coordinator-3", "p-3")), {})
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "lm-coordinator-3", "p-3")


SOURCE = {"data": {"train.py": "print(1)", "part.py": ""}, "binaryData": {"table.bin": "AAAA"}}


def test_the_copy_of_a_script_has_all_of_it_and_never_changes() -> None:
    body = script(job(spec(), started()), CreateScript("lm-script-0-11111", "code", "train.py"), SOURCE)
    assert client.V1ConfigMap.model_validate(body).immutable
    assert (body["data"], body["binaryData"]) == (SOURCE["data"], SOURCE["binaryData"])


@pytest.mark.parametrize(("key", "missing"), [("train.py", False), ("table.bin", False), ("other.py", True)])
def test_what_the_job_runs_must_be_in_it(key: str, missing: bool) -> None:
    assert lacks(CreateScript("c", "code", key), SOURCE) is missing


@pytest.mark.parametrize(("copy", "mounted"), [("lm-script-0-11111", "lm-script-0-11111"), (None, "code")])
def test_workers_mount_the_copy_if_their_job_has_one(copy: str | None, mounted: str) -> None:
    """One that an older release has started has none."""
    of = spec(command=None, script={"configMap": "code", "key": "train.py"})
    status = started(of)
    assert status.resolved is not None
    view = job(of, status.model_copy(update={"resolved": status.resolved.model_copy(update={"script": copy})}))
    pod = worker_pod(view, CreateWorker("w", 0, 0, 0), PLATFORM)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["drivetrain-script"]["configMap"] == {"name": mounted}


PROBE = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 9}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"exec", "periodSeconds", "timeoutSeconds"}),
        ({"readinessProbe": PROBE}, set(PROBE)),
        ({"readinessProbe": {"periodSeconds": 1}}, {"exec", "periodSeconds", "timeoutSeconds"}),
        ({"readinessProbe": None}, set()),
    ],
    ids=["ours", "another", "ours, faster", "none"],
)
def test_a_worker_is_ready_when_it_takes_part_or_as_its_template_says(given: Json, found: set[str]) -> None:
    view = job(spec(podTemplate={"spec": {"containers": [{"name": "worker", **given}]}}), started())
    (container,) = worker_pod(view, CreateWorker("w", 0, 0, 0), PLATFORM)["spec"]["containers"]
    assert set(container.get("readinessProbe") or ()) == found
