"""What job do the flags of `drivetrain run` describe, and which flag does an error name?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.rules import MAX_NAME
from drivetrain_api.training import Training
from drivetrain_cli import pack, run
from drivetrain_cli.errors import UsageError
from drivetrain_cli.main import make_parser
from drivetrain_cli.pack import sources
from drivetrain_cli.pack.flags import training_flags

Json = dict[str, Any]


def spec_of(folder: Path, *flags: str) -> Json:
    """spec of the job that these flags of `drivetrain run` describe."""
    script = folder / "train.py"
    if not script.exists():
        script.write_text("import torch\n")
    arguments = make_parser().parse_args(["run", "--name", "job", *flags[:-1], *([flags[-1]] if flags else [])])
    _, job = pack.objects(run.wished(arguments), "default")
    spec: Json = job["spec"]
    return spec


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        ([], ["workers"], 1),
        ([], ["image"], "drivetrain-worker"),
        ([], ["script"], {"configMap": "job-script", "key": "train.py"}),
        (["--workers", "3"], ["workers"], 3),
        (["--workers", "3", "--elastic", "2:4"], ["elastic"], {"minWorkers": 2, "maxWorkers": 4}),
        (["--image", "me/mine:1"], ["image"], "me/mine:1"),
        (["--gpus", "2"], ["gpusPerWorker"], 2),
        (["--processes-per-worker", "4"], ["processesPerWorker"], 4),
        (["--runtime", "torchrun"], ["runtime"], "torchrun"),
        (["--spares", "0"], ["recovery"], {"spares": 0}),
        (["--max-restarts", "2"], ["recovery"], {"maxRestarts": 2}),
        (["--steps", "7"], ["training"], {"steps": 7}),
        (["--seed", "5"], ["training"], {"seed": 5}),
        (["--batch", "48", "--microbatches", "2"], ["training", "batch"], {"global": 48, "microbatches": 2}),
        (["--clip-norm", "1.5"], ["training"], {"clipNorm": 1.5}),
        (["--deterministic"], ["training"], {"deterministic": True}),
        (["--zero", "2"], ["training", "parallel"], {"zero": 2}),
        (["--precision-compute", "bf16"], ["training", "precision"], {"compute": "bf16"}),
        (
            ["--optimizer", "lamb", "--optimizer-lr", "0.1", "--optimizer-betas", "0.9,0.99"],
            ["training", "optimizer"],
            {"name": "lamb", "lr": 0.1, "betas": [0.9, 0.99]},
        ),
        (["--storage", "claim:"], ["storage"], {"persistentVolumeClaim": "claim"}),
        (["--storage", "/mnt/shared"], ["storage"], {"path": "/mnt/shared"}),
        (["--snapshots", "s3://bucket/x"], ["snapshots"], {"storage": {"url": "s3://bucket/x"}}),
        (
            ["--snapshots", "claim:runs/1"],
            ["snapshots"],
            {"storage": {"persistentVolumeClaim": "claim", "path": "runs/1"}},
        ),
        (
            ["--secret", "token", "--secret", "keys:/etc/keys", "--volume", "data:/data:ro"],
            ["podTemplate", "spec"],
            {
                "containers": [
                    {
                        "name": "worker",
                        "volumeMounts": [
                            {"name": "claim-0", "mountPath": "/data", "readOnly": True},
                            {"name": "secret-0", "mountPath": "/etc/keys", "readOnly": True},
                        ],
                        "envFrom": [{"secretRef": {"name": "token"}}],
                    }
                ],
                "volumes": [
                    {"name": "claim-0", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
                    {"name": "secret-0", "secret": {"secretName": "keys"}},
                ],
            },
        ),
        (
            ["--cpus", "4", "--memory", "8Gi"],
            ["podTemplate", "spec", "containers", 0, "resources"],
            {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        ),
        (["--node-selector", "gpu=h100"], ["podTemplate", "spec"], {"nodeSelector": {"gpu": "h100"}}),
        (["--priority-class", "low"], ["podTemplate", "spec"], {"priorityClassName": "low"}),
        (["--service-account", "me"], ["podTemplate", "spec"], {"serviceAccountName": "me"}),
        (
            ["--env", "A=b=c"],
            ["podTemplate", "spec", "containers"],
            [{"name": "worker", "env": [{"name": "A", "value": "b=c"}]}],
        ),
    ],
)
def test_flags_become_fields(tmp_path: Path, flags: list[str], path: list[str | int], value: object) -> None:
    found: Any = spec_of(tmp_path, *flags, str(tmp_path / "train.py"))
    for step in path:
        found = found[step]
    assert found == value


def test_what_is_not_said_is_left_to_the_api(tmp_path: Path) -> None:
    assert set(spec_of(tmp_path, str(tmp_path / "train.py"))) == {"image", "workers", "script"}


def test_a_script_with_arguments_is_a_command_that_finds_its_file(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    arguments = make_parser().parse_args(
        ["run", "--name", "job", "--workers", "2", str(tmp_path / "train.py"), "--lr", "1"]
    )
    _, job = pack.objects(run.wished(arguments), "default")
    spec = job["spec"]
    assert "script" not in spec
    interpreter, path, *rest = spec["command"]
    assert (interpreter, rest) == ("python", ["--lr", "1"])
    pod = spec["podTemplate"]["spec"]
    assert path == f"{pod['containers'][0]['volumeMounts'][0]['mountPath']}/train.py"
    assert pod["volumes"][0]["configMap"]["name"] == "job-script"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--workers", "0"], "--workers"),
        (["--elastic", "5:2"], "--elastic"),
        (["--steps", "0"], "--steps"),
        (["--batch", "0"], "--batch"),
        (["--clip-norm", "-1"], "--clip-norm"),
        (["--spares", "99"], "--spares"),
        (["--gpus", "-1"], "--gpus"),
        (["--image", ""], "--image"),
        (["--env", "A"], "--env"),
        (["--name", "Not_A_Name"], "--name"),
        (["--env", "=x"], "--env"),
        (["--zero", "4"], "--zero"),
        (["--optimizer", "lamb"], "--optimizer-lr"),
        (["--pipeline-schedule", "gpipe"], "--pipeline-stages"),
        (["--secret", "keys:etc"], "--secret"),
        (["--volume", "data"], "--volume"),
        (["--volume", "data:/a:rx"], "--volume"),
        (["--volume", "data:/a", "--volume", "more:/a"], "--volume, --secret"),
        (["--memory", "8 GB"], "--memory"),
        (["--cpus", "four"], "--cpus"),
        (["--node-selector", "gpu"], "--node-selector"),
        (["--requirements", "nowhere.txt"], "--requirements"),
        (["--packages", "claim"], "--packages"),
        (["--snapshots", "ftp://x"], "--snapshots"),
        (["--storage", "ftp://x"], "--storage"),
        (["--storage", "relative"], "--storage"),
        (["--snapshots", "relative"], "--snapshots"),
    ],
)
def test_an_error_names_the_flag(tmp_path: Path, flags: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}: "):
        spec_of(tmp_path, *flags, str(tmp_path / "train.py"))


def test_modules_beside_the_script_travel_along_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os, torch\nfrom net import Net\n")
    (tmp_path / "net.py").write_text("import layers\n")
    (tmp_path / "layers.py").write_text("import train\n")
    (tmp_path / "other.py").write_text("")
    assert list(pack.read(tmp_path / "train.py").files) == ["train.py", "net.py", "layers.py"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("def f(:\n", r"train\.py:1: "), ("#" * (sources.MAX_BYTES + 1), "put it into --image")],
)
def test_a_script_that_cannot_work_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "train.py").write_text(text)
    with pytest.raises(UsageError, match=complaint):
        pack.read(tmp_path / "train.py")


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("train.py", "train-abcde"),
        ("My_Script 2.py", "my-script-2-abcde"),
        ("3d.py", "job-3d-abcde"),
        ("__.py", "job-abcde"),
        ("x" * 80 + ".py", "x" * (MAX_NAME - 6) + "-abcde"),
    ],
)
def test_names_come_from_scripts(script: str, name: str) -> None:
    assert pack.default_name(Path(script), "abcde") == name
    assert len(name) <= MAX_NAME


def test_every_field_of_training_has_a_flag_of_its_own() -> None:
    """And a schema's leaf is no leaf here only if it is one there."""
    flags = [each.flag for each in training_flags()]
    assert len(set(flags)) == len(flags)
    assert {each.path for each in training_flags()} == set(_leaves(Training.model_json_schema(by_alias=True)))


def _leaves(schema: Json) -> Iterator[str]:
    for name, part in schema["properties"].items():
        kinds = [part, *part.get("anyOf", []), *part.get("allOf", [])]
        inner = next((each["$ref"].rpartition("/")[2] for each in kinds if "$ref" in each), None)
        if inner is None:
            yield name
        else:
            definitions = schema["$defs"]
            yield from (f"{name}.{leaf}" for leaf in _leaves({**definitions[inner], "$defs": definitions}))


def test_an_environment_variable_without_a_value_is_that_of_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "x")
    spec = spec_of(tmp_path, "--env", "HERE", str(tmp_path / "train.py"))
    assert spec["podTemplate"]["spec"]["containers"][0]["env"] == [{"name": "HERE", "value": "x"}]
