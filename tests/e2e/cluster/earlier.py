"""The release before this one: chart, CRD, operator and workers, from the history of this repository.

Where git does not have it (a shallow clone, an archive), this release stands for it, with a CRD that lacks a field:
that shows the upgrade of a CRD under jobs, and nothing of older programs.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster import images, project
from cluster.layout import Node
from cluster.load import load
from e2e.cluster.conftest import CHART

FIRST = "52188ea"
"""Stands for it until there is a tag: metrics had other names, and status lacked stateLosses."""
TAG = "earlier"


@dataclass(frozen=True)
class Earlier:
    """It, and under which tag its images are on the nodes; empty: those of this release."""

    what: str
    chart: Path
    tag: str = ""

    @property
    def worker_image(self) -> str:
        return f"drivetrain-worker:{self.tag}" if self.tag else "drivetrain-worker"


def crd_of(chart: Path) -> dict[str, Any]:
    """As a chart brings it."""
    found: dict[str, Any] = yaml.safe_load(_file(chart).read_text())
    return found


def bring(folder: Path, nodes: Sequence[Node]) -> Earlier:
    """Lay it out in `folder`, and bring its images to the nodes: seconds where its requirements are this checkout's."""
    commit = _git("describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^").decode().strip() or FIRST
    archive = _git("archive", "--format=tar", commit)
    if not archive:
        return _made(folder)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    for name, dockerfile in project.DOCKERFILES.items():
        place = folder / dockerfile.relative_to(project.CHECKOUT)
        tagged = f"{name.rpartition(':')[0]}:{TAG}"
        images.build(tagged, place, folder, {"PYTHON_IMAGE": images.python_base()})
        load(tagged, nodes)
    return Earlier(f"the release of {commit}", folder / "charts" / "drivetrain", TAG)


def _made(folder: Path) -> Earlier:
    """This one without a field, and the rules about it."""
    chart = folder / "charts" / "drivetrain"
    shutil.copytree(CHART, chart)
    crd = crd_of(chart)
    job = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = job["properties"]["spec"]
    del spec["properties"]["restoreFrom"]
    for part in (job, spec):
        part["x-kubernetes-validations"] = [
            each for each in part["x-kubernetes-validations"] if "restoreFrom" not in each["rule"]
        ]
    _file(chart).write_text(yaml.safe_dump(crd, sort_keys=False))
    return Earlier("this release with an older CRD (git has no earlier one)", chart)


def _file(chart: Path) -> Path:
    return chart / "files" / "drivetrain.dev_trainingjobs.yaml"


def _git(*words: str) -> bytes:
    """What it says; nothing where it fails."""
    done = subprocess.run(["git", *words], cwd=project.CHECKOUT, capture_output=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else b""
