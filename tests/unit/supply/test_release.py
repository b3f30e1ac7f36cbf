"""A release, rehearsed: what it makes, refuses, and would push. docker, cosign and the registry are not real."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from harness.helm import container, program, rendered

ROOT: Final = Path(__file__).parents[3]
BASE: Final = f"python:3.11-slim-bookworm@sha256:{'b' * 64}"
DIGEST: Final = f"sha256:{'c' * 64}"
VERSION: Final = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a release is made of, committed, tagged, and with a section in the changelog."""
    copy = tmp_path / "checkout"
    for name in ("charts", "crds", "requirements", "scripts"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "docker-bake.hcl"):
        shutil.copy(ROOT / name, copy)
    text = f"# Changelog\n\n## Unreleased\n\n## {VERSION} - today\n### Fixed\n- It was\n  wrong.\n\n## 0.0.1\n- Old.\n"
    (copy / "CHANGELOG.md").write_text(text)
    git(copy, "init", "--quiet")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "All")
    git(copy, "tag", f"v{VERSION}")
    return copy


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """docker and cosign that write down what they are asked, and helm, which does all but push."""
    folder = tmp_path / "bin"
    folder.mkdir()
    pushed = json.dumps({image: {"containerimage.digest": DIGEST} for image in ("operator", "worker")})
    log = f'echo "$(basename "$0") $*" >> {tmp_path}/log\n'
    for name, script in (
        ("docker", f'{log}env | grep -E "^(REGISTRY|VERSION|PYTHON_IMAGE)=" | sort >> {tmp_path}/log\n'
                   f"for last; do :; done\necho '{pushed}' > \"$last\"\n"),
        ("cosign", log),
        ("helm", f'if [ "$1" = push ]; then {log}else exec {program()} "$@"; fi\n'),
    ):  # fmt: skip
        (folder / name).write_text(f"#!/bin/sh\n{script}")
        (folder / name).chmod(0o755)
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = (
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    )
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def release(folder: Path, tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "scripts" / "release", "--registry", "registry.example.com/d/", *arguments],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_pushes_images_then_the_chart_that_names_them(checkout: Path, tools: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = release(checkout, tools, "--base", BASE, "--out", str(out))
    assert done.returncode == 0, done.stderr
    registry = "registry.example.com/d"
    assert (tmp_path / "log").read_text().splitlines() == [
        f"docker buildx bake --file docker-bake.hcl --push --metadata-file {out}/images.json",
        f"PYTHON_IMAGE={BASE}",
        f"REGISTRY={registry}",
        f"VERSION={VERSION}",
        f"helm push {out}/drivetrain-{VERSION}.tgz oci://{registry}/charts",
        f"cosign sign --yes {registry}/drivetrain-operator@{DIGEST}",
        f"cosign sign --yes {registry}/drivetrain-worker@{DIGEST}",
        f"cosign sign-blob --yes --bundle {out}/SHA256SUMS.sigstore.json {out}/SHA256SUMS",
    ]
    package = out / f"drivetrain-{VERSION}.tgz"
    assert container(rendered(chart=package))["image"] == f"{registry}/drivetrain-operator@{DIGEST}"
    said = _annotations(package)
    assert yaml.safe_load(said["artifacthub.io/changes"]) == [{"kind": "fixed", "description": "It was wrong."}]
    assert [each["image"] for each in yaml.safe_load(said["artifacthub.io/images"])] == [
        f"{registry}/drivetrain-operator@{DIGEST}"
    ]
    assert (out / "notes.md").read_text() == "### Fixed\n- It was\n  wrong.\n"


def test_a_dry_run_makes_everything_and_pushes_nothing(tools: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = release(ROOT, tools, "--dry-run", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "log").exists()
    assert "would be refused: --base '' has no digest" in done.stderr
    assert "would run: helm push" in done.stdout
    made = {each.name for each in out.iterdir()}
    crds = {each.name for each in (ROOT / "crds").glob("*.yaml")}
    packages = {
        f"drivetrain-{VERSION}.tgz",
        *(f"drivetrain-{image}-{VERSION}.cdx.json" for image in ("operator", "worker")),
    }
    assert made == {*crds, *packages, "notes.md", "SHA256SUMS"}
    sums = {
        name: digest
        for digest, _, name in (line.partition("  ") for line in (out / "SHA256SUMS").read_text().splitlines())
    }
    assert sums == {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in made - {"SHA256SUMS"}}


@pytest.mark.parametrize(
    ("change", "base", "said"),
    [
        (None, "python:3.11-slim-bookworm", "has no digest"),
        ("pyproject.toml", BASE, "files are changed that are not committed"),
        ("CHANGELOG.md", BASE, f"CHANGELOG.md has no section `## {VERSION}`"),
        ("charts/drivetrain/Chart.yaml", BASE, "Chart.yaml has"),
        ("tag", BASE, f"HEAD has no tag v{VERSION}"),
    ],
)
def test_what_nobody_should_release_with(
    change: str | None, base: str, said: str, checkout: Path, tools: Path, tmp_path: Path
) -> None:
    if change == "tag":
        git(checkout, "tag", "--delete", f"v{VERSION}")
    elif change:
        file = checkout / change
        file.write_text(file.read_text().replace(VERSION, "9.9.9") + "\n")
    done = release(checkout, tools, "--base", base, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert f"release: refused: {said}" in done.stderr or said in done.stderr
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image", ["operator", "worker"])
def test_a_bill_of_materials_has_every_pin_of_the_image(image: str) -> None:
    dockerfile = (ROOT / ("Dockerfile" if image == "operator" else "worker-image/Dockerfile")).read_text()
    files = set(re.findall(r"requirements/(\w+\.txt)", dockerfile))
    pins = {
        f"pkg:pypi/{name}@{version}"
        for file in files
        for name, version in re.findall(
            r"^([a-z0-9][-\w.]*)==([^ ;\\]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE
        )
    }
    bom = _bom(image)
    listed = [each["purl"] for each in bom["components"]]
    assert sorted(listed) == sorted({*pins, f"pkg:pypi/drivetrain@{VERSION}"}), "each once"
    reached, waiting = set(), {bom["metadata"]["component"]["bom-ref"]}
    edges = {each["ref"]: each["dependsOn"] for each in bom["dependencies"]}
    while waiting:
        reached.add(ref := waiting.pop())
        waiting |= set(edges.get(ref, ())) - reached
    assert set(listed) <= reached, "nothing is in it that nobody wants"
    assert bom == _bom(image), "the same, whenever it is made"


def _bom(image: str) -> Any:
    return json.loads(subprocess.check_output([sys.executable, ROOT / "scripts" / "sbom", image]))


def _annotations(package: Path) -> dict[str, str]:
    with tarfile.open(package) as archive:
        names = archive.getnames()
        assert "drivetrain/README.md" in names
        assert "drivetrain/README.md.in" not in names
        file = archive.extractfile("drivetrain/Chart.yaml")
        assert file is not None
        found: dict[str, str] = yaml.safe_load(file.read())["annotations"]
        return found
