"""Would krew take the plugin? By the rules of its own validation, on what scripts/krew makes."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
URI = "https://downloads.example/drivetrain.tar.gz"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("krew")
    argv = [sys.executable, str(ROOT / "scripts" / "krew"), "--uri", URI, "--out", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def manifest(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((made / "drivetrain.yaml").read_text())
    return found


def test_manifest(made: Path, manifest: dict[str, Any]) -> None:
    assert (manifest["apiVersion"], manifest["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    assert re.fullmatch(r"[\w-]+", manifest["metadata"]["name"])
    spec = manifest["spec"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", spec["version"])
    assert 0 < len(spec["shortDescription"]) <= 50
    assert not spec["shortDescription"].endswith(".")
    (platform,) = spec["platforms"]
    assert platform["selector"]["matchExpressions"] == [{"key": "os", "operator": "In", "values": ["linux"]}]
    assert platform["uri"] == URI
    assert platform["sha256"] == hashlib.sha256((made / "drivetrain.tar.gz").read_bytes()).hexdigest()
    assert platform["bin"] == "kubectl-drivetrain"


def test_it_is_the_same_archive_each_time(made: Path, tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "scripts" / "krew"), "--uri", URI, "--out", str(tmp_path)]
    assert subprocess.run(argv, capture_output=True, timeout=110, check=False).returncode == 0
    assert (tmp_path / "drivetrain.tar.gz").read_bytes() == (made / "drivetrain.tar.gz").read_bytes()


def test_archive_has_what_the_program_needs(made: Path, manifest: dict[str, Any]) -> None:
    with tarfile.open(made / "drivetrain.tar.gz") as tar:
        entries = {entry.name: entry for entry in tar.getmembers()}
        tar.extractall(made / "out", filter="data")
    version = manifest["spec"]["version"].removeprefix("v")
    assert sorted(entries) == ["LICENSE", f"drivetrain-{version}-py3-none-any.whl", "kubectl-drivetrain"]
    assert os.access(made / "out" / "kubectl-drivetrain", os.X_OK)
    assert subprocess.run(["sh", "-n", str(made / "out" / "kubectl-drivetrain")], check=False).returncode == 0


def test_the_program_runs_from_the_environment_that_it_made(made: Path, tmp_path: Path) -> None:
    """Found through krew's link to it. Its environment stands for one that pip has made: there is no network here."""
    with tarfile.open(made / "drivetrain.tar.gz") as tar:
        tar.extractall(tmp_path / "store", filter="data")
    wheel = next((tmp_path / "store").glob("*.whl"))
    key = subprocess.run(["cksum", str(wheel)], capture_output=True, text=True, check=True).stdout.split()[0]
    venv = tmp_path / "cache" / f"kubectl-{key}"
    (venv / "bin").mkdir(parents=True)
    (venv / ".complete").touch()
    program = venv / "bin" / "kubectl-drivetrain"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 4\n')
    program.chmod(0o755)
    (tmp_path / "kubectl-drivetrain").symlink_to(tmp_path / "store" / "kubectl-drivetrain")
    environment = {**os.environ, "DRIVETRAIN_CACHE": str(tmp_path / "cache")}
    argv = [str(tmp_path / "kubectl-drivetrain"), "status", "a job"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (4, "status|a job|")


def test_without_python_it_says_what_is_missing(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made / "drivetrain.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    environment = {**os.environ, "DRIVETRAIN_CACHE": str(tmp_path / "cache"), "DRIVETRAIN_PYTHON": "python0"}
    argv = [str(tmp_path / "kubectl-drivetrain"), "version"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 69
    assert "no Python 3.11 or newer among 'python0'" in done.stderr
