"""Are a job's requirements installed beside what its image has, once, and is it said if they cannot be?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack import install
from drivetrain_cli.pack.requirements import checked

PYTHON = [sys.executable, install.__file__]


def wheel(folder: Path, name: str, requires: str = "") -> None:
    """A package of one module that holds its name."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        packed.writestr(f"{name}.py", f"NAME = {name!r}\n")
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")


def written(folder: Path, *lines: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text("\n".join(["--no-index", f"--find-links {folder / 'wheels'}", *lines, ""]))
    return path


def start(requirements: Path, place: Path, *flags: str) -> subprocess.Popen[str]:
    place.mkdir(exist_ok=True)
    argv = [*PYTHON, str(requirements), str(place), *flags]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_missing_is_installed_with_what_it_needs_and_nothing_that_is_there(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "drivetrain_one", requires="drivetrain-two")
    wheel(tmp_path / "wheels", "drivetrain_two", requires="pyyaml")
    requirements = written(tmp_path, "drivetrain-one")
    process = start(requirements, tmp_path / "packages")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    current = tmp_path / "packages" / "current"
    assert {"drivetrain_one.py", "drivetrain_two.py"} <= set(os.listdir(current))
    assert "yaml" not in os.listdir(current)
    found = subprocess.run(
        [sys.executable, "-c", "import drivetrain_two, yaml; print(drivetrain_two.NAME)"],
        env={"PYTHONPATH": str(current)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "drivetrain_two"
    process = start(requirements, tmp_path / "packages")  # the pod's init containers run again
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 0


def test_two_pods_of_one_cache_install_once(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "drivetrain_one")
    requirements, cache = written(tmp_path, "drivetrain-one"), tmp_path / "cache"
    cache.mkdir()
    pods = [start(requirements, tmp_path / f"pod-{number}", "--cache", str(cache)) for number in range(2)]
    said = [pod.communicate(timeout=120) for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert sum("packages to install" in out for out, _ in said) == 1
    assert [each.suffix for each in cache.iterdir()] == [""]
    assert all((tmp_path / f"pod-{number}" / "current" / "drivetrain_one.py").exists() for number in range(2))


@pytest.mark.parametrize("ago", [2 * install.STALE_SECONDS, -(10**6)])
def test_a_pod_that_died_while_it_installed_holds_up_nobody(tmp_path: Path, ago: float) -> None:
    place, lock = tmp_path / "place", tmp_path / "lock"
    lock.touch()
    os.utime(lock, (time.time() - ago,) * 2)
    with install.locked(lock, place):
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_find_it_dead_one_does_not_take_the_others_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, rename = tmp_path / "lock", Path.rename
    lock.touch()
    os.utime(lock, (time.time() - 2 * install.STALE_SECONDS,) * 2)

    def after_another(path: Path, target: Path) -> Path:
        if path == lock:
            lock.unlink()
            lock.write_text("the other's")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another)
    assert not install.left(lock)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"lock": "the other's"}


def test_what_another_has_installed_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should two have the lock after all."""
    requirements, root = written(tmp_path, "x"), tmp_path / "cache"
    root.mkdir()

    def installed(_requirements: Path, _text: str, made: Path, _index: str | None) -> None:
        (made / "packages").mkdir()
        others = root / made.name.partition(".")[0]
        others.mkdir()
        (others / "x.py").touch()

    monkeypatch.setattr(install, "install", installed)
    assert os.listdir(install.provide(requirements, root, None)) == ["x.py"]


def test_what_pip_does_not_find_fails_in_its_words_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    process = start(written(tmp_path, "drivetrain-none"), tmp_path / "packages")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "drivetrain-none" in err
    assert (
        err.splitlines()[-1]
        == "requirements: pip ended with 1: ERROR: No matching distribution found for drivetrain-none"
    )
    assert os.listdir(tmp_path / "packages") == []


@pytest.mark.parametrize(
    "line", ["-r other.txt", "-c limits.txt", "-e .", "./mine", "file:///x.whl", "mine @ file:///x", "-f ./wheels"]
)
def test_files_of_this_machine_are_refused_by_their_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"^--requirements: r.txt:2: "):
        checked(f"numpy\n{line}\n", "r.txt")


@pytest.mark.parametrize("line", ["numpy>=1", "einops==0.8 --hash=sha256:00", "-i https://index/simple", "a[b]; x"])
def test_others_pass(line: str) -> None:
    assert checked(line, "r.txt") == line
