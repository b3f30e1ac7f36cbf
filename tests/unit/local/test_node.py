"""What does a node do on its bad days? Strays, a crashed agent, lost power, a frozen machine, a refusing server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from drivetrain_local.apiserver import Fault
from drivetrain_local.cluster import LocalCluster
from drivetrain_local.node import strays
from harness.patience import patiently

Obj = dict[str, Any]
_PODS = "/api/v1/namespaces/default/pods"
_SLEEP = "import time; print('up', flush=True); time.sleep(600)"
_WAIT_SECONDS = 30


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path / "plane", nodes=2, heartbeat_seconds=0.2, node_grace_seconds=1.0) as plane:
        yield plane
    assert strays.pids(strays.mark(tmp_path / "plane" / "nodes").rstrip("|")) == []


async def _start(cluster: LocalCluster, name: str, script: str = _SLEEP, **spec: Any) -> Obj:
    container = {"name": "worker", "image": "drivetrain-worker", "command": ["python", "-c", script]}
    base = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    return await cluster.client.post(_PODS, {"metadata": {"name": name}, "spec": base | spec})


async def _until(cluster: LocalCluster, name: str, reached: Callable[[Obj], bool], plural: str = "pods") -> Obj:
    changed = asyncio.Event()
    stop = cluster.api.store.subscribe(plural, lambda change: changed.set())
    namespace = "" if plural == "nodes" else "default"
    try:
        async with patiently(_WAIT_SECONDS):
            while True:
                changed.clear()
                found = cluster.api.store.get(plural, namespace, name)
                if found is not None and reached(found):
                    return found
                await changed.wait()
    finally:
        stop()


def _phase(*wanted: str) -> Callable[[Obj], bool]:
    return lambda pod: pod["status"].get("phase") in wanted


def _ready_status(node: Obj) -> str:
    return str(next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def _process_of(cluster: LocalCluster, pod: Obj) -> int:
    (pid,) = cluster.agents[pod["spec"]["nodeName"]].pids(pod["metadata"]["uid"])
    return pid


async def test_what_a_container_leaves_behind_dies_with_it(cluster: LocalCluster) -> None:
    """A child in a session of its own, twice forked: out of reach of any process group."""
    script = (
        "import os,subprocess,sys,time\n"
        "subprocess.Popen([sys.executable, '-c', 'import os,time; os.fork() and os._exit(0); time.sleep(600)'],"
        " start_new_session=True).wait()\n"
        "sys.exit(5)"
    )
    await _start(cluster, "a", script)
    done = await _until(cluster, "a", _phase("Failed"))
    assert done["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
    assert cluster.agents[done["spec"]["nodeName"]].pids() == []


async def test_a_killed_process_is_told_at_once(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    running = await _until(cluster, "a", _phase("Running"))
    os.kill(await _process_of(cluster, running), signal.SIGKILL)
    done = await _until(cluster, "a", _phase("Failed"))
    assert done["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


async def test_pods_spread_and_have_their_own_addresses(cluster: LocalCluster) -> None:
    for name in ("a", "b", "c", "d"):
        await _start(cluster, name)
    pods = [await _until(cluster, name, _phase("Running")) for name in ("a", "b", "c", "d")]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node-0", "node-0", "node-1", "node-1"]
    assert len({pod["status"]["podIP"] for pod in pods}) == 4


async def test_an_agent_that_comes_back_ends_what_it_cannot_await(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    running = await _until(cluster, "a", _phase("Running"))
    name = running["spec"]["nodeName"]
    await cluster.restart_node(name)
    done = await _until(cluster, "a", _phase("Failed"))
    ended = done["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")
    assert cluster.agents[name].pids() == []
    await _start(cluster, "b", nodeSelector={"kubernetes.io/hostname": name})
    await _until(cluster, "b", _phase("Running"))


async def test_lost_power_is_noticed_by_silence(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    running = await _until(cluster, "a", _phase("Running"))
    name = running["spec"]["nodeName"]
    cluster.agents[name].lose()
    assert cluster.agents[name].pids() == []
    node = await _until(cluster, name, lambda node: _ready_status(node) == "Unknown", "nodes")
    assert {taint["key"] for taint in node["spec"]["taints"]} == {"node.kubernetes.io/unreachable"}
    stranded = await _until(
        cluster,
        "a",
        lambda pod: any(c["type"] == "Ready" and c["status"] == "False" for c in pod["status"]["conditions"]),
    )
    assert stranded["status"]["phase"] == "Running"
    other = next(other for other in cluster.agents if other != name)
    await _start(cluster, "b")
    assert (await _until(cluster, "b", _phase("Running")))["spec"]["nodeName"] == other
    await cluster.restart_node(name)
    node = await _until(cluster, name, lambda node: _ready_status(node) == "True", "nodes")
    assert "taints" not in node["spec"]
    await _until(cluster, "a", _phase("Failed"))


async def test_a_frozen_machine_goes_on_where_it_was(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    running = await _until(cluster, "a", _phase("Running"))
    agent, pid = cluster.agents[running["spec"]["nodeName"]], await _process_of(cluster, running)
    agent.freeze()
    async with patiently(_WAIT_SECONDS):
        while _state(pid) != "T":
            await asyncio.sleep(0.01)
    await _until(cluster, agent.name, lambda node: _ready_status(node) == "Unknown", "nodes")
    agent.thaw()
    await _until(cluster, agent.name, lambda node: _ready_status(node) == "True", "nodes")
    assert await _process_of(cluster, running) == pid


async def test_a_pod_whose_node_is_gone_waits_for_force(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    running = await _until(cluster, "a", _phase("Running"))
    cluster.agents[running["spec"]["nodeName"]].lose()
    await cluster.client.delete(f"{_PODS}/a")
    held = cluster.api.store.get("pods", "default", "a")
    assert held is not None
    assert held["metadata"]["deletionTimestamp"]
    await cluster.client.delete(f"{_PODS}/a", {"gracePeriodSeconds": 0})
    assert cluster.api.store.get("pods", "default", "a") is None


async def test_a_pod_deleted_by_force_is_stopped_all_the_same(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    running = await _until(cluster, "a", _phase("Running"))
    agent = cluster.agents[running["spec"]["nodeName"]]
    pidfd = os.pidfd_open(await _process_of(cluster, running))
    await cluster.client.delete(f"{_PODS}/a", {"gracePeriodSeconds": 0})
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    try:
        async with patiently(_WAIT_SECONDS):
            await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
    assert agent.pids(running["metadata"]["uid"]) == []


async def test_a_refusing_api_server_delays_and_loses_nothing(cluster: LocalCluster) -> None:
    faults = cluster.api.faults
    faults.add(Fault(verb="patch", resource="pods", subresource="status", error=503, times=3))
    faults.add(Fault(verb="create", resource="pods", subresource="binding", error=500, times=2))
    faults.add(Fault(verb="patch", resource="pods", subresource="status", when="after", drop=True, skip=1, times=2))
    await _start(cluster, "a", "print('done')")
    await _until(cluster, "a", _phase("Succeeded"))


async def test_broken_watches_lose_nothing(cluster: LocalCluster) -> None:
    await _start(cluster, "a")
    await _until(cluster, "a", _phase("Running"))
    cluster.api.faults.break_watches()
    await cluster.client.delete(f"{_PODS}/a")
    cluster.api.compact()
    await _start(cluster, "b", "print('done')")
    await _until(cluster, "b", _phase("Succeeded"))
    async with patiently(_WAIT_SECONDS):
        changed = asyncio.Event()
        stop = cluster.api.store.subscribe("pods", lambda change: changed.set())
        while cluster.api.store.get("pods", "default", "a") is not None:
            await changed.wait()
            changed.clear()
        stop()


async def test_a_pod_leaves_nothing_on_disk(cluster: LocalCluster) -> None:
    await _start(cluster, "a", "open('file', 'w').write('x')")  # in the image's working folder
    done = await _until(cluster, "a", _phase("Succeeded"))
    directory = cluster.state / "nodes" / done["spec"]["nodeName"] / "pods" / done["metadata"]["uid"]
    assert [path.read_text() for path in (directory / "rootfs").rglob("file")] == ["x"]
    await cluster.client.delete(f"{_PODS}/a")
    async with patiently(_WAIT_SECONDS):
        while directory.exists():
            await asyncio.sleep(0.01)


async def test_a_service_without_ready_pods_refuses_and_follows_its_slices(cluster: LocalCluster) -> None:
    """A selectorless Service, as the operator uses one for its leader."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"leader:" + await reader.readline())
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(answer, cluster.plane.command_host(0), 0)
    port = backend.sockets[0].getsockname()[1]
    service = {"metadata": {"name": "reports"}, "spec": {"ports": [{"name": "https", "port": 8443}]}}
    made = await cluster.client.post("/api/v1/namespaces/default/services", service)
    address = made["spec"]["clusterIP"]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address, 8443)
    endpoints = {
        "metadata": {"name": "reports-1", "labels": {"kubernetes.io/service-name": "reports"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [cluster.plane.command_host(0)], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port}],
    }
    await cluster.client.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoints)
    try:
        assert await _ask(address, 8443) == b"leader:hello\n"
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/reports-1"
        await cluster.client.delete(path)
        async with patiently(_WAIT_SECONDS):
            while await _answers(address, 8443):
                await asyncio.sleep(0.01)
    finally:
        backend.close()
        await backend.wait_closed()


async def _ask(host: str, port: int) -> bytes:
    """One line to a server that may not listen yet."""
    async with patiently(_WAIT_SECONDS):
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            writer.write(b"hello\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_worker_starts_beside_the_examples(cluster: LocalCluster) -> None:
    """As in the real image, whose manifests must run here unchanged; what it writes stays out of the checkout."""
    script = "import os,pathlib,sys; pathlib.Path('model.pt').touch(); "
    script += "sys.exit(not os.path.isfile('examples/charlm/train.py'))"
    await _start(cluster, "a", script)
    done = await _until(cluster, "a", _phase("Succeeded", "Failed"))
    assert done["status"]["phase"] == "Succeeded"
    assert not (Path(__file__).parents[3] / "examples" / "model.pt").exists()
    assert not Path("model.pt").exists()


def test_a_process_in_the_middle_of_its_exec_is_no_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Popen returns there: of 40 looks most see no environment at first."""
    mark = strays.mark(tmp_path, "pod", "worker")
    for _ in range(40):
        with subprocess.Popen(["sleep", "60"], env={**os.environ, strays.MARK: mark}) as child:
            monkeypatch.setattr(strays, "_candidates", lambda pid=child.pid: [pid])  # it comes to it at once
            hit = strays.kill_marked(mark)
            child.kill()
        assert hit > 0


_CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"


async def test_a_claim_is_a_folder_that_outlives_its_pods(cluster: LocalCluster) -> None:
    """On every node the same; as anywhere, a pod waits until it is there."""
    volume = {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}
    path = "__import__('os').environ['DRIVETRAIN_POD_ROOT'] + '/mnt/shared/x'"

    async def pod(name: str, script: str, node: str) -> Obj:
        container = {
            "name": "worker",
            "image": "drivetrain-worker",
            "command": ["python", "-c", script, "--out=/mnt/shared/a"],
            "volumeMounts": [{"name": "shared", "mountPath": "/mnt/shared"}],
        }
        return await _start(cluster, name, nodeName=node, volumes=[volume], containers=[container])

    await pod("writer", f"import sys; open({path}, 'w').write(sys.argv[1])", "node-0")

    def waits(found: Obj) -> bool:
        states = [each["state"].get("waiting") or {} for each in found["status"].get("containerStatuses") or []]
        return any('persistentvolumeclaim "shared" not found' in state.get("message", "") for state in states)

    await _until(cluster, "writer", waits)
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = await cluster.client.post(_CLAIMS, {"metadata": {"name": "shared"}, "spec": spec})
    assert claim["status"] == {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}}
    await _until(cluster, "writer", _phase("Succeeded"))
    await cluster.client.delete(f"{_PODS}/writer", {"gracePeriodSeconds": 0})
    # An option's value is led to the mount, too.
    await pod("reader", f"assert open({path}).read().endswith('/rootfs/mnt/shared/a')", "node-1")
    ended = await _until(cluster, "reader", _phase("Succeeded", "Failed"))
    assert ended["status"]["phase"] == "Succeeded"
