"""A real Prometheus, which scrapes an exporter that says what dcgm-exporter and Kepler say: is it asked in its own
language, and understood?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from drivetrain_api.energy import EnergySource
from drivetrain_energy.accounts import counters
from drivetrain_energy.accounts.counters import Metered, drawn
from drivetrain_energy.settings import of
from drivetrain_operator.energy.joules import Joules
from harness.ports import reserve_port
from harness.promtool import program
from unit.energy.feeds.server import ports
from unit.energy.feeds.test_joules import container, gpu, kepler, pod, waiting
from unit.plan.builders import job, spec

GPU_WATTS, CPU_WATTS, DRAM_WATTS = 300.0, 20.0, 3.0


class Wall:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def said(passed: float) -> Iterator[str]:
    """Two workers; the second one's GPU is another job's, too."""
    exported = [
        *(gpu(n, 1e6 + GPU_WATTS * passed, instance="") for n in range(2)),
        gpu(1, 1e6 + GPU_WATTS * passed, pod(0, "other"), instance=""),
        gpu(2, GPU_WATTS * passed, pod(0, "other"), instance=""),
        gpu(3, GPU_WATTS * passed, instance="", GPU_I_ID="3"),
        *(kepler(n, CPU_WATTS * passed, instance="") for n in range(2)),
        *(kepler(n, DRAM_WATTS * passed, instance="", zone="dram") for n in range(2)),
        *(kepler(n, 90 * passed, instance="", zone="psys") for n in range(2)),
        *(
            container(n, CPU_WATTS / 2 * passed, instance="", mode=mode)
            for n in range(2)
            for mode in ("dynamic", "idle")
        ),
    ]
    exported += [({**labels, "__name__": "kepler_container_dram_joules_total"}, DRAM_WATTS / 2 * passed)
                 for labels, _ in exported if labels["__name__"].startswith("kepler_container")]  # fmt: skip
    for labels, value in exported:
        inner = ",".join(f'{name}="{text}"' for name, text in labels.items() if name != "__name__" and text)
        yield f"{labels['__name__']}{{{inner}}} {value:.3f}\n"


def test_it_is_asked_in_its_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "BUCKET_SECONDS", 2.0)  # half a minute would be long
    found = program("prometheus")
    if found is None:
        pytest.skip("joules are asked of a real Prometheus: install prometheus")
    asyncio.run(_asked(found, tmp_path))


async def _asked(prometheus: str, folder: Path) -> None:
    began = time.time()
    app = web.Application()

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text="".join(said(time.time() - began)))

    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target = {"targets": [f"127.0.0.1:{runner.addresses[0][1]}"], "labels": {"namespace": "gpu-operator", "pod": "x"}}
    scrapes = [{"job_name": "exporters", "scrape_interval": "1s", "static_configs": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": scrapes}))
    port = reserve_port()
    process = await asyncio.create_subprocess_exec(
        prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port.value}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for exports in ("pods", "containers"):
            joules = {"name": "p", "provider": "prometheus", "baseURL": f"http://127.0.0.1:{port.value}",
                      "dcgm": {}, "kepler": {"exports": exports}}  # fmt: skip
            known = await _known(joules)
            for source, drew in (("dcgm", {"gpu": 1.5 * GPU_WATTS}), ("kepler", {"cpu": 40.0, "dram": 6.0})):
                metered = known[EnergySource(source)]
                since, until = metered.until - 3, metered.until
                told = drawn(metered.buckets, since, until)
                assert told.joules == pytest.approx({c: watts * 3 for c, watts in drew.items()}, rel=0.02), exports
                assert not any(each.refused for each in metered.buckets)
                assert abs(metered.skew) < 2
                if source == "kepler":
                    assert told.pod_seconds == pytest.approx(6, rel=0.01)
    finally:
        process.terminate()
        await process.wait()
        port.release()
        await runner.cleanup()


async def _known(joules: Mapping[str, object]) -> dict[EnergySource, Metered]:
    """Once it has four seconds of the job."""
    settings = of({"joules": [{**joules, "lookSeconds": 15}]})
    async with asyncio.timeout(60), ports(seconds=10.0) as given:
        while True:
            lm = job(spec(gpusPerWorker=1), waiting(time.time() - 60, time.time()))
            reader = Joules(lambda: settings, Wall(), lambda lm=lm: [lm], lambda: 0.0)  # type: ignore[misc]
            await reader.poll(given)
            known = {source: each for source, each in reader.of(lm).items() if each is not None}
            if len(known) == 2 and all(len(each.buckets) > 3 for each in known.values()):
                return known
            await asyncio.sleep(0.5)
