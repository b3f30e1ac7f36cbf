"""Does every panel of the dashboards, and every rule, show something after a real job was killed, scaled and suspended?

The embedded plane with the real operator, a real Prometheus, a job of three workers. Prints each query with the number
of its series; what stays empty although nothing explains it ends this with 1. Leaves the job's report and each
dashboard as pages in build/observe, or in the folder that is given, and pictures of them where Chromium is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from drivetrain_api import constants
from drivetrain_local.client import Client
from drivetrain_local.up import Options, down, up
from harness.ports import reserve_port
from observe import pictures
from observe.prometheus import RULES, Prometheus

ROOT: Final = Path(__file__).parents[2]
BOARDS: Final = ROOT / "charts" / "drivetrain" / "files" / "dashboards"
JOBS: Final = "/apis/drivetrain.dev/v1alpha1/namespaces/default/trainingjobs"
PODS: Final = "/api/v1/namespaces/default/pods"
NAME: Final = "watched"
MACROS: Final = {"$__rate_interval": "30s", "$__interval": "5s", "$namespace": "default", "$job": NAME}
LIMIT_SECONDS: Final = 120.0
STEPS: Final = 100_000
"""More than it does while it is watched."""
QUIET: Final = {
    "drivetrain_reconcile_errors_total": "no look at a job failed",
    "drivetrain_restarts_total": "nothing was charged",
    "drivetrain_job_restarts_total": "nothing was charged",
    "drivetrain_coordinators_replaced_total": "no coordinator was given up",
    "drivetrain_operator_refused_total": "nobody was turned away",
    "drivetrain_energy_feed_failures_total": "no source failed",
    'category="queued"': "all found room at once",
}
"""What may be empty where all goes well, and why."""


@contextlib.asynccontextmanager
async def plane(folder: Path, port: str) -> AsyncIterator[Client]:
    """With the operator's metrics at this port."""
    os.environ["PYTHONPATH"] = os.pathsep.join(str(ROOT / name) for name in ("operator", "worker-image", "tests"))
    argv = [sys.executable, "-m", "drivetrain_operator.main", "--no-leader-election", "--allow-own-namespace"]
    argv += ["--metrics-host", "127.0.0.1", "--metrics-port", port]
    argv += ["--energy-settings", str(supply(folder / "energy")), "--energy-traces", str(folder / "energy")]
    options = Options(state=folder / "plane", crds=[ROOT / "crds"], commands=[("operator", argv)])
    client = Client.from_kubeconfig(await up(options), user_agent="observe")
    try:
        yield client
    finally:
        await client.close()
        down(folder / "plane")


def supply(folder: Path) -> Path:
    """energy.yaml, with a trace of three days whose hours differ, and a tariff."""
    folder.mkdir()
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    rows = [f"{(first + timedelta(hours=hour)).isoformat()},{300 + 20 * (hour % 12)}" for hour in range(72)]
    (folder / "here.csv").write_text("\n".join(["timestamp,g_per_kwh", *rows]))
    settings = {
        "sources": [{"name": "here", "provider": "trace", "zones": ["HERE"], "file": "here.csv"}],
        "tariffs": [{"name": "contract", "currency": "EUR", "perKWh": 0.3}],
    }
    (folder / "energy.yaml").write_text(yaml.safe_dump(settings))
    return folder / "energy.yaml"


class Job:
    """The one that is watched."""

    def __init__(self, client: Client, prometheus: Prometheus, folder: Path) -> None:
        self._client, self._prometheus, self._folder = client, prometheus, folder

    async def start(self) -> None:
        script = {"metadata": {"name": "script"}, "data": {"train.py": (ROOT / "tests/observe/train.py").read_text()}}
        await self._client.post(
            "/api/v1/namespaces/default/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", **script}
        )
        spec = {
            "image": "drivetrain-worker",
            "script": {"configMap": "script", "key": "train.py"},
            "workers": 3,
            "elastic": {"minWorkers": 1, "maxWorkers": 4},
            "snapshots": {"storage": {"path": str(self._folder / "snapshots")}},
            "training": {"steps": STEPS},
        }
        kind = {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": NAME}}
        await self._client.post(JOBS, {**kind, "spec": spec})

    async def until(self, what: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Its status is so. Raises TimeoutError."""
        began = time.monotonic()
        while True:
            status = (await self._client.get(f"{JOBS}/{NAME}")).get("status") or {}
            if wanted(status):
                print(f"  {what}: after {time.monotonic() - began:.0f} s", flush=True)
                return
            if time.monotonic() - began > LIMIT_SECONDS:
                raise TimeoutError(f"{what}: not within {LIMIT_SECONDS:.0f} s: {json.dumps(status)[:2000]}")
            await asyncio.sleep(0.3)

    async def change(self, spec: dict[str, Any]) -> None:
        await self._client.patch(f"{JOBS}/{NAME}", {"spec": spec})

    async def kill(self) -> None:
        """A worker, without grace."""
        pods = [pod for pod in await self.pods() if pod["metadata"]["labels"][constants.LABEL_ROLE] == "worker"]
        await self._client.delete(f"{PODS}/{pods[0]['metadata']['name']}", {"gracePeriodSeconds": 0})

    async def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._client.get(PODS))["items"]
        return found

    async def follow(self) -> None:
        """Tell Prometheus where coordinators are, until cancelled."""
        while True:
            found = [
                (
                    f"{pod['status']['podIP']}:{constants.METRICS_PORT}",
                    {"namespace": "default", "job_name": NAME, "pod": pod["metadata"]["name"]},
                )
                for pod in await self.pods()
                if pod["metadata"]["labels"][constants.LABEL_ROLE] == "coordinator" and pod["status"].get("podIP")
            ]
            self._prometheus.coordinators(found)
            await asyncio.sleep(1.0)


async def story(job: Job) -> None:
    """What happens to it."""
    await job.start()
    await job.until("three train", lambda s: (s.get("workers") or {}).get("world") == 3)
    await asyncio.sleep(12)
    await job.kill()
    await job.until("one was killed, the others went on", lambda s: s.get("recoveries", 0) >= 1)
    await job.until("three train again", lambda s: (s.get("workers") or {}).get("world") == 3)
    await job.change({"workers": 4})
    await job.until("scaled to four", lambda s: (s.get("workers") or {}).get("world") == 4)
    await asyncio.sleep(5)
    await job.change({"suspend": True})
    await job.until("suspended", lambda s: s.get("phase") == "Suspended")
    await asyncio.sleep(3)
    await job.change({"suspend": False})
    await job.until("four train again", lambda s: (s.get("workers") or {}).get("world") == 4)
    profile = [{"workers": 4, "stepsPerSecond": 15, "watts": 80}]
    deadline = (datetime.now(UTC) + timedelta(seconds=STEPS / 10)).isoformat(timespec="seconds")
    await job.change({"energy": {"deadline": deadline, "profile": profile, "suspend": False}})
    await job.until("it has a plan", lambda s: bool((s.get("energy") or {}).get("plan")))
    await asyncio.sleep(25)


def asked() -> list[tuple[str, str]]:
    """(Where it stands, PromQL) of every query."""
    found = []
    for file in sorted(BOARDS.glob("*.json")):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            found += [(f"{file.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
        notes = [note for note in board["annotations"].get("list", []) if note.get("expr")]
        found += [(f"{file.stem}: lines of {note['name']}", note["expr"]) for note in notes]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        found += [(f"rule: {rule['record']}", rule["record"]) for rule in group["rules"] if "record" in rule]
    return found


def filled(query: str) -> str:
    """With what Grafana would fill in, for a job that lives for minutes."""
    for macro, value in MACROS.items():
        query = query.replace(macro, value)
    return query.replace("[1h]", "[60s]")


async def look(prometheus: Prometheus, since: float) -> list[tuple[str, str, int, str]]:
    """Each query with the number of series that it had at any time since then, and why it may have none."""
    found = []
    for where, text in asked():
        query = filled(text)
        result = await prometheus.ask(
            "query_range", query=query, start=f"{since:.0f}", end=f"{time.time():.0f}", step="2s"
        )
        why = next((reason for name, reason in QUIET.items() if name in text), "") if not result else ""
        found.append((where, text, len(result), why))
    return found


async def pages(prometheus: Prometheus, since: float, kubeconfig: Path, out: Path) -> None:
    """What people see, in files."""
    out.mkdir(parents=True, exist_ok=True)
    for file in out.iterdir():
        if file.suffix in (".html", ".png"):
            file.unlink()
    queries = {text: filled(text) for _, text in asked()}
    until = time.time()
    for file in sorted(BOARDS.glob("*.json")):
        page = await pictures.board(prometheus, file, queries, since, until)
        (out / f"{file.stem}.html").write_text(page)
    argv = [sys.executable, "-m", "drivetrain_cli", "report", NAME, "-o", str(out / "report.html")]
    report = await asyncio.create_subprocess_exec(*argv, "--kubeconfig", str(kubeconfig))
    if await report.wait() != 0:
        raise SystemExit("observe: no report")
    made = sorted(out.glob("*.html"))
    program = pictures.browser()
    if program is None:
        print(f"pages in {out}; no pictures of them: chromium is not installed")
        return
    taken = [picture for page in made for picture in await pictures.photographed(program, page, out)]
    print(f"{len(made)} pages and {len(taken)} pictures in {out}")


async def main(out: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="drivetrain-observe-") as name:
        folder, port, since = Path(name), reserve_port(), time.time()
        async with plane(folder, port.value) as client, Prometheus(f"127.0.0.1:{port.value}") as prometheus:
            job = Job(client, prometheus, folder)
            following = asyncio.create_task(job.follow())
            try:
                await story(job)
            finally:
                following.cancel()
            alerts = await prometheus.ask("query", query='ALERTS{alertstate="firing"}')
            found = await look(prometheus, since)
            await pages(prometheus, since, folder / "plane" / "kubeconfig", out)
        port.release()
    width = max(len(where) for where, *_ in found)
    for where, _, series, why in found:
        print(f"{where:{width}}  {series:4} series  {why if not series else ''}{'' if series or why else 'EMPTY'}")
    missing = [text for _, text, series, why in found if not series and not why]
    full = sum(series > 0 for _, _, series, _ in found)
    print(f"alerts firing: {', '.join(sorted(each['metric']['alertname'] for each in alerts)) or 'none'}")
    for text in missing:
        print(f"empty: {text}")
    print(f"queries={len(found)} with_data={full} explained={len(found) - full - len(missing)} empty={len(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "observe")))
