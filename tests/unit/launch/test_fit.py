"""Whether an image fits that was not made for Drivetrain, and what it is told if it does not."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from drivetrain.launch import fit
from drivetrain.launch.brought import into
from drivetrain.launch.errors import UnfitError
from drivetrain.launch.fit import Found, check, look
from drivetrain.launch.settings import read_settings
from drivetrain.torchrun.choice import Choice
from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import (
    RuntimeSnapshots,
    RuntimeSpec,
    RuntimeStorage,
    RuntimeTensorBoard,
    RuntimeTracking,
    RuntimeTraining,
)
from harness import brought

PLAIN: Mapping[str, str | None] = {"torch": "2.15.0", "pydantic": None, "numpy": "2.4.0", "fsspec": "2026.9.0"}
ALL = {**PLAIN, "zstandard": "0.25.0", "google_crc32c": "1.9.0"}
SNAPSHOTS = RuntimeSpec(snapshots=RuntimeSnapshots(storage="/snapshots"))
S3 = RuntimeSpec(snapshots=RuntimeSnapshots(storage="s3://bucket/prefix"))
RESULTS = RuntimeSpec(storage=RuntimeStorage(folder="/results", url="webhdfs://namenode/folder"))
TRACKED = RuntimeSpec(
    training=RuntimeTraining(tracking=RuntimeTracking(tensorboard=RuntimeTensorBoard(folder="/runs")))
)
CASES = [
    # name, Python, packages, of the job, does the script call drivetrain.start(), what is told
    ("all is there", (3, 12, 1), PLAIN, RuntimeSpec(), True, None),
    ("the oldest Python", (3, 10, 0), PLAIN, RuntimeSpec(), True, None),
    ("Python too old", (3, 9, 18), PLAIN, RuntimeSpec(), False, "its Python 3.9.18 (/bin/python3) is too old, 3.10"),
    ("no torch", (3, 12, 1), {**PLAIN, "torch": None}, RuntimeSpec(), False, "has no torch"),
    ("old torch", (3, 12, 1), {**PLAIN, "torch": "2.6.0+cu124"}, RuntimeSpec(), True, "needs torch 2.11 to 2.15"),
    ("old torch, stock script", (3, 12, 1), {**PLAIN, "torch": "2.6.0+cu124"}, RuntimeSpec(), False, None),
    ("newer torch", (3, 12, 1), {**PLAIN, "torch": "2.99.0a0+git"}, RuntimeSpec(), True, None),
    ("torch that does not say", (3, 12, 1), {**PLAIN, "torch": ""}, RuntimeSpec(), True, None),
    ("old pydantic", (3, 12, 1), {**PLAIN, "pydantic": "1.10.21"}, RuntimeSpec(), False, "has pydantic 1.10.21, and 2"),
    ("pydantic", (3, 12, 1), {**PLAIN, "pydantic": "2.11.0"}, RuntimeSpec(), True, None),
    ("no numpy", (3, 12, 1), {**PLAIN, "numpy": None}, RuntimeSpec(), True, "has no numpy, which drivetrain.start()"),
    ("no numpy, stock script", (3, 12, 1), {**PLAIN, "numpy": None}, RuntimeSpec(), False, None),
    ("snapshots", (3, 12, 1), ALL, SNAPSHOTS, True, None),
    ("snapshots without", (3, 12, 1), PLAIN, SNAPSHOTS, True, "has no zstandard and no google-crc32c, which spec.snap"),
    ("results in a store", (3, 12, 1), ALL, RESULTS, False, "has no urllib3, which spec.storage needs"),
    ("results in a volume", (3, 12, 1), PLAIN, RuntimeSpec(storage=RuntimeStorage(folder="/results")), False, None),
    ("a tracker", (3, 12, 1), {**PLAIN, "tensorboard": "2.21.0"}, TRACKED, True, None),
    (
        "a tracker without",
        (3, 12, 1),
        PLAIN,
        TRACKED,
        True,
        "spec.training.tracking.tensorboard: its Python (/bin/python3)",
    ),
    ("a tracker without, stock script", (3, 12, 1), PLAIN, TRACKED, False, None),
    ("snapshots in a store", (3, 12, 1), ALL, S3, True, "has no minio and no urllib3, which spec.snapshots needs"),
]


@pytest.mark.parametrize(
    ("name", "python", "versions", "spec", "calls", "told"), CASES, ids=[each[0] for each in CASES]
)
def test_fits(
    name: str,
    python: tuple[int, ...],
    versions: Mapping[str, str | None],
    spec: RuntimeSpec,
    calls: bool,
    told: str | None,
) -> None:
    found = Found(python, "/bin/python3", versions)
    if told is None:
        check(found, spec, stock=not calls)
        return
    with pytest.raises(UnfitError) as caught:
        check(found, spec, stock=not calls)
    assert told in str(caught.value)
    assert str(caught.value).startswith("spec.image does not fit: ")
    assert caught.value.code == ExitCode.UNFIT


def test_a_job_without_its_trackers_package_starts_nothing(tmp_path: Path) -> None:
    """Also in an image that has the runtime. `-S`: a Python without any packages."""
    (tmp_path / "train.py").write_text("import drivetrain\ndrivetrain.start()\n")
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "drivetrain.launch.main", "--", sys.executable, "-S", str(tmp_path / "train.py")],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONSAFEPATH": "1",
            constants.ENV_COORDINATOR: "127.0.0.1:7070",
            constants.ENV_INDEX: "0",
            constants.ENV_JOB_UID: "j",
            constants.ENV_POD_UID: "p",
            constants.ENV_POD_NAME: "p",
            constants.ENV_CREDENTIALS: str(tmp_path),
            constants.ENV_SPEC: TRACKED.model_dump_json(),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == ExitCode.UNFIT, done.stderr
    (line,) = done.stderr.splitlines()
    assert "spec.training.tracking.tensorboard: its Python" in line
    assert "pip install tensorboard in the image, or name it in drivetrain run --requirements" in line


def test_an_interpreter_says_what_it_would_find(tmp_path: Path) -> None:
    """As ranks would find it: without importing it, and without the working folder's files."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('it was imported')")
    (tmp_path / "torch" / "version.py").write_text("from typing import Optional\n__version__ = '2.7.1+cu128'\n")
    (tmp_path / "pydantic.py").write_text("")
    found = look([sys.executable, "-u", "-S"], {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert found is not None
    assert found.python == sys.version_info[:3]
    assert (found.versions["torch"], found.versions["pydantic"], found.versions["numpy"]) == ("2.7.1+cu128", "", None)
    assert "with torch 2.7.1+cu128" in found.summary()


def test_ranks_find_what_was_brought_and_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the image's user is another than the pod's."""
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    shell = Choice(("sh", "run.sh"), {"OMP_NUM_THREADS": "1"})
    made = into(shell, RuntimeSpec(), {"PYTHONPATH": "/mine", "HOME": str(tmp_path / "not-there"), "PATH": "/bin"})
    assert made.command == shell.command
    first = str(Path(fit.__file__).parents[2])
    home = {"USER": "drivetrain", "HOME": tempfile.gettempdir()}
    assert made.environment == {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{first}:/mine", **home}
    assert into(shell, RuntimeSpec(), {"HOME": str(tmp_path), "USER": "me"}).environment == {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": first,
    }


@pytest.mark.parametrize("command", [["false"], ["true"], ["echo", "[]"], ["/no/such/python"]])
def test_one_that_does_not_say_refuses_nothing(command: list[str]) -> None:
    assert look(command, os.environ, 10.0) is None


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brought.runtime(tmp_path_factory.mktemp("pod"))


def programs(folder: Path, **pythons: str) -> str:
    """A PATH with these interpreters, which say that they have these versions, and with sh."""
    folder.mkdir()
    for name, version in pythons.items():
        (folder / name).write_text(f'#!/bin/sh\n[ "$3" = -c ] && echo {version} || echo "{name} $@"\n')
        (folder / name).chmod(0o755)
    return str(folder)


def started(launch: Path, path: str, *arguments: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        ["/bin/sh", str(launch), *arguments],
        env={"PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, (done.stdout + done.stderr).replace(str(launch.parent), "RUNTIME").strip()


INTERPRETERS = [
    # name, what the image has, the command, what happens
    ("python3", {"python3": "3.12"}, "python3", "python3 -I -S RUNTIME/launch.py -- python3"),
    ("only python", {"python": "3.10"}, "python3", "python -I -S RUNTIME/launch.py -- python3"),
    ("the job's own", {"python3": "3.12", "python": "3.11"}, "python", "python -I -S RUNTIME/launch.py -- python"),
    ("an old one before", {"python3": "3.8", "python": "3.11"}, "x", "python -I -S RUNTIME/launch.py -- x"),
    ("too old", {"python3": "3.9"}, "x", "no Python 3.10 or newer is on its PATH (it has python3 3.9)"),
    ("none", {}, "x", "no Python 3.10 or newer is on its PATH"),
    ("a launcher", {"python3": "3.12", "drivetrain-launcher": ""}, "x", "drivetrain-launcher -- x"),
    ("a script called like Python", {"python3": "3.12", "python_run": ""}, "python_run", "python3 -I -S"),
]


@pytest.mark.parametrize(("name", "has", "command", "told"), INTERPRETERS, ids=[each[0] for each in INTERPRETERS])
def test_which_interpreter_runs_the_launcher(
    name: str, has: dict[str, str], command: str, told: str, launch: Path, tmp_path: Path
) -> None:
    code, said = started(launch, programs(tmp_path / "bin", **has), "--", command)
    assert told in said
    assert code == (ExitCode.UNFIT if "does not fit" in said else 0)


def test_the_operators_launcher_is_used_where_the_job_says_so(launch: Path, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", **{"python3": "3.12", "drivetrain-launcher": ""})
    said = started(launch, path, "--", "x", DRIVETRAIN_RUNTIME_FROM="operator")
    assert said == (0, "python3 -I -S RUNTIME/launch.py -- x")


def test_python_with_our_packages(launch: Path, tmp_path: Path) -> None:
    """As whoever looks at a job's snapshots starts it."""
    path = programs(tmp_path / "bin", python3="3.12")
    Path(path, "python3").write_text('#!/bin/sh\n[ "$3" = -c ] && echo 3.12 || echo "$@ $PYTHONPATH"\n')
    assert started(launch, path, "-m", "x", PYTHONPATH="/y") == (0, "-m x RUNTIME/first:/y")


def test_a_python_for_which_there_is_no_build_is_told(launch: Path, tmp_path: Path) -> None:
    broken = tmp_path / "runtime"
    shutil.copytree(launch.parent, broken)
    for each in (broken / "last" / "pydantic_core").glob("*.so"):
        each.unlink()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    code, said = started(broken / "launch", str(tmp_path / "bin"), "--", "x")
    assert code == ExitCode.UNFIT
    assert "the operator's runtime has no build for Python" in said


@pytest.mark.parametrize(("given", "run"), [("python", sys.executable), ("python3", "python3")])
def test_an_image_without_python_has_a_python3(given: str, run: str, tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("")
    environment = {
        "PATH": str(tmp_path),
        constants.ENV_COORDINATOR: "127.0.0.1:7070",
        constants.ENV_INDEX: "0",
        constants.ENV_JOB_UID: "j",
        constants.ENV_POD_UID: "p",
        constants.ENV_POD_NAME: "p",
        constants.ENV_CREDENTIALS: str(tmp_path),
    }
    assert read_settings(["--", given, "train.py"], environment).command == (run, "train.py")
