"""A Prometheus that is well, and what goes wrong with one: what of a job's electricity is counted then, and as what?

Each case goes through the real reader and a real server. Workers have told 600 s of the model, two of them, 7 W each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from drivetrain_api.energy_status import AwaitedEnergy, CountedEnergy, EnergyStatus, UsedEnergy
from drivetrain_api.status import TrainingJobStatus
from drivetrain_energy.accounts.awaited import settled
from drivetrain_energy.settings import of
from drivetrain_operator.energy.joules import Joules
from drivetrain_operator.plan.energy_words import from_status
from unit.energy.feeds.prometheus import Prometheus
from unit.energy.feeds.server import NOW, Asked, Clock, Said, Server, ports
from unit.plan.builders import job, spec, started

SINCE: Final = NOW - 700
UNTIL: Final = NOW - 100
SECONDS: Final = UNTIL - SINCE
MODEL: Final = 14 * SECONDS
GPU: Final = 2 * 300 * SECONDS
CPU: Final = 2 * 20 * SECONDS
Labels = dict[str, str]


def pod(index: int, name: str = "lm", suffix: str = "11111") -> str:
    return f"{name}-{index}-0-{suffix}"


def gpu(index: int, joules: float, holder: str | None = None, **labels: str) -> tuple[Labels, float]:
    found = {"__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID": f"GPU-{index}", "instance": f"node{index}"}
    who = {"namespace": "ns", "pod": pod(index)} if holder is None else {"namespace": "ns", "pod": holder}
    return found | who | labels, joules * 1000


def kepler(index: int, joules: float, **labels: str) -> tuple[Labels, float]:
    found = {"__name__": "kepler_pod_cpu_joules_total", "pod_id": f"w-{index}", "pod_name": pod(index),
             "pod_namespace": "ns", "state": "running", "zone": "package", "instance": f"node{index}"}  # fmt: skip
    return found | labels, joules


def container(index: int, joules: float, **labels: str) -> tuple[Labels, float]:
    found = {"__name__": "kepler_container_package_joules_total", "container_id": f"c-{index}", "pod_name": pod(index),
             "container_namespace": "ns", "mode": "dynamic", "instance": f"node{index}"}  # fmt: skip
    return found | labels, joules


Exported = Callable[[float], list[tuple[Labels, float]]]
"""By seconds since long ago."""


def usual(passed: float) -> list[tuple[Labels, float]]:
    return [each for n in range(2) for each in (gpu(n, 1e6 + 300 * passed), kepler(n, 500 + 20 * passed))]


@dataclass(frozen=True)
class Case:
    """`says`: what the server answers to what Prometheus would; `counts`: by source, up to where workers have told."""

    exported: Exported = usual
    counts: Mapping[str, float] = field(default_factory=lambda: {"dcgm": GPU, "kepler": CPU})
    says: Callable[[Asked, Any], Said] = lambda asked, found: Said(found)
    every: float = 15.0
    gap: tuple[float, float] = (0.0, 0.0)
    """Not scraped: from when to when, after SINCE."""
    dcgm: Mapping[str, Any] = field(default_factory=dict)
    kepler: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    reason: str = ""
    refused: int = 0
    ahead: float = 0.0
    """By which Prometheus' clock is."""


NOTHING: Final[Mapping[str, float]] = {"model": MODEL}


def fails(said: Said) -> Callable[[Asked, Any], Said]:
    return lambda asked, found: said


def without(*names: str) -> Exported:
    return lambda passed: [each for each in usual(passed) if each[0]["__name__"] not in names]


def changed(change: Callable[[Labels, float, float], tuple[Labels, float] | None]) -> Exported:
    def exported(passed: float) -> list[tuple[Labels, float]]:
        return [x for labels, value in usual(passed) if (x := change(labels, value, passed)) is not None]

    return exported


def only(instance: str) -> Exported:
    return lambda passed: [each for each in usual(passed) if each[0]["instance"] == instance]


DCGM: Final = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
AT: Final = 2000.0
"""SINCE, in seconds of `exported`."""
CASES: Final[dict[str, Case]] = {
    "all is well": Case(),
    "scraped once a minute": Case(every=60.0),
    "its clock is ahead": Case(ahead=400.0),
    "its clock is behind": Case(ahead=-86_400.0),
    "labels of its own by these names": Case(
        lambda passed: [*([gpu(n, 300 * passed, "dcgm-exporter-x", namespace="gpu-operator", exported_pod=pod(n),
                               exported_namespace="ns") for n in range(2)]), *without(DCGM)(passed)]),
    "labels as the site has them": Case(
        lambda passed: [*([gpu(n, 300 * passed, "x", who=pod(n), where="ns") for n in range(2)]),
                        *without(DCGM)(passed)],
        dcgm={"podLabel": "who", "namespaceLabel": "where"}),
    "Kepler before 0.10": Case(
        lambda passed: [each for n in range(2) for each in (
            gpu(n, 300 * passed), container(n, 15 * passed), container(n, 5 * passed, mode="idle"))],
        kepler={"exports": "containers"}),
    "memory, and zones that are parts of others": Case(
        lambda passed: [*usual(passed), *(kepler(n, x * passed, zone=zone) for n in range(2)
                                          for zone, x in (("core", 9.0), ("psys", 90.0), ("dram", 3.0)))],
        {"dcgm": GPU, "kepler": CPU + 2 * 3 * SECONDS}),
    "each target is scraped twice": Case(
        lambda passed: [*usual(passed), *(({**labels, "prometheus": "b"}, value) for labels, value in usual(passed))]),
    "by another exporter, too, that knows of no pods": Case(
        lambda passed: [*usual(passed), *(({"__name__": DCGM, "UUID": f"GPU-{n}", "instance": "other"},
                                           (1e6 + 300 * passed) * 1000) for n in range(2))]),
    "by another one whose own pod Prometheus names": Case(
        lambda passed: [each for n in range(2) for each in (
            gpu(n, 300 * passed, "dcgm-exporter-x", namespace="gpu-operator", exported_pod=pod(n),
                exported_namespace="ns"),
            gpu(n, 300 * passed, "other-exporter-y", namespace="monitoring", instance="other"))]
        + without(DCGM)(passed)),
    "a stranger's exporter says another number of a GPU": Case(
        lambda passed: [each for n in range(2) for each in (
            gpu(n, 300 * passed, job="dcgm-exporter"), gpu(n, 4000 * passed, job="mine", instance="strange"))]
        + without(DCGM)(passed), dcgm={"labels": {"job": "dcgm-exporter"}}),
    "and of processors": Case(
        lambda passed: [each for n in range(2) for each in (
            kepler(n, 20 * passed, job="kepler"), kepler(n, 4000 * passed, job="mine", pod_id=f"mine-{n}"))]
        + without("kepler_pod_cpu_joules_total")(passed), kepler={"labels": {"job": "kepler"}}),
    "a GPU's name is a piece of a query": Case(
        lambda passed: [*usual(passed), *(gpu(0, 4000 * passed, UUID=name, instance="strange") for name in (
            'x"} or vector(1) or {a="', "GPU-\ufffd", ".*", "a|b", "GPU-0\n", "x" * 129))],
        says=lambda asked, found: Said({}, 400) if asked.form["query"].count('"') > 40
        or not asked.form["query"].isascii() else Said(found)),
    "two workers have one GPU": Case(
        lambda passed: [gpu(0, 300 * passed, pod(n)) for n in range(2)] + without(DCGM)(passed),
        {"dcgm": GPU / 2, "kepler": CPU}),
    "another job has it, too": Case(
        lambda passed: [gpu(0, 300 * passed, who) for who in (pod(0), "other-0-0-22222")] + without(DCGM)(passed),
        {"dcgm": GPU / 4, "kepler": CPU}),
    "a part of a GPU": Case(
        lambda passed: [gpu(n, 300 * passed, GPU_I_ID="3") for n in range(2)] + without(DCGM)(passed), {"kepler": CPU}),
    "pods of a job of the same name": Case(
        lambda passed: [gpu(n, 300 * passed, pod(n, suffix="99999")) for n in range(2)] + without(DCGM)(passed),
        {"kepler": CPU}),
    "a job whose name begins alike": Case(
        lambda passed: [gpu(n, 300 * passed, pod(n, "lm-2")) for n in range(2)] + without(DCGM)(passed),
        {"kepler": CPU}),
    "the driver is loaded anew": Case(
        changed(lambda labels, value, passed: (labels, 300e3 * (passed - AT - 298))
                if labels["__name__"] == DCGM and passed > AT + 298 else (labels, value)),
        {"dcgm": GPU - 2 * 300 * 13, "kepler": CPU}),
    "Kepler begins anew": Case(
        changed(lambda labels, value, passed: (labels, 20 * (passed - AT - 290))
                if labels["__name__"] != DCGM and passed > AT + 290 else (labels, value)),
        {"dcgm": GPU, "kepler": CPU - 2 * 20 * 5}),
    "it has not scraped for a while": Case(gap=(200.0, 400.0)),
    "it does not scrape any more": Case(
        gap=(315.0, 1e9), counts={"dcgm": GPU * 310 / 600, "kepler": CPU * 310 / 600, "model": MODEL * 290 / 600}),
    "one node has no exporter": Case(only("node0"), {"dcgm": GPU / 2, "kepler": CPU / 2, "model": MODEL / 2}),
    "no Kepler": Case(without("kepler_pod_cpu_joules_total"), {"dcgm": GPU, "model": MODEL}),
    "no exporter": Case(lambda passed: [], NOTHING),
    "petajoules": Case(
        changed(lambda labels, value, passed: (labels, value + (1e18 if passed > AT + 298 else 0))),
        {"dcgm": GPU * 585 / 600, "kepler": CPU * 585 / 600, "model": MODEL * 15 / 600}, refused=4),
    "not numbers": Case(
        says=lambda asked, found: Said(_values(found, lambda at, value: [at, "NaN"])), counts=NOTHING),
    "below zero": Case(says=lambda asked, found: Said(_values(found, lambda at, value: [at, "-5"])), counts=NOTHING),
    "nonsense for samples": Case(says=lambda asked, found: Said(_values(found, lambda at, value: "x")), counts=NOTHING),
    "it refuses": Case(says=fails(Said({}, 401)), counts=NOTHING, problem="refused (401)", reason="refused"),
    "too many requests": Case(says=fails(Said({}, 429)), counts=NOTHING, problem="429", reason="limited"),
    "another path": Case(says=fails(Said(b"", 404)), counts=NOTHING, problem="baseURL", reason="unavailable"),
    "it fails": Case(says=fails(Said(b"oops", 503)), counts=NOTHING, problem="fails (503)", reason="unavailable"),
    "the query fails": Case(
        says=fails(Said({"status": "error", "error": "out of memory"})), counts=NOTHING, problem="out of memory",
        reason="unreadable"),
    "a part of it is away": Case(
        says=lambda asked, found: Said({**found, "warnings": ["store is not reached"]}), counts=NOTHING,
        problem="may be in part", reason="unreadable"),
    "no JSON": Case(says=fails(Said(b"<html>")), counts=NOTHING, problem="no JSON", reason="unreadable"),
    "another document": Case(says=fails(Said({"status": "success", "data": []})), counts=NOTHING,
                             problem="is no object", reason="unreadable"),
    "a redirect": Case(says=fails(Said(b"", 302, {"Location": "http://elsewhere"})), counts=NOTHING,
                       problem="redirects", reason="unavailable"),
    "half an answer": Case(says=fails(Said({"status": "success"}, cut=4)), counts=NOTHING, problem="not reached",
                           reason="unavailable"),
    "no end": Case(says=fails(Said(b"x" * (2 << 20))), counts=NOTHING, problem="bytes", reason="unreadable"),
    "no answer": Case(says=fails(Said({}, delay=30.0)), counts=NOTHING, problem="within 1 s", reason="unavailable"),
}  # fmt: skip


def _values(found: Any, change: Callable[[Any, Any], Any]) -> Any:
    for series in found["data"]["result"] if found["data"]["resultType"] == "matrix" else []:
        series["values"] = [change(*pair) for pair in series["values"]]
    return found


def waiting(since: float, until: float) -> TrainingJobStatus:
    awaited = AwaitedEnergy(since=since, until=until, worker_seconds=2 * (until - since))
    model = {"joules": {"cpu": {"model": 7 * 2 * (until - since)}}}
    counted = CountedEnergy(awaited={"dcgm": awaited, "kepler": awaited.model_copy(update=model)})
    return started(energy=EnergyStatus(used=UsedEnergy(counted=counted)))


@pytest.mark.parametrize("name", CASES)
def test_what_is_counted(name: str) -> None:
    asyncio.run(_counted(CASES[name]))


async def _counted(case: Case) -> None:
    clock = Clock()
    prometheus = Prometheus(lambda: clock.at + case.ahead)
    start, passed = SINCE - AT, 0.0
    while passed < AT + 700:
        if not case.gap[0] < passed - AT < case.gap[1]:
            clock.at = start + passed
            prometheus.scrape(case.exported(passed))
        passed += case.every
    clock.at = NOW
    server = Server(lambda asked: case.says(asked, prometheus.answer(
        asked.form["query"], float(asked.form.get("time", clock.at + case.ahead)))), clock)  # fmt: skip
    lm = job(spec(gpusPerWorker=1), waiting(SINCE + case.ahead, UNTIL + case.ahead))
    async with server.running(), ports(seconds=1.0) as given:
        joules = {"name": "p", "provider": "prometheus", "baseURL": server.url, "tokenFile": "token",
                  "dcgm": dict(case.dcgm), "kepler": dict(case.kepler)}  # fmt: skip
        settings = of({"joules": [joules], "polling": {"timeoutSeconds": 1}})
        reader = Joules(lambda: settings, clock, lambda: [lm], lambda: 0.0)
        await reader.poll(given)
        assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer s3cret"}
    found = reader.of(lm)
    assert lm.status.energy is not None
    counts: dict[str, float] = {}
    refused = 0
    for source, awaited in from_status(lm.status.energy.used).awaited.items():
        told = settled(awaited, source, found[source], NOW + case.ahead, 1e5)
        rest = settled(told.rest, source, None, NOW + case.ahead + 1e6, 1e5, ended=True)
        refused += told.refused
        for joules_of in (told.joules, rest.joules):
            for by_source in joules_of.values():
                for name, value in by_source.items():
                    counts[name] = counts.get(name, 0.0) + value
    assert {name: value for name, value in counts.items() if value > 0.01 * MODEL} == pytest.approx(
        dict(case.counts), rel=0.03
    )
    assert refused == case.refused
    (problem,) = {each.asked.problem for each in reader._exporters}
    assert case.problem in problem
    assert bool(case.problem) == bool(problem)
    (count,) = reader.counts()
    assert dict(count.failures) == ({case.reason: 2} if case.reason else {})
