"""PURE: a picture of numbers over time, as SVG without any script.

The drawing is stretched to the width that there is, and its strokes are not; words stand beside it as HTML, so that
they are as large on a phone as on a wall. It says with `<title>` and `<desc>` what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from drivetrain_cli.report.axis import Axis, elapsed, number
from drivetrain_cli.report.markup import Html, Ids, join, tag

WIDE: Final = 1000.0
HIGH: Final = 200.0
COLOURS: Final = 6
"""Of lines; more begin again with the first, dashed."""


@dataclass(frozen=True, slots=True)
class Point:
    """One piece of time."""

    at: float
    low: float
    mean: float
    high: float


Run = Sequence[Point]
"""Points with nothing missing between them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One number; what is missing is between two runs."""

    name: str
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Span:
    """A time of which something is to be said: `unknown`, `suspended`."""

    begin: float
    end: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment."""

    at: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """All that one picture shows."""

    title: str
    text: str
    """In words, for who does not see it."""
    x: Axis
    y: Axis
    lines: Sequence[Line]
    spans: Sequence[Span] = ()
    marks: Sequence[Mark] = field(default_factory=tuple)
    stepped: bool = False
    """The number holds until it changes; else it goes from one to the next."""
    named: bool = False
    """Each mark says what it is of; else they are told of elsewhere."""


def drawn(plot: Plot, ids: Ids) -> Html:
    """The picture with its axes."""
    title, text = ids.new("title"), ids.new("text")
    picture = tag(
        "svg",
        tag("title", plot.title, id=title),
        tag("desc", plot.text, id=text),
        *(_span(each, plot) for each in plot.spans),
        *(_grid(each, plot) for each in plot.y.ticks),
        *_marks(plot),
        *(shape for number, line in enumerate(plot.lines) for shape in _line(line, number, plot)),
        role="img",
        aria_labelledby=f"{title} {text}",
        viewBox=f"0 0 {WIDE:g} {HIGH:g}",
        preserveAspectRatio="none",
        focusable="false",
    )
    ys = (_label("y", number(each), bottom=plot.y.share(each)) for each in plot.y.ticks)
    xs = (_label("x", elapsed(each), left=plot.x.share(each)) for each in plot.x.ticks)
    return tag(
        "div",
        tag("div", *ys, class_="ys", aria_hidden="true"),
        tag("div", picture, class_="canvas"),
        tag("div", *xs, class_="xs", aria_hidden="true"),
        class_="plot",
    )


def legend(plot: Plot) -> Html | None:
    """Which line is which; None where there is nothing to tell apart."""
    entries = []
    if len(plot.lines) > 1:
        entries = [_entry(f"line c{n % COLOURS}", each.name) for n, each in enumerate(plot.lines)]
    elif any(each.low != each.high for line in plot.lines for run in line.runs for each in run) and not plot.stepped:
        entries = [_entry("line c0", "mean"), _entry("band c0", "lowest to highest")]
    return tag("ul", *entries, class_="legend") if entries else None


def shades(spans: Sequence[Span], marks: Sequence[Mark]) -> Html | None:
    """What shades and upright lines mean, in all pictures that have them."""
    entries = [_entry(f"span {kind}", text) for kind, text in {each.kind: each.text for each in spans}.items()]
    entries += [_entry(f"mark {kind}", kind) for kind in dict.fromkeys(each.kind for each in marks)]
    return tag("ul", *entries, class_="legend all") if entries else None


def _entry(classes: str, text: str) -> Html:
    return tag("li", tag("span", class_=f"key {classes}", aria_hidden="true"), " ", text)


def _label(kind: str, text: str, **where: float) -> Html:
    style = ";".join(f"{side}:{100 * share:.2f}%" for side, share in where.items())
    ends = {"x": {0.0: " first", 1.0: " last"}, "y": {}}[kind].get(round(next(iter(where.values())), 2), "")
    return tag("span", text, class_=f"{kind}{ends}", style=style)


def _at(plot: Plot, at: float) -> str:
    return f"{WIDE * plot.x.share(at):.1f}".removesuffix(".0")


def _up(plot: Plot, value: float) -> str:
    return f"{HIGH * (1 - plot.y.share(value)):.1f}".removesuffix(".0")


def _grid(tick: float, plot: Plot) -> Html:
    up = _up(plot, tick)
    return tag("path", d=f"M0 {up}H{WIDE:g}", class_="grid")


def _span(span: Span, plot: Plot) -> Html:
    begin, end = plot.x.share(span.begin) * WIDE, plot.x.share(span.end) * WIDE
    width = max(end - begin, 1.5)
    return tag(
        "rect",
        tag("title", f"{span.text}: {elapsed(span.begin)} to {elapsed(span.end)}"),
        x=f"{begin:.1f}",
        y=0,
        width=f"{width:.1f}",
        height=f"{HIGH:g}",
        class_=f"span {span.kind}",
    )


def _marks(plot: Plot) -> list[Html]:
    if plot.named:
        return [
            tag(
                "path",
                tag("title", f"{elapsed(each.at)}: {each.text[:80]}"),
                d=f"M{_at(plot, each.at)} 0V{HIGH:g}",
                class_=f"mark {each.kind}",
            )
            for each in plot.marks
        ]
    kinds = dict.fromkeys(each.kind for each in plot.marks)
    ways = {kind: [_at(plot, each.at) for each in plot.marks if each.kind == kind] for kind in kinds}
    return [
        tag("path", d="".join(f"M{at} 0V{HIGH:g}" for at in dict.fromkeys(found)), class_=f"mark {kind}")
        for kind, found in ways.items()
    ]


def _line(line: Line, number: int, plot: Plot) -> list[Html]:
    band, path = [], []
    for run in line.runs:
        if not run:
            continue
        points = [(_at(plot, each.at), each) for each in run]
        if any(each.low != each.high for each in run):
            band.append(_stepped_band(points, plot) if plot.stepped else _band(points, plot))
        (first, begin), *rest = points
        path.append(f"M{first} {_up(plot, begin.mean)}")
        if not rest:
            path.append("h0")  # with round ends: a dot
        elif plot.stepped:
            path.append("".join(f"H{at}V{_up(plot, each.mean)}" for at, each in rest))
        else:
            path.append("L" + "L".join(f"{at} {_up(plot, each.mean)}" for at, each in rest))
    classes = f"c{number % COLOURS}" + (" dashed" if number >= COLOURS else "")
    shapes = [tag("path", d="".join(band), class_=f"band {classes}")] if band else []
    return [*shapes, tag("path", d="".join(path), class_=f"line {classes}")] if path else shapes


def _band(points: Sequence[tuple[str, Point]], plot: Plot) -> str:
    there = "L".join(f"{at} {_up(plot, each.high)}" for at, each in points)
    back = "L".join(f"{at} {_up(plot, each.low)}" for at, each in reversed(points))
    return f"M{there}L{back}Z"


def _stepped_band(points: Sequence[tuple[str, Point]], plot: Plot) -> str:
    """There along the highest and back along the lowest; both change where a piece of time begins."""
    (first, begin), *rest = points
    there = "".join(f"H{at}V{_up(plot, each.high)}" for at, each in rest)
    turn = f"V{_up(plot, points[-1][1].low)}"
    back = "".join(
        f"H{at}V{_up(plot, before.low)}"
        for (at, _), (_, before) in zip(reversed(points), list(reversed(points))[1:], strict=False)
    )
    return f"M{first} {_up(plot, begin.high)}{there}{turn}{back}H{first}Z"


def bars(title: str, text: str, rows: Sequence[Sequence[tuple[str, float, str]]], most: float, ids: Ids) -> list[Html]:
    """Of each row a bar: pieces of (class, size, what it is), one after the other. `most` takes all the room."""
    found = []
    for row in rows:
        at, pieces = 0.0, []
        for kind, amount, what in row:
            width = WIDE * amount / most if most > 0 else 0.0
            if width > 0:
                pieces.append(
                    tag(
                        "rect",
                        tag("title", what),
                        x=f"{at:.1f}",
                        y=0,
                        width=f"{max(width, 0.5):.1f}",
                        height=10,
                        class_=f"piece {kind}",
                    )
                )
            at += width
        names = ids.new("title"), ids.new("text")
        found.append(
            tag(
                "svg",
                tag("title", title, id=names[0]),
                tag("desc", f"{text} {'; '.join(what for *_, what in row)}", id=names[1]),
                *pieces,
                role="img",
                aria_labelledby=" ".join(names),
                viewBox=f"0 0 {WIDE:g} 10",
                preserveAspectRatio="none",
                focusable="false",
                class_="bar",
            )
        )
    return found


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: frozenset[int] = frozenset()
) -> Html:
    """Rows with a heading each; `numbers`: columns that are aligned right. It scrolls by itself, by keys, too."""
    top = tag("tr", *(tag("th", each, scope="col", class_=_side(n, numbers)) for n, each in enumerate(head)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", each, class_=_side(n, numbers)) for n, each in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _side(column: int, numbers: frozenset[int]) -> str | None:
    return "number" if column in numbers else None


def folded(summary: str, *inside: object) -> Html:
    """To be opened by who wants it: by keys, too."""
    return tag("details", tag("summary", summary), join(inside))
