"""Does the plane come up with one command and go down with another, whatever state it is in?"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drivetrain_local import up as plane
from drivetrain_local.apiserver import ApiServer
from drivetrain_local.client import Client
from drivetrain_local.daemon import Daemon, start_time


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Path]:
    directory = tmp_path / "plane"
    yield directory
    plane.down(directory)
    assert not any(plane.status(directory).values())


def _options(state: Path) -> plane.Options:
    return plane.Options(state, nodes=2, gpus=3, commands=[("extra", ["sleep", "600"])])


async def test_up_again_changes_nothing_and_down_leaves_nothing(state: Path) -> None:
    kubeconfig = await plane.up(_options(state))
    first = plane.status(state)
    assert set(first) == {"apiserver", "node", "extra"}
    assert all(first.values())
    assert await plane.up(_options(state)) == kubeconfig
    assert plane.status(state) == first
    client = Client.from_kubeconfig(kubeconfig, user_agent="test")
    try:
        nodes = (await client.get("/api/v1/nodes"))["items"]
        assert [node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes] == ["3", "3"]
        pod = {
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "drivetrain-worker", "command": ["sleep", "600"]}]},
        }
        await client.post("/api/v1/namespaces/default/pods", pod)
    finally:
        await client.close()
    starts = {pid: start_time(pid) for pid in first.values()}
    plane.down(state)
    assert not any(start_time(pid) == started for pid, started in starts.items())
    assert plane.status(state) == {}
    assert not kubeconfig.exists()


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def test_a_lost_server_takes_the_rest_with_it(state: Path) -> None:
    await plane.up(_options(state))
    first = plane.status(state)
    _kill(first["apiserver"])
    await plane.up(_options(state))
    second = plane.status(state)
    assert not set(first.values()) & set(second.values())
    assert all(second.values())


async def test_a_command_gets_an_address_and_the_kubeconfig(state: Path) -> None:
    script = "echo $KUBECONFIG $POD_IP $MORE; exec sleep 600"
    options = plane.Options(state, commands=[("extra", ["sh", "-c", script])], env={"MORE": "more"})
    kubeconfig = await plane.up(options)
    Daemon(state, "extra").stop(1.0)
    expect = f"{kubeconfig} {plane.plane_of(kubeconfig).command_host(0)} more"
    assert Daemon(state, "extra").log_tail() in (expect, "")


async def test_what_fails_to_start_shows_its_log(state: Path) -> None:
    bad = plane.Options(state, images=["no-json=["])
    with pytest.raises(plane.PlaneError, match="--image"):
        await plane.up(bad)


async def test_a_folder_that_others_can_write_is_refused(state: Path) -> None:
    state.mkdir()
    state.chmod(0o775)
    with pytest.raises(plane.PlaneError, match="others can write"):
        await plane.up(_options(state))
    assert plane.status(state) == {}


async def test_a_draft_that_lies_there_is_not_written_into(tmp_path: Path) -> None:
    """Whoever has it open would read the token."""
    draft = tmp_path / "kubeconfig.new"
    draft.write_text("x")
    draft.chmod(0o666)
    with draft.open() as theirs:
        ApiServer().write_kubeconfig(tmp_path / "kubeconfig")
        assert theirs.read() == "x"
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o777 == 0o600


def test_a_recycled_pid_is_not_ours(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "x")
    daemon.pidfile.parent.mkdir()
    daemon.pidfile.write_text(f'{{"pid": {os.getpid()}, "started": "1", "argv": []}}')
    assert daemon.pid() == 0
    daemon.stop(0.1)
    assert not daemon.pidfile.exists()
