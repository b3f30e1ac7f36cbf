"""What child objects look like. The official client's strict models are the oracle for their shape."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import kubernetes.client as client
import pytest
from pydantic import ValidationError

from drivetrain_api.runtime import RuntimeSpec
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateSecret,
    CreateService,
    CreateWorker,
    PatchService,
    SecretKind,
)
from drivetrain_operator.plan.observe import pod_view, service_view
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import names
from drivetrain_operator.render.coordinator import coordinator_pod
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.secret import secret
from drivetrain_operator.render.service import coordinator_service, service_patch
from drivetrain_operator.render.templates import template_problem
from unit.plan.builders import ADDRESS, JOB, UID, job, spec, started

WORKER = CreateWorker(names.worker(JOB, names.suffix(UID), 2, 1), 2, 1, 3)
PLATFORM = Platform("registry/drivetrain:1", "https://reports.drivetrain.svc:7443", ("pull",))


def a_job(**fields: Any) -> JobView:
    of = spec(**fields)
    return job(of, started(of))


def oracle(body: Json, kind: str) -> Any:
    """The body as the official client reads it; unknown fields and wrong types raise."""
    return getattr(client, kind).model_validate(body)


def container(pod: Json, name: str = "worker") -> Json:
    found: Json = next(c for c in pod["spec"]["containers"] if c["name"] == name)
    return found


def env(pod: Json) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in pod["spec"]["containers"][0]["env"]}


TEMPLATE = {
    "metadata": {"labels": {"team": "nlp"}, "annotations": {"note": "x"}},
    "spec": {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "initContainers": [{"name": "fetch", "image": "curl"}],
        "containers": [
            {
                "name": "worker",
                "resources": {"limits": {"memory": "8Gi"}},
                "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
            },
            {"name": "logs", "image": "tail"},
        ],
    },
}


def test_the_oracle_is_strict() -> None:
    pod = worker_pod(a_job(), WORKER, PLATFORM)
    pod["spec"]["restartPolcy"] = "Never"
    with pytest.raises(ValidationError):
        oracle(pod, "V1Pod")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"gpusPerWorker": 2},
        {"command": None, "script": {"configMap": "code", "key": "train.py"}},
        {"podTemplate": TEMPLATE, "gpusPerWorker": 1},
    ],
)
def test_worker_pods_are_what_the_official_client_takes_for_pods(fields: dict[str, Any]) -> None:
    pod = oracle(worker_pod(a_job(**fields), WORKER, PLATFORM), "V1Pod")
    assert pod.metadata.name == "lm-2-1-11111"
    assert pod.spec.restart_policy == "Never"


def test_the_other_children_are_too() -> None:
    view = a_job()
    assert oracle(
        coordinator_pod(view, CreateCoordinator("lm-coordinator-3-11111", 3, "x", "node1"), PLATFORM), "V1Pod"
    ).spec
    service = oracle(coordinator_service(view, CreateService("lm-coordinator-11111", 3, ADDRESS)), "V1Service")
    assert service.spec.cluster_ip
    assert service.spec.publish_not_ready_addresses, "a successor is found as soon as it listens"
    data = {"token": b"t", "ca.crt": b"c"}
    assert oracle(secret(view, CreateSecret("s", SecretKind.COORDINATOR, 3), data), "V1Secret").immutable


def test_a_worker_knows_who_it_is() -> None:
    view = a_job(training={"steps": 9})
    pod = worker_pod(view, WORKER, PLATFORM)
    variables = env(pod)
    assert variables | {"DRIVETRAIN_SPEC": ""} == {
        "DRIVETRAIN_JOB": JOB,
        "DRIVETRAIN_JOB_UID": UID,
        "DRIVETRAIN_NAMESPACE": "ns",
        "DRIVETRAIN_POD_NAME": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
        "DRIVETRAIN_POD_UID": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}},
        "DRIVETRAIN_POD_IP": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
        "DRIVETRAIN_INDEX": "2",
        "DRIVETRAIN_ATTEMPT": "3",
        "DRIVETRAIN_COORDINATOR": f"{ADDRESS}:7070",
        "DRIVETRAIN_REPORTS": PLATFORM.reports_url,
        "DRIVETRAIN_CREDENTIALS": "/var/run/drivetrain",
        "DRIVETRAIN_SPEC": "",
    }
    assert RuntimeSpec.model_validate_json(variables["DRIVETRAIN_SPEC"]).training.steps == 9
    assert container(pod)["command"] == ["drivetrain-launcher", "--", "python", "train.py"]
    seen = pod_view(pod | {"metadata": pod["metadata"] | {"uid": "u"}})
    assert (seen.role, seen.index, seen.incarnation, seen.attempt) == ("worker", 2, 1, 3)


def test_an_ipv6_address_gets_brackets() -> None:
    of = spec()
    status = started(of)
    assert status.resolved is not None
    resolved = status.resolved.model_copy(update={"coordinator_address": "fd00::7"})
    pod = worker_pod(job(of, status.model_copy(update={"resolved": resolved})), WORKER, PLATFORM)
    assert env(pod)["DRIVETRAIN_COORDINATOR"] == "[fd00::7]:7070"


def test_workers_pass_the_restricted_standard() -> None:
    for pod in (
        worker_pod(a_job(), WORKER, PLATFORM),
        coordinator_pod(a_job(), CreateCoordinator("lm-coordinator-1-11111", 1, "x"), PLATFORM),
    ):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for each in pod["spec"]["containers"]:
            assert each["securityContext"]["allowPrivilegeEscalation"] is False
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_template_may_choose_another_user() -> None:
    pod = worker_pod(a_job(podTemplate={"spec": {"securityContext": {"runAsUser": 77}}}), WORKER, PLATFORM)
    assert pod["spec"]["securityContext"]["runAsUser"] == 77
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_gpus_become_limits_and_requests() -> None:
    assert container(worker_pod(a_job(gpusPerWorker=2, gpuResource="amd.com/gpu"), WORKER, PLATFORM))["resources"] == {
        "limits": {"amd.com/gpu": "2"},
        "requests": {"amd.com/gpu": "2"},
    }
    assert "resources" not in container(worker_pod(a_job(), WORKER, PLATFORM))


def test_a_template_is_merged_over_the_pod() -> None:
    pod = worker_pod(a_job(podTemplate=TEMPLATE, gpusPerWorker=1), WORKER, PLATFORM)
    assert pod["metadata"]["labels"]["team"] == "nlp"
    assert pod["metadata"]["labels"]["drivetrain.dev/index"] == "2"
    assert pod["metadata"]["annotations"] == {"note": "x"}
    assert container(pod)["resources"]["limits"] == {"nvidia.com/gpu": "1", "memory": "8Gi"}
    assert {"OMP_NUM_THREADS", "DRIVETRAIN_JOB"} <= set(env(pod))
    assert container(pod, "logs")["image"] == "tail"
    assert [t["key"] for t in pod["spec"]["tolerations"]] == [
        "gpu",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/not-ready",
    ]


def test_a_template_may_say_how_long_to_stay_on_a_lost_node() -> None:
    mine = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 900}
    pod = worker_pod(a_job(podTemplate={"spec": {"tolerations": [mine]}}), WORKER, PLATFORM)
    assert [t for t in pod["spec"]["tolerations"] if "unreachable" in t["key"]] == [mine]


def test_a_script_is_mounted_from_its_config_map() -> None:
    pod = worker_pod(a_job(command=None, script={"configMap": "code", "key": "t.py"}), WORKER, PLATFORM)
    volume = next(v for v in pod["spec"]["volumes"] if "configMap" in v)
    mount = next(m for m in container(pod)["volumeMounts"] if m["name"] == volume["name"])
    assert volume["configMap"]["name"] == "code"
    assert container(pod)["command"][2:] == ["python", f"{mount['mountPath']}/t.py"]


def test_keys_of_snapshots_are_mounted_and_nowhere_else() -> None:
    """So they can change while the worker runs, and the user's script has none of them in its environment."""
    storage = {"url": "s3://bucket", "secretName": "keys", "options": {"endpoint": "https://store:9000"}}
    pod = worker_pod(a_job(snapshots={"storage": storage}), WORKER, PLATFORM)
    mount = {
        "name": "drivetrain-snapshots-secret",
        "mountPath": "/var/lib/drivetrain/snapshots-secret",
        "readOnly": True,
    }
    assert mount in container(pod)["volumeMounts"]
    source = {"secretName": "keys", "defaultMode": 0o440}
    assert {"name": "drivetrain-snapshots-secret", "secret": source} in pod["spec"]["volumes"]
    told = json.loads(env(pod)["DRIVETRAIN_SPEC"])["snapshots"]
    assert told["storage"].startswith("s3://bucket/")
    assert (told["options"], told["secret"]) == ({"endpoint": "https://store:9000"}, mount["mountPath"])
    assert "keys" not in json.dumps(container(pod)["env"])
    assert "drivetrain-snapshots-secret" not in json.dumps(worker_pod(a_job(), WORKER, PLATFORM))


def test_results_are_in_the_claim_and_a_command_can_name_their_folder() -> None:
    job = a_job(storage={"persistentVolumeClaim": "shared"}, command=["python", "t.py", "$(DRIVETRAIN_OUTPUT_DIR)"])
    pod = worker_pod(job, WORKER, PLATFORM)
    claim = {"name": "drivetrain-storage", "persistentVolumeClaim": {"claimName": "shared"}}
    assert claim in pod["spec"]["volumes"]
    mount = {"name": "drivetrain-storage", "mountPath": "/var/lib/drivetrain/storage"}
    assert mount in container(pod)["volumeMounts"]
    told = json.loads(env(pod)["DRIVETRAIN_SPEC"])["storage"]
    assert told == {"folder": env(pod)["DRIVETRAIN_OUTPUT_DIR"], "options": {}}
    assert told["folder"].startswith(f"{mount['mountPath']}/drivetrain/results/")
    without = json.dumps(worker_pod(a_job(), WORKER, PLATFORM))
    assert "drivetrain-storage" not in without
    assert "DRIVETRAIN_OUTPUT_DIR" not in without


def test_results_that_go_to_a_url_have_a_folder_and_keys_of_their_own() -> None:
    pod = worker_pod(a_job(storage={"url": "s3://bucket", "secretName": "keys"}), WORKER, PLATFORM)
    assert {"name": "drivetrain-storage", "emptyDir": {}} in pod["spec"]["volumes"]
    source = {"secretName": "keys", "defaultMode": 0o440}
    assert {"name": "drivetrain-storage-secret", "secret": source} in pod["spec"]["volumes"]
    mounted = {each["mountPath"] for each in container(pod)["volumeMounts"] if "storage" in each["name"]}
    assert mounted == {"/var/lib/drivetrain/storage", "/var/lib/drivetrain/storage-secret"}
    assert "keys" not in json.dumps(container(pod)["env"])


def _worker(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker"} | fields]}}


RESERVED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "Pod"}, "kind"),
    ({"metadata": {"name": "x"}}, "metadata.name"),
    ({"metadata": {"labels": {"drivetrain.dev/job": "x"}}}, "metadata.labels[drivetrain.dev/job]"),
    ({"metadata": {"annotations": {"drivetrain.dev/x": "x"}}}, "metadata.annotations[drivetrain.dev/x]"),
    ({"metadata": {"labels": "x"}}, "metadata.labels"),
    ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy"),
    ({"spec": {"containers": {}}}, "spec.containers"),
    ({"spec": {"containers": ["x"]}}, "spec.containers[0]"),
    ({"spec": {"volumes": [{"name": "drivetrain-script"}]}}, "spec.volumes[0]"),
    ({"spec": {"volumes": [{"name": "drivetrain-snapshots-secret"}]}}, "spec.volumes[0]"),
    ({"spec": {"volumes": [{"name": "drivetrain-storage"}]}}, "spec.volumes[0]"),
    (_worker(image="x"), "spec.containers[0].image"),
    (_worker(command=["x"]), "spec.containers[0].command"),
    (_worker(args=["x"]), "spec.containers[0].args"),
    (_worker(restartPolicy="Always"), "spec.containers[0].restartPolicy"),
    (_worker(env=[{"name": "DRIVETRAIN_INDEX", "value": "0"}]), "spec.containers[0].env[0]"),
    (_worker(volumeMounts=[{"mountPath": "/var/run/drivetrain/", "name": "x"}]), "spec.containers[0].volumeMounts[0]"),
    (
        _worker(volumeMounts=[{"mountPath": "/etc/drivetrain/script/a", "name": "x"}]),
        "spec.containers[0].volumeMounts[0]",
    ),
    (
        _worker(resources={"limits": {"nvidia.com/gpu": "1"}}),
        "spec.containers[0].resources.limits[nvidia.com/gpu]",
    ),
]


@pytest.mark.parametrize(("template", "path"), RESERVED, ids=[path for _, path in RESERVED])
def test_what_is_ours_cannot_be_touched(template: dict[str, Any], path: str) -> None:
    problem = template_problem(spec(podTemplate=template))
    assert problem is not None
    assert problem.startswith(f"spec.podTemplate.{path}: ")


@pytest.mark.parametrize(
    "template",
    [
        {},
        TEMPLATE,
        {"spec": {"restartPolicy": "Never"}},
        _worker(volumeMounts=[{"mountPath": "/var/run/x", "name": "x"}]),
    ],
)
def test_what_is_not_ours_can(template: dict[str, Any]) -> None:
    assert template_problem(spec(podTemplate=template)) is None


def test_every_child_is_owned_and_goes_with_the_job() -> None:
    view = a_job()
    children = [
        worker_pod(view, WORKER, PLATFORM),
        coordinator_pod(view, CreateCoordinator("c", 1, "x"), PLATFORM),
        coordinator_service(view, CreateService("s", 1)),
        secret(view, CreateSecret("x", SecretKind.WORKER, 0), {}),
    ]
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "drivetrain.dev/v1alpha1",
            "kind": "TrainingJob",
            "name": JOB,
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        assert child["metadata"]["namespace"] == "ns"
        assert child["metadata"]["labels"]["drivetrain.dev/job-uid"] == UID


def test_the_service_selects_the_coordinator_of_its_term_only() -> None:
    view = a_job()
    of_term = {
        t: coordinator_pod(view, CreateCoordinator(f"c-{t}", t, "x"), PLATFORM)["metadata"]["labels"] for t in (1, 2)
    }
    body = coordinator_service(view, CreateService("lm-coordinator-11111", 1))
    patch = service_patch(view, PatchService("lm-coordinator-11111", "s-uid", 2))

    def selects(selector: dict[str, str]) -> list[int]:
        return [t for t, labels in of_term.items() if selector.items() <= labels.items()]

    assert selects(body["spec"]["selector"]) == [1]
    assert selects(patch["spec"]["selector"]) == [2]
    assert patch["metadata"]["uid"] == "s-uid"
    assert service_view(body | {"metadata": body["metadata"] | {"uid": "u"}}).term == 1


def test_the_scale_selector_finds_workers_and_no_coordinator() -> None:
    view = a_job()
    wanted = dict(part.split("=") for part in names.worker_selector(UID).split(","))
    worker, leader = worker_pod(view, WORKER, PLATFORM), coordinator_pod(view, CreateCoordinator("c", 1, "x"), PLATFORM)
    assert wanted.items() <= worker["metadata"]["labels"].items()
    assert not wanted.items() <= leader["metadata"]["labels"].items()


def test_a_coordinator_stays_off_a_silent_node() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node1"]}]}

    def affinity(*, strictly: bool) -> Any:
        pod = coordinator_pod(a_job(), CreateCoordinator("c", 2, "x", "node1", strictly), PLATFORM)
        return pod["spec"]["affinity"]["nodeAffinity"]

    assert affinity(strictly=True) == {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    assert affinity(strictly=False) == {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]
    }
    assert "affinity" not in coordinator_pod(a_job(), CreateCoordinator("c", 2, "x"), PLATFORM)["spec"]


def test_a_dollar_sign_is_not_expanded_by_the_kubelet() -> None:
    pod = coordinator_pod(a_job(), CreateCoordinator("c", 1, "x"), Platform("i", "https://$(HOST):1"))
    assert env(pod)["DRIVETRAIN_REPORTS"] == "https://$$(HOST):1"


def test_a_coordinator_goes_where_its_workers_may_and_is_fitted_by_cluster_and_job() -> None:
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    worker = {"spec": {"tolerations": [toleration], "priorityClassName": "batch", "nodeSelector": {"gpu": "yes"}}}
    cluster = {"spec": {"nodeSelector": {"pool": "cpu"}, "securityContext": {"runAsUser": None, "fsGroup": None}}}
    own = {
        "metadata": {"annotations": {"note": "x"}},
        "spec": {"containers": [{"name": "coordinator", "resources": {"limits": {"memory": "1Gi"}}}]},
    }
    platform = replace(PLATFORM, coordinator_template=cluster)
    view = a_job(podTemplate=worker, coordinator={"podTemplate": own})
    pod = coordinator_pod(view, CreateCoordinator("c", 1, "x"), platform)
    oracle(pod, "V1Pod")
    assert toleration in pod["spec"]["tolerations"]
    assert pod["spec"]["priorityClassName"] == "batch"
    assert pod["spec"]["nodeSelector"] == {"pool": "cpu"}
    assert "runAsUser" not in pod["spec"]["securityContext"]
    assert pod["metadata"]["annotations"] == {"note": "x"}
    limits = container(pod, "coordinator")["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "1Gi"}
    assert container(pod, "coordinator")["command"] == ["drivetrain-coordinator"]


def test_a_job_outdoes_the_cluster_and_neither_touches_what_is_ours() -> None:
    cluster = {"spec": {"nodeSelector": {"pool": "cpu"}, "terminationGracePeriodSeconds": 60}}
    view = a_job(podTemplate={"spec": {"terminationGracePeriodSeconds": 90}})
    pod = worker_pod(view, WORKER, replace(PLATFORM, worker_template=cluster))
    assert (pod["spec"]["nodeSelector"], pod["spec"]["terminationGracePeriodSeconds"]) == ({"pool": "cpu"}, 90)
    for template, path in (
        ({"spec": {"containers": [{"name": "coordinator", "image": "x"}]}}, "spec.containers[0].image"),
        (
            {"spec": {"containers": [{"name": "coordinator", "env": [{"name": "DRIVETRAIN_TERM"}]}]}},
            "spec.containers[0]",
        ),
        ({"spec": {"hostNetwork": 1}}, "spec.hostNetwork"),
    ):
        problem = template_problem(spec(coordinator={"podTemplate": template}))
        assert problem is not None
        assert problem.startswith(f"spec.coordinator.podTemplate.{path}")
    with pytest.raises(InvalidTemplate, match=r"the operator's --worker-template.spec.restartPolicy"):
        worker_pod(view, WORKER, replace(PLATFORM, worker_template={"spec": {"restartPolicy": "Always"}}))


def test_a_silent_node_is_avoided_besides_what_a_template_says_of_nodes() -> None:
    wanted = {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["cpu"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [wanted]}}
    view = a_job(coordinator={"podTemplate": {"spec": {"affinity": {"nodeAffinity": required}}}})
    pod = coordinator_pod(view, CreateCoordinator("c", 2, "x", "node1", True), PLATFORM)
    oracle(pod, "V1Pod")
    (term,) = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == wanted["matchExpressions"]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["node1"]}]


LOGS = replace(PLATFORM, worker_env={"DRIVETRAIN_LOG_LEVEL": "info"}, coordinator_env={"DRIVETRAIN_LOG_LEVEL": "error"})
LEVEL = "DRIVETRAIN_LOG_LEVEL"


def logging_as(container: str, value: object) -> Json:
    return {"spec": {"containers": [{"name": container, "env": [{"name": LEVEL, "value": value}]}]}}


def test_pods_log_as_the_operator_was_told() -> None:
    assert env(worker_pod(a_job(), WORKER, LOGS))[LEVEL] == "info"
    assert env(coordinator_pod(a_job(), CreateCoordinator("c", 1, "x"), LOGS))[LEVEL] == "error"
    assert LEVEL not in env(worker_pod(a_job(), WORKER, PLATFORM))


def test_a_jobs_template_says_how_its_own_pods_log() -> None:
    of = a_job(
        podTemplate=logging_as("worker", "debug"), coordinator={"podTemplate": logging_as("coordinator", "debug")}
    )
    assert env(worker_pod(of, WORKER, LOGS))[LEVEL] == "debug"
    assert env(coordinator_pod(of, CreateCoordinator("c", 1, "x"), LOGS))[LEVEL] == "debug"


@pytest.mark.parametrize("value", ["verbose", "", None])
def test_a_level_that_does_not_exist_is_refused(value: object) -> None:
    """It would end each launcher at its start."""
    told = template_problem(a_job(podTemplate=logging_as("worker", value)).spec)  # type: ignore[arg-type]
    assert told is not None
    assert f"{LEVEL} must have a value of debug, info, warning, error" in told
