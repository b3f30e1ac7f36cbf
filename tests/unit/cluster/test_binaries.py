"""The wrapper modules: one release of Kubernetes in all its parts, and a cache that is never stale."""

import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from cluster import binaries
from cluster.errors import ClusterError
from harness.patience import until


@pytest.fixture
def wrappers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the wrapper modules that a test may change."""
    copy = tmp_path / "go"
    shutil.copytree(binaries.WRAPPERS, copy)
    monkeypatch.setattr(binaries, "WRAPPERS", copy)
    return copy


def test_every_wrapper_is_built_and_every_program_has_one() -> None:
    assert {each.wrapper for each in binaries.BINARIES} == {
        file.parent.name for file in binaries.WRAPPERS.glob("*/go.mod")
    }


def test_staging_modules_are_of_the_same_release_as_kubernetes() -> None:
    text = (binaries.WRAPPERS / "kubernetes" / "go.mod").read_text()
    replaced = re.findall(r"^\s(k8s\.io/\S+) => (\S+) (v\S+)$", text, re.MULTILINE)
    assert len(replaced) > 30
    release = binaries.kubernetes_version().replace("v1.", "v0.", 1)
    assert {(name == target, version) for name, target, version in replaced} == {(True, release)}


@pytest.mark.parametrize("file", ["kubernetes/go.mod", "helm/go.sum", "coredns/main.go"])
def test_any_change_of_a_wrapper_is_another_cache(wrappers: Path, file: str) -> None:
    before = binaries.bin_dir()
    with (wrappers / file).open("a") as changed:
        changed.write("\n")
    assert binaries.bin_dir() != before


def test_programs_carry_the_version_that_the_wrapper_names(wrappers: Path) -> None:
    module = wrappers / "kubernetes" / "go.mod"
    module.write_text(module.read_text().replace(binaries.kubernetes_version(), "v1.40.2"))
    kubelet = next(each for each in binaries.BINARIES if each.name == "kubelet")
    for part in ("gitVersion=v1.40.2", "gitMajor=1", "gitMinor=40"):
        assert f"k8s.io/component-base/version.{part}" in binaries.stamp(kubelet)


def test_a_program_that_is_not_built_says_how(wrappers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRIVETRAIN_CACHE", str(tmp_path))
    with pytest.raises(ClusterError, match="python -m cluster build"):
        binaries.binary("kubelet")


GO = """#!/bin/sh
# Takes its time over etcd.
while [ "$1" != -o ]; do shift; done
echo "$2" >>"$BUILT"
case $2 in *etcd) while [ ! -e "$BUILT.go-on" ]; do sleep 0.01; done ;; esac
: >"$2"
"""


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a `go` that notes in this file what it builds."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "go").write_text(GO)
    (tmp_path / "bin" / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("DRIVETRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BUILT", str(tmp_path / "built"))
    return tmp_path / "built"


def test_whoever_needs_one_program_waits_for_no_other_that_is_being_built(built: Path) -> None:
    """CI builds all of them beside the tests, which want helm."""
    meanwhile = [threading.Thread(target=binaries.build, args=("etcd", "helm")) for _ in range(2)]
    for each in meanwhile:
        each.start()
    until(built.exists, "etcd is being built", 20)
    binaries.build("helm")
    assert [Path(line).name for line in built.read_text().split()] == [".etcd", ".helm"]
    built.with_suffix(".go-on").touch()
    for each in meanwhile:
        each.join()
    assert {each.name for each in binaries.bin_dir().iterdir()} == {"etcd", "helm"}
    assert len(built.read_text().split()) == 2, "each once"


def test_a_program_that_there_is_not_is_refused() -> None:
    with pytest.raises(ClusterError, match="there is no program 'hlem': pause, etcd"):
        binaries.build("hlem")
