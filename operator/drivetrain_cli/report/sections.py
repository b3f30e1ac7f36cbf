"""PURE: the parts of a page, each of which is left out where there is nothing to say."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any, Final

from drivetrain_api.goodput import Category
from drivetrain_api.history import LOSS, RANKS, RATE, STEP, History, Kind, own_name
from drivetrain_api.recovery import RECOVERY_PHASES
from drivetrain_cli.life.goodput import MEANS, split
from drivetrain_cli.report import axis
from drivetrain_cli.report.axis import elapsed, number, size
from drivetrain_cli.report.markup import Html, Ids, tag
from drivetrain_cli.report.plot import Line, Plot, bars, drawn, folded, legend, shades, table
from drivetrain_cli.report.told import GAP_SECONDS, Told, cost, line, marks, missing, spans

Json = dict[str, Any]
ROWS: Final = 20
"""Of the table beside a curve."""
SHOWN_RECOVERIES: Final = 12
FIELDS: Final = 120
DEPTH: Final = 24
VALUE: Final = 240
"""Characters of a field of the configuration."""
TAIL: Final = 1200
"""Characters of what failed."""
_TITLES: Final = {LOSS: "Loss", RATE: "Samples a second", STEP: "Step"}
_PHASES: Final = {"detected": "detected", "formed": "formed", "copied": "state copied", "first_step": "first step"}


def curves(told: Told, ids: Ids) -> list[Html]:
    """Each number over time."""
    history = told.history
    if history is None or not history.buckets:
        return [tag("p", told.missing or "No number was told yet.")]
    gone = missing(told)
    found = [tag("p", gone)] if gone else []
    key = shades(spans(told), marks(history))
    found += [key] if key is not None else []
    names: list[str] = [each for each in (LOSS, RATE) if each in history.series]
    names += [each for each in history.series if own_name(each) is not None]
    names += [each for each in (STEP,) if each in history.series]
    return [*found, tag("div", *(_curve(told, history, each, ids) for each in names), class_="grid2")]


def _curve(told: Told, history: History, series: str, ids: Ids) -> Html:
    title = _TITLES.get(series) or own_name(series) or series
    seen = line(history, series, title)
    points = [point for run in seen.runs for point in run]
    y = axis.of_values([value for each in points for value in (each.low, each.high)], zero=series in (STEP, RATE))
    plot = Plot(title, _in_words(title, seen), told.axis(), y, [seen], spans(told), marks(history))
    rows: list[list[object]] = []
    coarse = history.coarser(ROWS)
    for n in sorted(coarse.buckets):
        value = coarse.buckets[n].values.get(series)
        cells = ["not known"] * 3 if value is None else [number(each) for each in value]
        rows.append([elapsed(n * coarse.width), *cells])
    head = ["From", "Lowest", "Mean", "Highest"]
    numbers = table(
        f"{title}, since creation, each row {elapsed(coarse.width)}", head, rows, numbers=frozenset({1, 2, 3})
    )
    scale = tag("span", " (logarithmic)", class_="soft") if y.logarithmic else None
    return tag(
        "figure", tag("h3", title, scale), drawn(plot, ids), legend(plot), folded(f"{title} as numbers", numbers)
    )


def _in_words(title: str, seen: Line) -> str:
    points = [point for run in seen.runs for point in run]
    if not points:
        return f"{title}: no number is known."
    gaps = len(seen.runs) - 1
    return (
        f"{title} over time: first {number(points[0].mean)}, last {number(points[-1].mean)}, lowest "
        f"{number(min(each.low for each in points))}, highest {number(max(each.high for each in points))}, until "
        f"{elapsed(points[-1].at)} after creation" + (f"; with {gaps} gaps." if gaps else ".")
    )


def happenings(told: Told, ids: Ids) -> list[Html]:
    """Who took part, what went wrong, and what that cost."""
    history = told.history
    if history is None or not (history.buckets or history.happenings):
        return [tag("p", told.missing or "Nothing was told yet.")]
    seen = line(history, RANKS, "ranks that train")
    most = int(max((each.high for run in seen.runs for each in run), default=1))
    text = (
        f"How many ranks train over time: at most {most}. "
        + "; ".join(f"at {elapsed(each.at)} {each.text}" for each in history.happenings if each.kind is not Kind.RANKS)
    )[:900]
    plot = Plot(
        "Ranks that train",
        text,
        told.axis(),
        axis.whole(most),
        [seen],
        spans(told),
        marks(history),
        stepped=True,
        named=True,
    )
    picture = tag("figure", tag("h3", plot.title), drawn(plot, ids), shades(plot.spans, plot.marks))
    rows = [
        [elapsed(each.at), str(each.kind).replace("-", " "), each.text, cost(each, history) or "–"]
        for each in history.happenings
    ]
    found = [picture]
    if rows:
        found.append(tag("div", table("What happened, since creation", ["At", "What", "How", "What it cost"], rows)))
    if history.forgotten:
        found.append(tag("p", f"{history.forgotten} earlier ones are not kept.", class_="soft"))
    return found


def recoveries(told: Told, ids: Ids) -> list[Html]:
    """How long it took until training went on, by phase and cause."""
    history = told.history
    known = [
        each
        for each in (history.happenings if history is not None else [])
        if each.kind is Kind.RECOVERY and "seconds" in each.numbers
    ]
    if not known:
        return []
    shown = known[-SHOWN_RECOVERIES:]
    most = max(each.numbers["seconds"] for each in shown)
    rows = [
        [
            (phase, each.numbers.get(phase, 0.0), f"{_PHASES[phase]} {_seconds(each.numbers.get(phase, 0.0))}")
            for phase in RECOVERY_PHASES
        ]
        for each in shown
    ]
    pictures = []
    for each, row in zip(shown, rows, strict=True):
        what = f"Recovery at {elapsed(each.at)}: {_cause(each.text)}, {_seconds(each.numbers['seconds'])}"
        pictures.append(tag("figure", tag("figcaption", what, class_="soft"), *bars(what, what, [row], most, ids)))
    key = tag("ul", *(tag("li", _swatch(phase), name) for phase, name in _PHASES.items()), class_="legend")
    by_cause: dict[str, list[dict[str, float]]] = defaultdict(list)
    for each in known:
        by_cause[_cause(each.text)].append(dict(each.numbers))
    cells = [
        [
            cause,
            str(len(found)),
            _seconds(sum(each["seconds"] for each in found)),
            *(_seconds(median(each.get(phase, 0.0) for each in found)) for phase in RECOVERY_PHASES),
        ]
        for cause, found in sorted(by_cause.items())
    ]
    head = ["Cause", "Times", "In all", *(f"{_PHASES[phase]}, median" for phase in RECOVERY_PHASES)]
    by = table("Recoveries by cause, in phases", head, cells, numbers=frozenset(range(1, len(head))))
    return [*pictures, key, by]


def _cause(text: str) -> str:
    return text.rpartition("(")[2].rstrip(")") if text.endswith(")") else "unknown"


def time(told: Told, ids: Ids) -> list[Html]:
    """Goodput."""
    found = split(told.job, told.now)
    counted = found["countedSeconds"]
    if not counted:
        return []
    shares = sorted(found["seconds"].items(), key=lambda item: -item[1])
    made = found["goodput"]
    said = f"Goodput {100 * made:.1f} %" if made is not None else "Nobody has told of a step"
    sentence = f"{said} of {elapsed(counted)} that are counted since creation."
    row = [(name, seconds, f"{name} {elapsed(seconds)} ({100 * seconds / counted:.1f} %)") for name, seconds in shares]
    rows = [
        [
            tag("span", _swatch(name), name, class_="named"),
            elapsed(seconds),
            f"{100 * seconds / counted:.1f} %",
            MEANS[Category(name)],
        ]
        for name, seconds in shares
    ]
    numbers = table(
        "What the time was spent on", ["Category", "Time", "Share", "What it is"], rows, numbers=frozenset({1, 2})
    )
    return [tag("p", sentence), tag("figure", *bars("Time by category", sentence, [row], counted, ids)), numbers]


def _swatch(kind: str) -> Html:
    shape = tag("rect", width=10, height=10, class_=f"piece {kind}")
    return tag("svg", tag("title", kind), shape, viewBox="0 0 10 10", class_="swatch", role="img", focusable="false")


def holdup(told: Told, ids: Ids) -> list[Html]:
    """Who holds the others up in every step, where status says so: a step as a bar, with the part that is theirs."""
    known = told.status.get("holdUp")
    if not known:
        return []
    share, late = float(known.get("share") or 0.0), ", ".join(map(str, known.get("ranks") or [known.get("rank")]))
    seconds = float(known.get("slowerBySeconds") or 0.0)
    what = f"waits for rank {late}: {_seconds(seconds)} of each step ({100 * share:.0f} %)"
    row = [("productive", 1.0 - share, f"without it: {100 * (1 - share):.0f} % of a step"), ("recovering", share, what)]
    rows = [
        ["Rank", late],
        ["Takes longer in", known.get("stage") or "no single stage"],
        ["Longer by", f"{_seconds(seconds)} in each step"],
        ["Pod", known.get("pod") or "not known"],
        ["Node", known.get("node") or "not known"],
        ["Since", known.get("since") or "not known"],
    ]
    return [
        tag("p", known.get("message") or what),
        tag("figure", *bars("A step", "What a step is spent on:", [row], 1.0, ids)),
        table("Who holds the others up, as status says", ["What", "Which"], rows),
    ]


def traffic(told: Told) -> list[Html]:
    """What ranks exchange, and what is in storage."""
    progress = told.status.get("progress") or {}
    rows: list[list[object]] = []
    sent = progress.get("communication") or {}
    if sent:
        rows.append(["Gradients", f"{sent.get('method', '')} {sent.get('reason', '')}".strip()])
    if sent.get("bytesPerStep") is not None:
        rows.append(["A step brings to a rank", size(sent["bytesPerStep"])])
    if progress.get("durableStep") is not None:
        rows.append(["Can be gone back to", f"step {progress['durableStep']}"])
    stored = progress.get("snapshots") or {}
    for key, name, shown in (
        ("durableAgeSeconds", "Since then have passed", elapsed),
        ("bytesWritten", "Written by the worker with rank 0", size),
        ("backlogBytes", "Waits to be written there", size),
        ("droppedSteps", "Steps without room", number),
        ("restoredStep", "Went on from step", number),
        ("restoredSeconds", "Which took", elapsed),
    ):
        if stored.get(key) is not None:
            rows.append([name, shown(float(stored[key]))])
    return [table("Bytes and snapshots, as status says", ["What", "How much"], rows)] if rows else []


def failures(told: Told) -> list[Html]:
    """What failed last, with the end of what it printed."""
    found = []
    for each in told.status.get("failures") or []:
        rank = f"rank {each['rank']} in " if each.get("rank") is not None else ""
        title = f"{each.get('time', '')} {each.get('reason', '')}: {rank}{each.get('pod', '')}"
        tail = str(each.get("logTail") or "")[-TAIL:]
        found.append(folded(title, tag("pre", tail, tabindex=0)) if tail else tag("p", title))
    return found


def settings(told: Told) -> list[Html]:
    """What the job was asked to be. Values of environment variables stay out: pages are passed on."""
    return [_pairs("spec", told.job.get("spec") or {})]


def _pairs(caption: str, known: Json) -> Html:
    rows = [[path, value] for path, value in _flat(known, "")][:FIELDS]
    return table(caption, ["Field", "Value"], rows)


def _flat(value: Any, path: str, depth: int = 0) -> list[tuple[str, str]]:
    """Fields with a value, by path."""
    if depth > DEPTH:
        return [(path, "…")]
    if isinstance(value, dict) and value:
        below = f"{path}." if path else ""
        return [each for key, inner in value.items() for each in _flat(inner, f"{below}{key}", depth + 1)]
    if isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        return [each for n, inner in enumerate(value) for each in _flat(inner, f"{path}[{n}]", depth + 1)]
    if ".env[" in path and path.endswith("].value"):
        return [(path, "(not shown)")]
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(path, shown if len(shown) <= VALUE else f"{shown[:VALUE]}…")]


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else elapsed(value)


__all__ = ["GAP_SECONDS", "curves", "failures", "happenings", "holdup", "recoveries", "settings", "time", "traffic"]
