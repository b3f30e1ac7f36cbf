"""Which pod looks at a job's snapshots, which job goes on from a step, and which flag does an error name?"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.rules import MAX_NAME
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.looker import LABEL_LOOKS_AT
from drivetrain_cli.main import main, make_parser
from drivetrain_cli.snapshots.branch import branch
from drivetrain_cli.snapshots.command import run
from drivetrain_cli.snapshots.pod import Task, pod

Json = dict[str, Any]
UID = "0123abcd-0000-4000-8000-000000000000"


def job(name: str = "lm", **spec: Any) -> Json:
    given = {
        "image": "mine:1",
        "command": ["python", "train.py"],
        "workers": 2,
        "training": {"steps": 100, "batch": {"global": 8}},
        "snapshots": {"storage": {"persistentVolumeClaim": "shared"}},
    }
    return {
        "apiVersion": "drivetrain.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "team", "uid": UID, "labels": {"app.kubernetes.io/managed-by": "x"}},
        "spec": {**given, **spec},
    }


def task(what: str = "list", to: str | None = None) -> Task:
    return Task(what, (what,), "abcde", to)


def worker(**container: Any) -> Json:
    """As the API server has it, with what admission has added."""
    mounts = [
        {"name": "drivetrain-credentials", "mountPath": "/etc/drivetrain/credentials"},
        {"name": "drivetrain-script", "mountPath": "/etc/drivetrain/script"},
        {"name": "kube-api-access-x", "mountPath": "/var/run/secrets"},
        {"name": "shared", "mountPath": "/mnt/shared"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    gpus = {"limits": {"nvidia.com/gpu": "8"}}
    return {
        "metadata": {"name": "lm-worker-0", "labels": {"drivetrain.dev/job-uid": UID}},
        "spec": {
            "nodeName": "node-7",
            "priority": 5,
            "serviceAccountName": "trainer",
            "tolerations": [{"key": "gpu"}],
            "affinity": {"podAntiAffinity": {}, "nodeAffinity": {"zone": "b"}},
            "initContainers": [{"name": "prepare"}],
            "containers": [
                {"name": "sidecar", "image": "other"},
                {
                    "name": "worker",
                    "image": "mine:1",
                    "command": ["drivetrain-launcher"],
                    "env": [{"name": ENV_SPEC, "value": "{}"}],
                    "resources": gpus,
                    "readinessProbe": {},
                    "volumeMounts": mounts,
                    **container,
                },
            ],
            "volumes": [{"name": mount["name"], "emptyDir": {}} for mount in mounts if mount["name"] != "shared"]
            + [{"name": "shared", "nfs": {"server": "nas"}}],
        },
    }


def test_a_pod_like_a_worker_is_none() -> None:
    made = pod(job(), worker(), task())
    assert made["metadata"]["labels"] == {LABEL_LOOKS_AT: UID}
    assert "controller" not in made["metadata"]["ownerReferences"][0]
    spec, (container,) = made["spec"], made["spec"]["containers"]
    assert spec["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] > 0
    assert (spec["serviceAccountName"], spec["tolerations"]) == ("trainer", [{"key": "gpu"}])
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [worker()["spec"]["nodeName"]]}]}
    rather = [{"weight": 100, "preference": here}]
    expected = {"zone": "b", "preferredDuringSchedulingIgnoredDuringExecution": rather}
    assert spec["affinity"] == {"nodeAffinity": expected}
    assert not {"nodeName", "priority", "initContainers"} & spec.keys()
    assert container["command"] == ["python", "-m", "drivetrain.snapshot", "list"]
    assert [each["name"] for each in container["volumeMounts"]] == ["shared", "tmp"]
    assert [each["name"] for each in spec["volumes"]] == ["tmp", "shared"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert "readinessProbe" not in container


def test_an_export_has_what_the_script_needs() -> None:
    (container,) = pod(job(), worker(), task("export", "/mnt/shared/x"))["spec"]["containers"]
    assert container["command"] == ["python", "-m", "drivetrain.snapshot", "export", "--", "python", "train.py"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    assert "drivetrain-script" in [each["name"] for each in container["volumeMounts"]]


def test_without_any_worker_it_is_made_of_the_spec() -> None:
    template = {"spec": {"serviceAccountName": "trainer"}}
    made = pod(job(podTemplate=template, runtimeFrom="image"), None, task())
    (container,) = made["spec"]["containers"]
    assert made["spec"]["serviceAccountName"] == "trainer"
    assert {"name": "drivetrain-snapshots", "persistentVolumeClaim": {"claimName": "shared"}} in made["spec"]["volumes"]
    (told,) = [each["value"] for each in container["env"] if each["name"] == ENV_SPEC]
    assert '"storage":"/var/lib/drivetrain/snapshots/drivetrain/team/lm-0123abcd"' in told
    with pytest.raises(CliError, match="no pod can be made"):
        pod(job(workers="many"), None, task())


def test_of_a_suspended_job_it_has_the_runtime_that_its_workers_had() -> None:
    resolved = {"resolved": {"nameSuffix": "1", "runtimeImage": "registry/drivetrain:1"}}
    bare = job(image="pytorch/pytorch", suspend=True)
    made = pod(bare | {"status": resolved}, None, task())["spec"]
    assert [each["image"] for each in made["initContainers"]] == ["registry/drivetrain:1"]
    assert made["containers"][0]["command"][:2] == ["sh", "/var/lib/drivetrain/runtime/launch"]
    with pytest.raises(CliError, match="brought into pytorch/pytorch when job lm runs: resume it first"):
        pod(bare, None, task())
    assert pod(bare, None, task(), embedded=True)["spec"]["containers"]  # where images mean nothing


def test_names_are_bounded() -> None:
    assert pod(job("a" * MAX_NAME), worker(), task())["metadata"]["name"] == "a" * 47 + "-snapshots-abcde"
    assert len(branch(job("a" * MAX_NAME), 99, None, "abcde")["metadata"]["name"]) <= MAX_NAME


@pytest.mark.parametrize(
    ("to", "embedded", "told"),
    [
        ("/tmp/x", True, "/tmp goes with the pod"),
        ("/mnt/x", False, "in no volume"),
        ("/mnt/x", True, None),
        ("/mnt/shared/x", False, None),
    ],
)
def test_what_would_go_with_the_pod_is_not_written(to: str, embedded: bool, told: str | None) -> None:
    if told is None:
        pod(job(), worker(), task("export", to), embedded=embedded)
        return
    with pytest.raises(UsageError, match=told):
        pod(job(), worker(), task("export", to), embedded=embedded)


def test_a_branch_is_the_same_job_from_a_step_on() -> None:
    source = job(suspend=True, restoreFrom={"job": "older"})
    made = branch(source, 40, "other", "abcde")
    assert made["spec"] == {**job()["spec"], "restoreFrom": {"job": "lm-0123abcd", "step": 40}}
    assert made["metadata"] == {"name": "other", "namespace": "team"}
    assert source["spec"]["suspend"] is True, "the other one stays as it is"
    assert branch(source, None, None, "abcde")["spec"]["restoreFrom"] == {"job": "lm-0123abcd"}
    with pytest.raises(UsageError, match="--as"):
        branch(source, 40, "lm", "abcde")
    with pytest.raises(UsageError, match="--step"):
        branch(source, 100, None, "abcde")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["prune"], "--keep"),
        (["prune", "--keep", "0"], "--keep"),
        (["list", "--keep", "2"], "--keep: list has no use for it"),
        (["export", "--to", "here.safetensors"], "--to"),
        (["restore", "--step", "-1"], "--step"),
    ],
)
def test_wrong_flags_are_named(flags: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run(make_parser().parse_args(["snapshots", "lm", *flags]))
    assert main(["snapshots", "lm", *flags]) == 2
