"""The real cluster with Drivetrain on it, as `helm install` leaves it. Collected only by `pytest -m cluster`."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster import project
from cluster.down import down
from cluster.images import built
from cluster.kubectl import environment, kubectl
from cluster.layout import MARKER, Node, kubeconfig, run_dir
from cluster.load import load
from cluster.network import heal, is_cut
from cluster.state import running_nodes
from cluster.up import up
from e2e.cluster.job import Job
from e2e.cluster.ledgers import Collector
from harness import activity
from harness.commands import ran

activity.also(MARKER)  # daemons and pods are no children of pytest; a limit waits for them too
SYSTEM = "drivetrain-system"
CHART = Path(__file__).parents[3] / "charts" / "drivetrain"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Root, minutes and gigabytes are for those who ask for them."""
    return True if config.getoption("markexpr") != "cluster" else None


def helm(*arguments: str) -> str:
    """Run helm; an error carries what it said."""
    done = ran(["helm", *arguments], 120, environment())
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[Node]]:
    """Three nodes: those that are up, or ones of our own for this session."""
    if kubeconfig().exists():
        yield running_nodes()
        return
    try:
        yield up(3)
    finally:
        down()


@pytest.fixture(scope="session")
def installed(nodes: list[Node]) -> Iterator[str]:
    """Drivetrain in a namespace that enforces `restricted`; its name."""
    if not os.environ.get("DRIVETRAIN_E2E_IMAGES_LOADED"):
        for name in project.build_images():
            load(name, nodes)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    kubectl("label", "--overwrite", "namespace", SYSTEM, RESTRICTED)
    # The tag stays the same from build to build; so that a new image is rolled out, pods carry its digest.
    digest = hashlib.sha256(built(project.OPERATOR_IMAGE).manifest).hexdigest()[:16]
    try:
        helm(
            "upgrade", "--install", "drivetrain", str(CHART), "--namespace", SYSTEM, "--wait", "--timeout", "1h",
            "--set-string", f"podAnnotations.image={digest}",
        )  # fmt: skip
    except AssertionError as error:
        pods = kubectl("get", "pods", "--namespace", SYSTEM, "-o", "wide")
        said = kubectl("logs", "--namespace", SYSTEM, "--selector", "app.kubernetes.io/name=drivetrain", "--tail=10")
        pytest.fail(
            f"Drivetrain does not come up.\n{error}\n{pods}\nthe last lines of its pods:\n{said}", pytrace=False
        )
    yield SYSTEM
    helm("uninstall", "drivetrain", "--namespace", SYSTEM, "--wait")
    kubectl("get", "crd", "trainingjobs.drivetrain.dev")  # crds.keep: no job is deleted by an uninstall


@pytest.fixture
def namespace(installed: str) -> Iterator[str]:
    """An empty namespace that enforces `restricted` too."""
    name = f"e2e-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, RESTRICTED)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def start(namespace: str, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """`start(name, **spec)` applies a job and collects its ledger."""
    with ExitStack() as stack:

        def started(
            name: str,
            *,
            script: bool = True,
            pace: float = 0.1,
            save_every: int = 0,
            steps: int = 600,
            **spec: object,
        ) -> Job:
            folder = tmp_path / name
            folder.mkdir()
            job = Job(namespace, name, folder, steps)
            job.apply(spec, script=script, pace=pace, save_every=save_every)
            stack.enter_context(Collector(job.uid, folder))
            return job

        yield started


@pytest.fixture
def claim(namespace: str) -> Iterator[str]:
    """A folder of this machine that pods on all nodes can mount."""
    folder = run_dir() / f"shared-{namespace}"
    folder.mkdir()
    folder.chmod(0o777)
    name = f"shared-{namespace}"
    common: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder), "type": "Directory"}},
    }
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shared", "namespace": namespace},
        "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [volume, wanted]}))
    yield "shared"
    kubectl("delete", "persistentvolume", name, "--wait=false")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def healed(nodes: list[Node]) -> Iterator[None]:
    """Whatever was cut off is plugged in again."""
    yield
    for node in nodes:
        if is_cut(node):
            heal(node)
            kubectl("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=1h", timeout=60)
