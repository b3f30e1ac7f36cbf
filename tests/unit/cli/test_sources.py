"""Which files travel with a job, and where do its pods find them?"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drivetrain_cli import pack, run
from drivetrain_cli.errors import UsageError
from drivetrain_cli.main import make_parser

Json = dict[str, Any]

SHOW = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def written(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def job_of(*flags: str) -> tuple[Json, Json]:
    return pack.objects(run.wished(make_parser().parse_args(["run", "--name", "job", *flags])), "default")


def started(config_map: Json, job: Json, root: Path) -> str:
    """What the job's command prints, with its ConfigMap mounted as a kubelet does it."""
    spec = job["spec"]
    if "script" in spec:
        volume: Json = {"items": [{"key": key, "path": key} for key in config_map["data"]]}
        command = ["python", f"/mount/{spec['script']['key']}"]
        mount, path = "/mount", ""
    else:
        container = spec["podTemplate"]["spec"]["containers"][0]
        (volume,) = (each["configMap"] for each in spec["podTemplate"]["spec"]["volumes"])
        command, mount = spec["command"], container["volumeMounts"][0]["mountPath"]
        path = next((each["value"] for each in container.get("env", []) if each["name"] == "PYTHONPATH"), "")
    contents = {key: text.encode() for key, text in config_map["data"].items()}
    contents |= {key: base64.b64decode(text) for key, text in config_map.get("binaryData", {}).items()}
    for item in volume["items"]:
        place = root / item["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(contents[item["key"]])
    argv = [sys.executable, *(part.replace(mount, str(root)) for part in command[1:])]
    cwd = root.parent / "elsewhere"
    cwd.mkdir()
    environment = {"PYTHONPATH": path.replace(mount, str(root)), "PYTHONSAFEPATH": ""}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=cwd, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("files", "flags", "said"),
    [
        ({"train.py": SHOW}, ["train.py"], "[]"),
        ({"train.py": SHOW}, ["train.py", "--lr", "1"], '["--lr", "1"]'),
        ({"train.py": "from net import x\nprint(x)", "net/__init__.py": "x = 3"}, ["train.py"], "3"),
        (
            {
                "train.py": "from net.layers.dense import x\nprint(x)",
                "net/__init__.py": "",
                "net/layers/__init__.py": "",
                "net/layers/dense.py": "from ..sizes import x",
                "net/sizes.py": "import more\nx = more.x",
                "more.py": "x = 5",
            },
            ["train.py"],
            "5",
        ),
        ({"train.py": "import space.inner\nprint(space.inner.x)", "space/inner.py": "x = 7"}, ["train.py"], "7"),
        (
            {
                "train.py": "import net, pathlib\nprint((pathlib.Path(net.__file__).parent / 'w.txt').read_text())",
                "net/__init__.py": "",
                "net/w.txt": "weights",
            },
            ["train.py"],
            "weights",
        ),
        ({"app/__main__.py": SHOW, "app/other.py": ""}, ["app", "a"], '["a"]'),
        ({"app/__main__.py": "import other\nprint(other.x)", "app/other.py": "x = 2"}, ["app"], "2"),
        ({"app/train.py": SHOW, "app/__init__.py": ""}, ["-m", "app.train", "b"], '["b"]'),
        ({"app/__main__.py": "from app import x\nprint(x)", "app/__init__.py": "x = 4"}, ["-m", "app"], "4"),
        ({"solo.py": SHOW}, ["-m", "solo"], "[]"),
        (
            {
                "work/train.py": "print(open(__file__.replace('train.py', 'conf/a.yaml')).read())",
                "work/conf/a.yaml": "y",
            },
            ["--folder", "work", "train.py"],
            "y",
        ),
        ({"work/sub/train.py": SHOW}, ["--folder", "work", "work/sub/train.py", "c"], '["c"]'),
        ({"work/a.py": "", "work/sub--b.py": "print(1)", "work/sub/b.py": ""}, ["--folder", "work", "sub--b.py"], "1"),
    ],
)
def test_a_program_runs_in_a_pod_as_it_does_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], flags: list[str], said: str
) -> None:
    here = tmp_path / "here"
    written(here, files)
    monkeypatch.chdir(here)
    config_map, job = job_of(*flags)
    assert started(config_map, job, tmp_path / "pod") == said


def test_what_is_hidden_or_made_stays_here(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "train.py": "",
            ".git/x": "",
            "__pycache__/t.pyc": "",
            ".env": "SECRET=1",
            "venv/pyvenv.cfg": "",
            "venv/a": "",
        },
    )
    assert set(pack.read(Path("train.py"), tmp_path).files) == {"train.py"}


def test_a_link_that_leads_round_ends(tmp_path: Path) -> None:
    written(tmp_path, {"train.py": ""})
    (tmp_path / "again").symlink_to(tmp_path)
    assert set(pack.read(Path("train.py"), tmp_path).files) == {"train.py"}


def test_bytes_that_are_no_text_arrive(tmp_path: Path) -> None:
    written(tmp_path, {"train.py": ""})
    (tmp_path / "w.bin").write_bytes(bytes(range(256)))
    config_map, _ = job_of("--folder", str(tmp_path), "train.py")
    assert base64.b64decode(config_map["binaryData"]["w.bin"]) == bytes(range(256))


def test_a_folder_of_data_that_is_named_as_a_library_stays_here(tmp_path: Path) -> None:
    written(tmp_path, {"train.py": "import datasets, json.decoder", "datasets/a.csv": "", "json/x.txt": ""})
    assert set(pack.read(tmp_path / "train.py").files) == {"train.py"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nowhere.py"], "nowhere.py"),
        (["app"], "--folder app train.py"),
        (["-m", "app.nothing"], "-m: app.nothing"),
        (["-m", "../app"], "-m: "),
        (["--folder", "app", "other.py"], "--folder: there is no other.py in app"),
        (["--folder", "nothing", "train.py"], "--folder: nothing is no folder"),
        (["--folder", "big", "train.py"], "b.bin"),
        (["--folder", "odd", "train.py"], "a ConfigMap's key"),
    ],
)
def test_what_cannot_travel_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], said: str
) -> None:
    written(tmp_path, {"app/train.py": "", "big/train.py": "", "odd/train.py": "", "odd/a b.txt": ""})
    for name in ("a.bin", "b.bin"):
        (tmp_path / "big" / name).write_bytes(b"x" * 600_000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said.replace("(", "\\(")):
        job_of(*flags)
