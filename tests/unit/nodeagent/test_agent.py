"""The whole agent, with its guardian, on a real API server: told, killed, left alone. Cards are fake (fake_nvml.c)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.power import CAPS_CONFIGMAPS, REPORTS_CONFIGMAPS, NodeCaps, NodeReport, shard
from drivetrain_nodeagent.main import main
from harness.ports import free_port
from harness.served import Served, served
from unit.nodeagent.fake_cards import Cards

POD, PID = "0a0a0a0a-1111-2222-3333-444444444444", 4242
MAPS = "/api/v1/namespaces/drivetrain-system/configmaps"
CAPS, REPORTS = CAPS_CONFIGMAPS[shard("node-a")], REPORTS_CONFIGMAPS[shard("node-a")]


class Node:
    """One node with an agent."""

    def __init__(self, api: Served, cards: Cards, folder: Path) -> None:
        self.api, self.cards, self.folder = api, cards, folder
        self.port = free_port()
        (folder / "proc" / str(PID)).mkdir(parents=True)
        (folder / "proc" / str(PID) / "cgroup").write_text(f"0::/kubepods/burstable/pod{POD}/abc\n")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "drivetrain_nodeagent.main", "--node", "node-a", "--namespace", "drivetrain-system",
            "--journal", str(self.folder / "limits.json"), "--nvml", str(self.cards.library), "--host", "127.0.0.1",
            "--port", str(self.port), "--sys", str(self.folder / "sys"), "--proc", str(self.folder / "proc"),
        ]  # fmt: skip
        return subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(self.api.kubeconfig)})

    def tell(self, watts: float, seconds: float = 600) -> None:
        """As the operator does."""
        caps = NodeCaps(until=time.time() + seconds, pods={POD: watts})
        self.api.patch(f"{MAPS}/{CAPS}", {"data": {"node-a": caps.model_dump_json()}})

    def report(self) -> NodeReport | None:
        text = (self.api.get(f"{MAPS}/{REPORTS}").get("data") or {}).get("node-a")
        return NodeReport.model_validate_json(text) if text else None

    def child(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


@pytest.fixture
def node(tmp_path: Path, cards: Cards) -> Iterator[Node]:
    cards.add(limit=350)
    with served(tmp_path) as api:
        api.post("/api/v1/namespaces", {"metadata": {"name": "drivetrain-system"}})
        for name in (CAPS, REPORTS):
            api.post(MAPS, {"metadata": {"name": name}})
        node = Node(api, cards, tmp_path)
        try:
            yield node
        finally:
            if node.process.poll() is None:
                node.process.kill()
            node.process.wait(30)


def until(true: Callable[[], Any], what: str, seconds: float = 80) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def capped(node: Node, watts: float = 250) -> None:
    node.cards.compute(PID)
    node.tell(watts)
    until(lambda: node.cards.limit() == watts, "the cap never came into force")


def test_told_capped_reported_and_given_back(node: Node) -> None:
    capped(node)
    until(lambda: (found := node.report()) and found.devices[0].cap == 250, "it was not reported")
    report = node.report()
    assert report is not None
    card = report.devices[0]
    assert (card.uuid, card.least, card.most, card.watts, card.celsius) == ("GPU-gpu0", 100, 400, 312.5, 61)
    assert card.pods == (POD,)
    assert card.limit == 250
    assert 'drivetrain_node_gpu_cap_watts{gpu="GPU-gpu0"} 250.0' in node.metrics()
    assert 'drivetrain_node_gpu_joules_total{gpu="GPU-gpu0"} 5000.25' in node.metrics()

    node.tell(200)
    until(lambda: node.cards.limit() == 200, "a new cap never came into force")
    node.cards.compute()
    until(lambda: node.cards.limit() == 350, "the job has gone, and its cap stays")
    node.cards.compute(PID)
    until(lambda: node.cards.limit() == 200, "it is back, and has no cap")
    node.process.terminate()
    assert node.process.wait(30) == 0
    assert node.cards.limit() == 350
    assert node.report() is None


def test_killed(node: Node) -> None:
    capped(node)
    os.kill(node.child(), signal.SIGKILL)
    assert node.process.wait(30) == 128 + 9
    assert node.cards.limit() == 350


def test_killed_with_its_guardian(node: Node) -> None:
    capped(node)
    agent = node.child()
    node.process.kill()
    node.process.wait(30)
    until(lambda: not Path(f"/proc/{agent}").exists() or _is_dead(agent), "the agent outlives its guardian")
    assert node.cards.limit() == 250
    node.api.patch(f"{MAPS}/{CAPS}", {"data": {"node-a": None}})
    node.process = node.start()
    until(lambda: node.cards.limit() == 350, "the next one does not give back what the former left")


def test_a_guardian_that_was_killed_before_its_agent_began(tmp_path: Path) -> None:
    """The kernel tells of no death that was before it was asked to: such agents stayed for ever."""
    command = [
        sys.executable, "-m", "drivetrain_nodeagent.main", "--node", "a", "--namespace", "b", "--journal",
        str(tmp_path / "limits.json"), "--port", "0", "--agent", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (64, "drivetrain-nodeagent: the process that started it is gone")


def test_an_operator_that_is_gone(node: Node) -> None:
    capped(node)
    node.tell(250, seconds=3)
    until(lambda: node.cards.limit() == 350, "nobody renews the cap, and it stays")


def test_caps_that_are_nonsense(node: Node) -> None:
    capped(node)
    node.api.patch(f"{MAPS}/{CAPS}", {"data": {"node-a": json.dumps({"until": "never"})}})
    until(lambda: node.cards.limit() == 350, "caps that cannot be read are in force")


@pytest.mark.parametrize("missing", ["--node", "--namespace"])
def test_what_is_missing_is_said(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"--node": "a", "--namespace": "b", "--journal": str(tmp_path / "x")}
    del given[missing]
    assert main([word for pair in given.items() for word in pair], {}) == 64
    assert f"{missing} is not given" in capsys.readouterr().err


def _is_dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
