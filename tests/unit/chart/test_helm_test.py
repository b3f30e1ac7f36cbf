"""What `helm test` runs in its pod, against a port as the operator has it."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from drivetrain_operator.guard import Guard
from drivetrain_operator.health import HealthServer
from drivetrain_operator.reports.credentials import Authority
from harness.helm import CHART, deployment, rendered


async def asked(guard: Guard, *, ready: bool = True, led: bool = True) -> tuple[int, str]:
    """Its exit code, and what it says."""
    registry = CollectorRegistry()
    Gauge("drivetrain_jobs", "Jobs.", registry=registry)
    health = HealthServer(registry, lambda: ready, guard=guard)
    port = await health.start("127.0.0.1", 0)
    leader = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reports = leader.sockets[0].getsockname()[1]
    if not led:
        leader.close()
    scheme = "http" if guard.tls is None else "https"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(CHART / "files" / "test.py"),
        f"{scheme}://127.0.0.1:{port}", f"127.0.0.1:{reports}", "2",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"HTTP_PROXY": "http://127.0.0.1:9"},
    )  # fmt: skip
    said, _ = await process.communicate()
    leader.close()
    await health.stop()
    return process.returncode or 0, said.decode()


async def test_all_is_well() -> None:
    code, said = await asked(Guard())
    assert (code, said.splitlines()) == (0, ["ready: ok", "numbers: 1 metrics", "leader: listens"])


async def test_it_is_well_with_token_and_tls(tmp_path: Path) -> None:
    pair = Authority.generate(dt.datetime.now(dt.UTC)).serving_pair(dt.datetime.now(dt.UTC))
    for name, content in (("token", b"word"), ("tls.crt", pair.cert_pem), ("tls.key", pair.key_pem)):
        (tmp_path / name).write_bytes(content)
    code, said = await asked(Guard(tmp_path / "token", tmp_path / "tls.crt", tmp_path / "tls.key"))
    assert (code, said.splitlines()[1]) == (0, "numbers: asks for a token")


@pytest.mark.parametrize(("ready", "led", "name"), [(False, True, "ready"), (True, False, "leader")])
async def test_what_does_not_answer_is_named(ready: bool, led: bool, name: str) -> None:
    code, said = await asked(Guard(), ready=ready, led=led)
    assert code == 1
    assert [line.partition(":")[0] for line in said.splitlines() if "says more" in line] == [name]


def test_its_pod_runs_the_script_with_what_the_chart_made() -> None:
    objects = rendered()
    pod = objects["Pod", "drivetrain-test"]
    (container,) = pod["spec"]["containers"]
    assert container["command"][:3] == ["python", "-I", "-c"]
    assert container["command"][3].strip() == (CHART / "files" / "test.py").read_text().strip()
    of = {name: each["spec"]["ports"][0]["port"] for (kind, name), each in objects.items() if kind == "Service"}
    services = {f"{name}.drivetrain-system.svc": port for name, port in of.items()}
    for argument in container["args"]:
        host, _, port = argument.removeprefix("http://").rpartition(":")
        assert services[host] == int(port)
    operator = deployment(objects)["spec"]
    assert pod["spec"]["securityContext"] == operator["securityContext"]
    assert container["securityContext"] == operator["containers"][0]["securityContext"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
