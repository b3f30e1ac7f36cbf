"""Does a real kubectl work against the server? The commands that our documents tell people to type."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from contract.kit import Obj, Server, pod, widget
from harness.patience import patiently

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="kubectl is not installed: see https://kubernetes.io/docs/tasks/tools/ (any version from 1.30 on)",
)
_SECONDS = 60


class Kubectl:
    """kubectl with the test's kubeconfig and namespace, and a cache of its own."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._directory = directory
        self._flags = [f"--namespace={server.namespace}", f"--cache-dir={directory / 'cache'}"]
        self._env = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "HOME": str(directory)}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl", *self._flags, *arguments, env=self._env, cwd=self._directory,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """Standard output and error of a command that must end with the given code."""
        process = await self.start(*arguments)
        try:
            async with patiently(_SECONDS):
                out, error = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        text = out.decode() + error.decode()
        assert process.returncode == code, f"kubectl {' '.join(arguments)}: {text}"
        return text

    def file(self, obj: Obj) -> str:
        """Write a manifest. Returns its name."""
        name = f"{obj['kind'].lower()}.yaml"
        (self._directory / name).write_text(yaml.safe_dump(obj))
        return name


@pytest.fixture
def kubectl(server: Server, tmp_path: Path) -> Kubectl:
    return Kubectl(server, tmp_path)


async def test_apply_get_scale_patch_wait_delete(server: Server, kubectl: Kubectl) -> None:
    manifest = kubectl.file(widget("one", workers=2))
    assert "created" in await kubectl("apply", "-f", manifest)
    assert "unchanged" in await kubectl("apply", "-f", manifest)
    manifest = kubectl.file(widget("one", workers=3, mode="fast"))
    assert "configured" in await kubectl("apply", "-f", manifest)
    rows = (await kubectl("get", "wd")).splitlines()
    assert rows[0].split() == ["NAME", "PHASE", "WORKERS", "AGE"]
    assert rows[1].split()[:2] == ["one", "3"]
    assert "MODE" in await kubectl("get", "wd", "-o", "wide")
    assert "scaled" in await kubectl("scale", "wd", "one", "--replicas=5")
    assert (await server.get("widgets", "one"))["spec"]["workers"] == 5
    assert "patched" in await kubectl("patch", "wd", "one", "--type=merge", "-p", '{"spec":{"mode":null}}')
    await kubectl("wait", "wd/one", "--for=jsonpath={.spec.workers}=5", "--timeout=20s")
    assert "deleted" in await kubectl("delete", "wd", "one")
    await server.get("widgets", "one", status=404)


async def test_apply_refuses_what_the_schema_does_not_know(kubectl: Kubectl) -> None:
    text = await kubectl("apply", "-f", kubectl.file(widget("one", typo=1)), code=1)
    assert 'unknown field "spec.typo"' in text
    text = await kubectl("apply", "-f", kubectl.file(widget("one", workers=0)), code=1)
    assert "spec.workers" in text
    assert "greater than or equal to 1" in text


async def test_explain_reads_the_schema(kubectl: Kubectl) -> None:
    text = await kubectl("explain", "wd.spec.workers")
    assert "workers" in text
    assert "<integer>" in text


async def test_describe_shows_events(server: Server, kubectl: Kubectl) -> None:
    made = await server.create("widgets", widget("one"))
    about = {"kind": "Widget", "apiVersion": made["apiVersion"], "name": "one", "namespace": server.namespace}
    about["uid"] = made["metadata"]["uid"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "one.1"},
        "involvedObject": about,
        "type": "Normal",
        "reason": "Tested",
        "message": "seen by describe",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "contract"},
    }
    await server.create("events", event)
    text = await kubectl("describe", "wd", "one")
    assert "seen by describe" in text
    assert "seen by describe" in await kubectl("get", "events")


async def test_watching_prints_changes(server: Server, kubectl: Kubectl) -> None:
    await server.create("widgets", widget("one"))
    process = await kubectl.start("get", "wd", "-w")
    assert process.stdout is not None
    try:
        async with patiently(_SECONDS):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[:2] == [b"one", b"1"]
            await server.patch("widgets", "one", {"status": {"phase": "Running"}}, "status")
            assert (await process.stdout.readline()).split()[:2] == [b"one", b"Running"]
    finally:
        process.kill()
        await process.communicate()


async def test_a_pod_from_apply_to_delete(server: Server, kubectl: Kubectl) -> None:
    script = "import time\nfor i in range(3): print('line', i, flush=True); time.sleep(0.2)\ntime.sleep(600)"
    given = pod("one", server.image, "python", "-c", script, terminationGracePeriodSeconds=1)
    assert "created" in await kubectl("apply", "-f", kubectl.file(given))
    await kubectl("wait", "pod/one", "--for=condition=Ready", "--timeout=50s")
    given["metadata"]["labels"] = {"late": "label"}
    assert "configured" in await kubectl("apply", "-f", kubectl.file(given))
    process = await kubectl.start("logs", "-f", "one")
    assert process.stdout is not None
    try:
        async with patiently(_SECONDS):
            lines = [await process.stdout.readline() for _ in range(3)]
    finally:
        process.kill()
        await process.communicate()
    assert lines == [b"line 0\n", b"line 1\n", b"line 2\n"]
    assert "Running" in await kubectl("get", "pods", "-l", "late=label")
    assert "worker" in await kubectl("describe", "pod", "one")
    assert json.loads(await kubectl("get", "pod", "one", "-o", "json"))["status"]["phase"] == "Running"
    assert "deleted" in await kubectl("delete", "pod", "one")
    await server.get("pods", "one", status=404)


async def test_a_dry_run_on_the_server_stores_nothing(server: Server, kubectl: Kubectl) -> None:
    text = await kubectl("apply", "--dry-run=server", "-f", kubectl.file(widget("one")))
    assert "server dry run" in text
    await server.get("widgets", "one", status=404)


async def test_what_exists_is_discovered(kubectl: Kubectl) -> None:
    text = await kubectl("api-resources")
    assert "widgets" in text
    assert "pods" in text
    assert await kubectl("auth", "can-i", "create", "pods") == "yes\n"
