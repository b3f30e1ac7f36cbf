"""Print how much electricity a job has used, what that emitted and cost, how that is known, what its wait has brought,
and what its plans foresaw. Up to the last time that the operator wrote its status."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any, Final

from drivetrain_api.energy import EnergySource
from drivetrain_api.figures import short
from drivetrain_cli import output
from drivetrain_cli import where as which
from drivetrain_cli.cluster import connect
from drivetrain_cli.errors import Exit
from drivetrain_cli.printable import printable_lines
from drivetrain_cli.table import aligned

Json = dict[str, Any]
JOULES_A_KWH: Final = 3.6e6
KNOWN_BY: Final[Mapping[EnergySource, str]] = {
    EnergySource.NVML: "measured: the GPU's own counter",
    EnergySource.NVML_POWER: "measured: the GPU's power each second",
    EnergySource.RAPL: "measured on the node, and shared out by processor time",
    EnergySource.MODEL: "not measured: assumed from processor time",
    EnergySource.DCGM: "measured: the GPU's own counter, by DCGM through Prometheus",
    EnergySource.KEPLER: "measured on the node, and shared out by Kepler, without what it draws when idle",
}

_EXPORTERS: Final[Mapping[str, str]] = {
    EnergySource.DCGM: "the GPUs are",
    EnergySource.KEPLER: "processors and memory are",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain energy`."""
    parser.add_argument("job", help="name of the TrainingJob")
    output.add_argument(parser)
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, also of a job that has failed."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        found = account(await cluster.job(arguments.job))
        if arguments.output:
            print(output.dumped(found, arguments.output))
        else:
            print(printable_lines("\n".join(lines(found))))
        return Exit.OK


def account(job: Json) -> Json:
    """PURE: a job's electricity, for programs: as in its status, less what only the operator needs."""
    meta, status = job["metadata"], job.get("status") or {}
    energy = status.get("energy") or {}
    used = dict(energy.get("used") or {})
    counted = used.pop("counted", None) or {}
    awaited = {source: each.get("workerSeconds", 0.0) for source, each in (counted.get("awaited") or {}).items()}
    if awaited := {source: seconds for source, seconds in sorted(awaited.items()) if seconds}:
        used["awaited"] = awaited
    planned: Json = {name: energy[name] for name in ("first", "foreseen") if energy.get(name)}
    if planned:
        planned["measure"] = ((job.get("spec") or {}).get("energy") or {}).get("measure", "average")
    if planned and status.get("completionTime"):
        planned["ended"] = status["completionTime"]
    joules = used.get("joules") or {}
    kwh = sum(value for by_source in joules.values() for value in by_source.values()) / JOULES_A_KWH
    who = {"job": meta["name"], "namespace": meta.get("namespace", "")}
    return {**who, **used, "kilowattHours": round(kwh, 6)} | ({"planned": planned} if planned else {})


def lines(found: Json) -> list[str]:
    """PURE: for people."""
    if not found.get("joules"):
        nothing = f"Nobody has told of electricity of {found['job']}."
        return [*(_awaited(found) or [nothing]), *_planned(found)]
    rows = [["COMPONENT", "KWH", "SHARE", "HOW IT IS KNOWN"]]
    for component, source, kwh in by_component(found):
        share = f"{100 * kwh / found['kilowattHours']:.1f}%" if found["kilowattHours"] else "-"
        rows.append([component, short(kwh), share, KNOWN_BY.get(source, source)])
    first, *more = sentences(found)
    return [first, *aligned(rows).splitlines(), *more, *_planned(found)]


def by_component(found: Json) -> list[tuple[str, EnergySource, float]]:
    """PURE: component, source and kilowatt-hours, the most first."""
    parts = [(c, s, value / JOULES_A_KWH) for c, of in (found.get("joules") or {}).items() for s, value in of.items()]
    return sorted(parts, key=lambda part: -part[2])


def sentences(found: Json) -> list[str]:
    """PURE: what it used, emitted, cost and avoided, of a job of which anything was told."""
    text = [f"{found['job']} has used {short(found['kilowattHours'])} kWh{_watts(found)}."]
    text += _carbon(found)
    if (spent := found.get("spent")) is not None:
        text.append(f"It cost {short(spent['amount'])} {spent['currency']}.")
    text += _avoided(found)
    text += _awaited(found)
    if found.get("refused"):
        text.append(f"{found['refused']} readings could not be, and were cut or left out.")
    return text


def _watts(found: Json) -> str:
    seconds = found.get("seconds") or 0
    if found.get("awaited"):
        return ""
    return f", {short(found['kilowattHours'] * JOULES_A_KWH / seconds)} W on average" if seconds else ""


def _awaited(found: Json) -> list[str]:
    """What is not counted yet."""
    return [
        f"Of {seconds / 3600:.2g} hours of its workers {_EXPORTERS[source]} not counted yet: Prometheus is waited for."
        for source, seconds in (found.get("awaited") or {}).items()
        if source in _EXPORTERS
    ]


def _carbon(found: Json) -> list[str]:
    text = []
    for measure, each in sorted((found.get("carbon") or {}).items()):
        source = f", {each['source']}: {each['quality']}" if each.get("source") else ""
        text.append(f"Generating it emitted {short(each['grams'])} g CO2e, by the {measure} intensity{source}.")
    if (grams := found.get("embodiedGrams")) is not None:
        text.append(f"Making the nodes emitted {short(grams)} g CO2e for the time that it had them.")
    if not found.get("carbon"):
        text.append(f"What that emitted is not known: {found.get('why') or 'no intensity was known meanwhile'}.")
    elif found.get("why"):
        text.append(f"What it emits now is not known: {found['why']}.")
    return text


def _avoided(found: Json) -> list[str]:
    avoided = found.get("avoided")
    if avoided is None:
        return []
    grams = avoided["grams"]
    word = "less" if grams >= 0 else "more"
    return [
        f"That is {short(abs(grams))} g {word} than the same power would have emitted, had it been drawn from its "
        f"creation on without a pause ({avoided['measure']} intensity)."
    ]


def _planned(found: Json) -> list[str]:
    """Plan against actual, in all of the job."""
    planned = found.get("planned") or {}
    first = planned.get("first")
    if first is None:
        return []
    now, ended = planned.get("foreseen") or first, planned.get("ended")
    carbon, measure = found.get("carbon") or {}, str(planned.get("measure"))
    used = {
        "kwh": found["kilowattHours"],
        "grams": carbon.get(measure, {}).get("grams"),
        "cost": (found.get("spent") or {}).get("amount"),
        "finish": ended,
    }
    rows = [
        ["", "FIRST PLAN", "FORESEEN NOW", "SO FAR"] if not ended else ["", "FIRST PLAN", "LAST PLAN", "IN THE END"]
    ]
    for name, of in (("kWh", "kwh"), ("g CO2e", "grams"), ("cost", "cost")):
        values = [each.get(of) if of != "grams" or _alike(each, measure) else None for each in (first, now, used)]
        if any(value is not None for value in values[:2]):
            rows.append([name, *(short(value) if value is not None else "-" for value in values)])
    rows.append(["done", *(each.get("finish") or "-" for each in (first, now, used))])
    head = f"What plans foresaw of all of it; the first was made at {first['made']}:"
    return [head, *aligned(rows).splitlines(), *_other_grams(first, measure)]


def _alike(each: Json, measure: str) -> bool:
    """What says nothing was written by an older release."""
    return each.get("measure") in (None, measure)


def _other_grams(first: Json, measure: str) -> list[str]:
    if _alike(first, measure) or first.get("grams") is None:
        return []
    return [
        f"Its first plan was made by the {first['measure']} intensity, and spec.energy.measure is {measure} now: "
        "its grams are left out, as they are not of the same kind."
    ]
