"""What do manifests of other operators become, what is told of them, and which are refused?

Manifests are as their operators' own examples have them. Whatever is converted has passed the API's models and rules,
and its command is one that the launcher of a worker reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivetrain.launch.errors import CommandError
from drivetrain.torchrun import command as of_worker
from drivetrain_api.resolve import resolve, target_workers
from drivetrain_api.rules import violations
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_cli.convert.job import Asked
from drivetrain_cli.convert.sources import convert
from drivetrain_cli.main import main

Json = dict[str, Any]

PYTORCHJOB = """
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: mnist, namespace: team, labels: {owner: me}}
spec:
  runPolicy: {cleanPodPolicy: None, backoffLimit: 3, ttlSecondsAfterFinished: 600}
  pytorchReplicaSpecs:
    Master:
      replicas: 1
      restartPolicy: OnFailure
      template: &template
        metadata: {annotations: {sidecar.istio.io/inject: "false"}}
        spec:
          containers:
          - name: pytorch
            image: registry.example/mnist:1
            command: [torchrun, --nnodes=4, --nproc_per_node=2,
                      --rdzv_backend=c10d, --rdzv_endpoint=$(MASTER_ADDR):29400, train.py, --epochs, "3"]
            env: [{name: NCCL_DEBUG, value: INFO}, {name: MASTER_PORT, value: "29400"}]
            resources: {limits: {nvidia.com/gpu: 2, memory: 16Gi}}
            volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: mnist}}]
    Worker: {replicas: 3, restartPolicy: OnFailure, template: *template}
"""
TRAINJOB = """
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata: {name: tuned}
spec:
  runtimeRef: {name: torch-distributed}
  trainer:
    numNodes: 2
    image: mine:1
    command: [torchrun, train.py]
    env: [{name: A, value: b}]
    resourcesPerNode: {requests: {cpu: "3"}, limits: {cpu: "4"}}
"""
RUNTIME = """
apiVersion: trainer.kubeflow.org/v1alpha1
kind: ClusterTrainingRuntime
metadata: {name: ours}
spec:
  mlPolicy: {numNodes: 3, torch: {numProcPerNode: 2}}
  template:
    spec:
      replicatedJobs:
      - name: node
        template:
          metadata: {labels: {trainer.kubeflow.org/trainjob-ancestor-step: trainer}}
          spec:
            template:
              spec:
                nodeSelector: {pool: gpu}
                containers:
                - {name: node, image: "ours:1", command: [torchrun, /app/train.py], env: [{name: X, value: y}]}
---
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata: {name: of-ours}
spec:
  runtimeRef: {kind: ClusterTrainingRuntime, name: ours}
"""
INDEXED = """
apiVersion: batch/v1
kind: Job
metadata: {name: ddp}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      subdomain: ddp
      securityContext: {runAsUser: 0}
      containers:
      - name: main
        image: train:2
        command: [bash, -c]
        args:
        - |
          cd /workspace
          export LEVEL=high
          torchrun --nnodes=3 --nproc-per-node=1 --node-rank=$JOB_COMPLETION_INDEX --master-addr=ddp-0.ddp \\
            --master-port=29500 train.py --epochs 1
"""
PLAIN = """
apiVersion: batch/v1
kind: Job
metadata: {generateName: eval-}
spec:
  activeDeadlineSeconds: 60
  template:
    spec:
      restartPolicy: OnFailure
      containers: [{name: eval, image: eval, command: [python, eval.py]}]
"""
RAYJOB = """
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: rayed}
spec:
  entrypoint: python train.py --lr 1
  runtimeEnvYAML: |
    env_vars: {A: "1"}
    pip: [torchvision]
  rayClusterSpec:
    enableInTreeAutoscaling: true
    headGroupSpec: {rayStartParams: {}, template: {spec: {containers: [{name: head, image: ray}]}}}
    workerGroupSpecs:
    - replicas: 2
      minReplicas: 1
      maxReplicas: 4
      groupName: gpus
      rayStartParams: {num-gpus: "1"}
      template:
        spec:
          containers: [{name: ray-worker, image: "mine:3", command: [ulimit], resources: {limits: {cpu: 2}}}]
"""


def changed(text: str, **paths: Any) -> str:
    """A manifest with other values: `spec__suspend=True` sets spec.suspend; a number is a list's place."""
    *before, document = json.loads(json.dumps(list(yaml.safe_load_all(text))))  # without what YAML's anchors share
    for path, value in paths.items():
        *steps, last = path.split("__")
        node = document
        for step in steps:
            node = node[int(step)] if step.isdecimal() else node.setdefault(step, {})
        if value is None:
            node.pop(last)
        else:
            node[last] = value
    return yaml.safe_dump_all([*before, document])


def converted(text: str, asked: Asked | None = None) -> tuple[Json, str]:
    """The TrainingJob, and all that was told."""
    found = [each for each in convert(list(yaml.safe_load_all(text)), asked or Asked()) if each.is_job]
    assert len(found) == 1
    assert found[0].job is not None, found[0].notes.refused
    return found[0].job, "\n".join(f"{note.field}: {note.text}" for note in found[0].notes.told)


def refused(text: str, asked: Asked | None = None) -> str:
    """Why it was refused."""
    found = [each for each in convert(list(yaml.safe_load_all(text)), asked or Asked()) if each.is_job]
    assert [each.job for each in found] == [None]
    return "\n".join(f"{note.field}: {note.text}" for note in found[0].notes.refused)


def container(job: Json) -> Json:
    found: Json = job["spec"]["podTemplate"]["spec"]["containers"][0]
    return found


ACCEPTED = {
    "PyTorchJob": PYTORCHJOB,
    "TrainJob": TRAINJOB,
    "TrainJob with its runtime": RUNTIME,
    "Indexed Job": INDEXED,
    "Job": PLAIN,
    "elastic PyTorchJob": changed(
        PYTORCHJOB,
        spec__elasticPolicy={"minReplicas": 2, "maxReplicas": 6, "maxRestarts": 9, "rdzvBackend": "c10d"},
        spec__pytorchReplicaSpecs__Master=None,
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_converted_can_be_run(name: str) -> None:
    """By the models, the rules, and the part of the launcher that reads commands."""
    job, _ = converted(ACCEPTED[name])
    spec = TrainingJobSpec.model_validate(job["spec"])
    assert violations(job) == []
    program = of_worker.parse(spec.command or [], which=lambda _: None)
    low = spec.elastic.min_workers if spec.elastic else target_workers(spec)
    high = spec.elastic.max_workers if spec.elastic else target_workers(spec)
    of_worker.agree(program, resolve(spec).processes_per_worker, low, high)


def test_a_command_of_its_own_launcher_options_would_be_refused_there() -> None:
    """So the test above can fail."""
    with pytest.raises(CommandError):
        of_worker.parse(["torchrun", "--log-dir=x", "train.py"], which=lambda _: None)


def test_pytorchjob() -> None:
    job, told = converted(PYTORCHJOB)
    assert job["metadata"] == {"name": "mnist", "namespace": "team", "labels": {"owner": "me"}}
    spec = job["spec"]
    assert {key: spec[key] for key in ("image", "runtime", "workers", "gpusPerWorker")} == {
        "image": "registry.example/mnist:1",
        "runtime": "torchrun",
        "workers": 4,
        "gpusPerWorker": 2,
    }
    assert spec["command"] == ["torchrun", "train.py", "--epochs", "3"]
    assert "processesPerWorker" not in spec  # as many as it has GPUs is the default
    assert spec["recovery"] == {"maxRestarts": 3}
    assert spec["ttlSecondsAfterFinished"] == 600
    assert spec["podTemplate"]["metadata"] == {"annotations": {"sidecar.istio.io/inject": "false"}}
    assert spec["podTemplate"]["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "mnist"}
    assert container(job) == {
        "name": "worker",
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "resources": {"limits": {"memory": "16Gi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    for field in (
        "MASTER_PORT is left out",
        "--rdzv_backend, --rdzv_endpoint: left out",
        "securityContext",
        "cleanPodPolicy",
    ):
        assert field in told


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (ACCEPTED["elastic PyTorchJob"], {"workers": 3, "elastic": {"minWorkers": 2, "maxWorkers": 6},
                                          "recovery": {"maxRestarts": 9}}),
        (TRAINJOB, {"workers": 2, "image": "mine:1", "processesPerWorker": 3}),
        (RUNTIME, {"workers": 3, "image": "ours:1", "processesPerWorker": 2, "command": ["torchrun", "/app/train.py"]}),
        (INDEXED, {"workers": 3, "recovery": {"maxRestarts": 0}, "command": ["torchrun", "train.py", "--epochs", "1"]}),
        (PLAIN, {"workers": 1, "command": ["python", "eval.py"], "activeDeadlineSeconds": 60}),
        (changed(PLAIN, spec__suspend=True), {"suspend": True}),
    ],
)  # fmt: skip
def test_fields_of_spec(text: str, spec: Json) -> None:
    job, _ = converted(text)
    assert {key: job["spec"].get(key) for key in spec} == spec


def test_a_shell_line_becomes_folder_environment_and_command() -> None:
    job, _ = converted(INDEXED)
    worker = container(job)
    assert (worker["workingDir"], worker["env"]) == ("/workspace", [{"name": "LEVEL", "value": "high"}])
    assert job["spec"]["podTemplate"]["spec"]["securityContext"] == {"runAsUser": 0, "runAsNonRoot": False}


def test_patches_of_a_runtime_are_merged() -> None:
    patch = {
        "manager": "x",
        "trainingRuntimeSpec": {
            "template": {
                "spec": {
                    "replicatedJobs": [
                        {"name": "node", "template": {"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}}}
                    ]
                }
            }
        },
    }
    job, _ = converted(changed(RUNTIME, spec__runtimePatches=[patch]))
    pod = job["spec"]["podTemplate"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("sa", True)
    assert pod["nodeSelector"] == {"pool": "gpu"}


def test_each_container_that_is_one_process_stays_one() -> None:
    text = PYTORCHJOB.replace("command: [torchrun, --nnodes=4, --nproc_per_node=2,", "command: [python, train.py,")
    job, _ = converted(text)
    assert (job["spec"]["gpusPerWorker"], job["spec"]["processesPerWorker"]) == (2, 1)


def test_rayjob_without_ray() -> None:
    job, told = converted(RAYJOB, Asked(without_ray=True))
    spec = job["spec"]
    assert (spec["workers"], spec["elastic"], spec["gpusPerWorker"]) == (2, {"minWorkers": 1, "maxWorkers": 4}, 1)
    assert spec["command"] == ["python", "train.py", "--lr", "1"]
    assert container(job)["env"] == [{"name": "A", "value": "1"}]
    assert "runtimeEnvYAML.pip: left out" in told
    assert "headGroupSpec: left out" in told


CONTAINER = "spec__pytorchReplicaSpecs__{}__template__spec__containers__0__{}"


def of_both(key: str, value: Any) -> str:
    return changed(PYTORCHJOB, **{CONTAINER.format(kind, key): value for kind in ("Master", "Worker")})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            changed(PYTORCHJOB, **{CONTAINER.format("Master", "image"): "other"}),
            "containers[0].image: differs from that of",
        ),
        (of_both("command", None), "image's own ENTRYPOINT"),
        (of_both("command", ["deepspeed", "train.py"]), "the deepspeed launcher"),
        (of_both("command", ["sh", "-c", "pip install x && torchrun train.py"]), "'pip' runs before it"),
        (
            of_both("command", ["torchrun", "--nnodes=2", "train.py"]),
            "to run on 2 machines, but spec.pytorchReplicaSpecs says 4",
        ),
        (of_both("command", ["torchrun", "--no-such=2", "train.py"]), "option --no-such of torchrun"),
        (of_both("resources", {"limits": {"nvidia.com/gpu": 1, "amd.com/gpu": 1}}), "several kinds of accelerators"),
        (of_both("env", [{"name": "DRIVETRAIN_X", "value": "1"}]), "DRIVETRAIN_* is Drivetrain's own"),
        (changed(PYTORCHJOB, metadata__name="x" * 60), "give another with --name"),
        (changed(TRAINJOB, spec__runtimeRef__name="deepspeed-distributed"), "is in none of these files"),
        (changed(TRAINJOB, spec__initializer={"dataset": {"storageUri": "hf://a/b"}}), "downloads data or a model"),
        (changed(PLAIN, spec__parallelism=3, spec__completions=9), "a queue of independent pieces"),
        (changed(PLAIN, spec__parallelism=3), "know nothing of one another"),
        (changed(INDEXED, spec__backoffLimitPerIndex=1), "may fail or succeed alone"),
        (
            changed(INDEXED, spec__template__spec__containers__0__args=["python train.py $JOB_COMPLETION_INDEX"]),
            "uses the pod's completion index",
        ),
        (RAYJOB, "convert with --without-ray"),
        ("{apiVersion: kubeflow.org/v1, kind: MPIJob, metadata: {name: x}}", "MPIJob cannot be converted"),
        ("{apiVersion: batch/v1, kind: Job, metadata: {name: x}, spec: [1]}", "must be an object"),
        (
            "{apiVersion: batch/v1, kind: Job, metadata: {name: x}, spec: {template: {spec: {containers: 3}}}}",
            "must be a list",
        ),
    ],
)
def test_what_would_mean_something_else_is_refused(text: str, why: str) -> None:
    assert why in refused(text)


def test_what_is_refused_can_be_dropped_by_name() -> None:
    text = changed(TRAINJOB, spec__initializer={"dataset": {"storageUri": "hf://a/b"}})
    _, told = converted(text, Asked(drop=frozenset({"spec.initializer"})))
    assert "spec.initializer: left out, as --drop says" in told


@pytest.mark.parametrize("text", [PYTORCHJOB, TRAINJOB, INDEXED, RUNTIME])
def test_no_field_goes_without_a_word(text: str) -> None:
    """One that nobody has heard of, on every level of the manifest down to the pod."""
    for place in ("spec", "metadata"):
        _, told = converted(changed(text, **{f"{place}__unheardOf": {"a": 1}}))
        assert f"{place}.unheardOf: has no counterpart" in told


ODD: list[Any] = [None, "x", -1, [1], {"a": []}]


def paths(node: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in it."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*before, key)
        yield from paths(value, (*before, key))


@pytest.mark.parametrize("name", [*ACCEPTED, "RayJob"])
def test_nothing_in_a_manifest_is_a_traceback(name: str) -> None:
    """Each value of it replaced by what nobody expects there."""
    text = {**ACCEPTED, "RayJob": RAYJOB}[name]
    documents = json.loads(json.dumps(list(yaml.safe_load_all(text))))
    for path in paths(documents):
        for odd in ODD:
            changed_ = json.loads(json.dumps(documents))
            node = changed_
            for step in path[:-1]:
                node = node[step]
            node[path[-1]] = odd
            for each in convert(changed_, Asked(without_ray=True)):
                assert (each.job is None) == (bool(each.notes.refused) or not each.is_job)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, other = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "other.yaml"
    good.write_text(PYTORCHJOB + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n")
    bad.write_text(RAYJOB)
    other.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}")
    assert main(["convert", str(good)]) == 0
    said = capsys.readouterr()
    assert [each["kind"] for each in yaml.safe_load_all(said.out)] == ["TrainingJob"]
    assert "ConfigMap c: is no job" in said.err
    assert main(["convert", str(good), str(bad)]) == 1
    said = capsys.readouterr()
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(said.out)] == ["mnist"]
    assert "RayJob rayed: refused" in said.err
    assert main(["convert", str(other)]) == 2
    assert main(["convert", str(tmp_path / "none.yaml")]) == 2
    assert main(["convert", str(good), str(bad), "--name", "x"]) == 2


def test_scripts_in_commands_stay_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(
        changed(PLAIN, spec__template__spec__containers__0__command=["python", "-c", "import torch\nprint(1)\n"])
    )
    assert main(["convert", str(tmp_path / "job.yaml"), "--name", "x"]) == 0
    assert "  - |\n    import torch\n    print(1)\n" in capsys.readouterr().out


_LEVELS = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))
_MERGES = "\n".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 10))
MUCH: list[tuple[str, str, str]] = [
    ("aliases of aliases", f"l0: &l0 [x]\n{_LEVELS}", "its aliases stand for more than 100000 values"),
    ("merges of merges", f"m0: &m0 {{a: b}}\n{_MERGES}", "its aliases stand for more than 100000 values"),
    ("itself", "a: &a [*a]", "its aliases stand for more than 100000 values"),
    ("nested", "[" * 5000, "is nested too deep"),
]


@pytest.mark.parametrize(("name", "text", "told"), MUCH, ids=[name for name, _, _ in MUCH])
def test_a_text_that_stands_for_gigabytes_is_not_walked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, told: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert main(["convert", str(path)]) == 2
    assert capsys.readouterr().err == f"drivetrain: {path}: {told}\n"


def test_a_long_list_without_aliases_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(f"a: [{'1,' * 110_000}]")
    assert main(["convert", str(path)]) == 1
    assert "this is no Kubernetes object" in capsys.readouterr().err
