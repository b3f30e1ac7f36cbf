"""How the runtime gets into images that were not made for Drivetrain, and what of it a template may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes.client as client
import pytest
import yaml

from drivetrain_api.constants import RUNTIME_IN_IMAGE, RUNTIME_MOUNT
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.resolve import brings_runtime
from drivetrain_cli.snapshots.pod import Task
from drivetrain_cli.snapshots.pod import pod as looks_at
from drivetrain_operator.plan.effects import CreateWorker
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Me, View
from drivetrain_operator.render import names
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.templates import template_problem
from unit.plan.builders import JOB, NOW, UID, job, spec, started

ROOT = Path(__file__).parents[3]
OURS = "registry/drivetrain-operator:1"
WORKER = CreateWorker(names.worker(JOB, names.suffix(UID), 2, 1), 2, 1, 3)
PLATFORM = Platform(OURS, "https://reports:7443", ("pull",), runtime_image=OURS)
NAMES = [
    # spec.image, spec.runtimeFrom, whether the runtime is brought
    ("pytorch/pytorch", "auto", True),
    ("drivetrain-worker", "auto", False),
    ("registry.example:5000/team/drivetrain-worker:0.1.0@sha256:00", "auto", False),
    ("registry/drivetrain-worker-mine", "auto", True),
    ("drivetrain-worker/mine", "auto", True),
    ("pytorch/pytorch", "image", False),
    ("drivetrain-worker", "operator", True),
]


@pytest.mark.parametrize(("image", "source", "brought"), NAMES)
def test_into_which_images_it_is_brought(image: str, source: str, brought: bool) -> None:
    of = spec(image=image, runtimeFrom=source)
    assert brings_runtime(of) is brought
    view = View(job(of), NOW, me=Me(runtime_image=OURS))
    resolved = plan(view).status.resolved
    assert resolved is not None
    assert resolved.runtime_image == (OURS if brought else None)
    # Without an image that has it (on the embedded plane), there is nothing to bring.
    resolved = plan(replace(view, me=Me())).status.resolved
    assert resolved is not None
    assert resolved.runtime_image is None


def brought(**fields: Any) -> Json:
    of = spec(**fields)
    status = started(of)
    assert status.resolved is not None
    resolved = status.resolved.model_copy(update={"runtime_image": OURS})
    return worker_pod(job(of, status.model_copy(update={"resolved": resolved})), WORKER, PLATFORM)


def test_an_init_container_brings_it() -> None:
    pod = brought(podTemplate={"spec": {"initContainers": [{"name": "fetch", "image": "curl"}]}})
    assert client.V1Pod.model_validate(pod)
    init, theirs = pod["spec"]["initContainers"]
    assert (init["name"], init["image"], theirs["name"]) == ("drivetrain-runtime", OURS, "fetch")
    assert init["command"] == ["cp", "-R", f"{RUNTIME_IN_IMAGE}/.", RUNTIME_MOUNT]
    assert init["resources"]["requests"] == init["resources"]["limits"], "a pod that is Guaranteed stays so"
    assert init["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    (worker,) = pod["spec"]["containers"]
    assert worker["command"] == ["sh", f"{RUNTIME_MOUNT}/launch", "--", "python", "train.py"]
    mount = {"name": "drivetrain-runtime", "mountPath": RUNTIME_MOUNT}
    assert mount in worker["volumeMounts"]
    assert init["volumeMounts"] == [mount]
    assert {"name": "drivetrain-runtime", "emptyDir": {}} in pod["spec"]["volumes"]
    assert {"name": "DRIVETRAIN_RUNTIME_FROM", "value": "auto"} in worker["env"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_a_ready_image_has_nothing_of_it() -> None:
    pod = worker_pod(job(of := spec(), started(of)), WORKER, PLATFORM)
    assert "initContainers" not in pod["spec"]
    assert "imagePullSecrets" not in pod["spec"]
    assert pod["spec"]["containers"][0]["command"][0] == "drivetrain-launcher"
    assert "drivetrain-runtime" not in str(pod)


def test_a_template_may_change_what_it_costs() -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    own = {"name": "drivetrain-runtime", "resources": resources, "imagePullPolicy": "Always"}
    (init,) = brought(podTemplate={"spec": {"initContainers": [own]}})["spec"]["initContainers"]
    assert (init["resources"], init["imagePullPolicy"], init["image"]) == (resources, "Always", OURS)


REFUSED: list[tuple[Json, str]] = [
    ({"initContainers": None}, "spec.initContainers"),
    ({"initContainers": [{"name": "drivetrain-runtime", "image": "x"}]}, "spec.initContainers[0].image"),
    ({"initContainers": [{"name": "drivetrain-runtime", "command": ["x"]}]}, "spec.initContainers[0].command"),
    (
        {"initContainers": [{"name": "drivetrain-runtime", "restartPolicy": "Always"}]},
        "initContainers[0].restartPolicy",
    ),
    ({"volumes": [{"name": "drivetrain-runtime", "emptyDir": {}}]}, "spec.volumes[0]"),
    (
        {"containers": [{"name": "worker", "volumeMounts": [{"name": "x", "mountPath": f"{RUNTIME_MOUNT}/last"}]}]},
        "volumeMounts[0]",
    ),
]


@pytest.mark.parametrize(("template", "path"), REFUSED)
def test_what_it_runs_is_ours(template: Json, path: str) -> None:
    problem = template_problem(spec(podTemplate={"spec": template}))
    assert problem is not None
    assert path in problem
    with pytest.raises(InvalidTemplate):
        brought(podTemplate={"spec": template})


def test_who_looks_at_snapshots_brings_it_too() -> None:
    worker = brought()
    of = {"metadata": {"name": JOB, "namespace": "ns", "uid": UID}, "apiVersion": "v", "kind": "k", "spec": {}}
    pod = looks_at(of, worker, Task("list", ("list",), "x"))
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["drivetrain-runtime"]
    (container,) = pod["spec"]["containers"]
    assert {"name": "PYTHONPATH", "value": f"{RUNTIME_MOUNT}/first"} in container["env"]
    assert container["command"][:4] == ["sh", f"{RUNTIME_MOUNT}/launch", "-m", "drivetrain.snapshot"]
    assert "drivetrain-runtime" in [each["name"] for each in pod["spec"]["volumes"]]


def test_the_images_have_what_pods_start() -> None:
    """What is named on one side is put there on the other."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"COPY worker-image/brought {RUNTIME_IN_IMAGE}\n" in dockerfile
    assert f" {RUNTIME_IN_IMAGE}/last" in dockerfile
    launch = (ROOT / "worker-image" / "brought" / "launch").read_text()
    assert f"exit {int(ExitCode.UNFIT)}\n" in launch
    assert f"UNFIT = {int(ExitCode.UNFIT)}\n" in (ROOT / "worker-image" / "brought" / "launch.py").read_text()
    flags = (ROOT / "charts" / "drivetrain" / "templates" / "_arguments.tpl").read_text()
    assert '(printf "--image=%s" $image) (printf "--runtime-image=%s" $image)' in flags
    crd = yaml.safe_load((ROOT / "crds" / "drivetrain.dev_trainingjobs.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert "drivetrain-worker" in schema["properties"]["spec"]["properties"]["runtimeFrom"]["description"]
