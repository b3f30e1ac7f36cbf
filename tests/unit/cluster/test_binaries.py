"""The wrapper modules: one release of Kubernetes in all its parts, and a cache that is never stale."""

import re
import shutil
from pathlib import Path

import pytest

from cluster import binaries
from cluster.errors import ClusterError


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
