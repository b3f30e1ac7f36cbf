"""What do people see? The job's report, and each panel's queries drawn with the same pictures, one page a dashboard.

Grafana itself is not here: its panels are drawn as the report draws. Chromium, where it is installed, photographs all
pages, light and dark, wide and narrow.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Final

from drivetrain_cli.report import axis
from drivetrain_cli.report.axis import number
from drivetrain_cli.report.markup import Html, Ids, tag
from drivetrain_cli.report.page import document
from drivetrain_cli.report.plot import Line, Plot, Point, drawn, folded, legend, table
from observe.prometheus import Prometheus

Json = dict[str, Any]
STEP: Final = 2.0
LINES: Final = 12
_LABEL: Final = re.compile(r"{{\s*(\w+)\s*}}")
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_SECONDS: Final = 60.0
VIEWS: Final = tuple((width, dark) for width in (1400, 400) for dark in (False, True))


async def board(prometheus: Prometheus, file: Path, asked: dict[str, str], since: float, until: float) -> str:
    """A dashboard as a page. `asked`: each query as Prometheus is asked it."""
    known = json.loads(file.read_text())
    ids = Ids()
    parts: list[tuple[Html | None, list[Html]]] = [(None, [])]
    for panel in known["panels"]:
        if panel["type"] == "row":
            parts.append((tag("h2", panel["title"]), []))
            continue
        lines = [
            line
            for target in panel.get("targets", [])
            for line in await _lines(prometheus, asked[target["expr"]], target, since, until)
        ]
        parts[-1][1].append(_panel(panel, lines[:LINES], until - since, ids))
    rows = (part for title, panels in parts for part in (title, tag("div", *panels, class_="grid2")) if panels)
    return document(known["title"], [tag("main", tag("h1", known["title"]), *rows)])


async def _lines(prometheus: Prometheus, query: str, target: Json, since: float, until: float) -> list[Line]:
    found = await prometheus.ask(
        "query_range", query=query, start=f"{since:.0f}", end=f"{until:.0f}", step=f"{STEP:g}s"
    )
    lines = []
    for series in found:
        labels = series["metric"]
        name = _LABEL.sub(lambda part, of=labels: str(of.get(part[1], "")), target.get("legendFormat") or "value")
        runs: list[list[Point]] = []
        last = 0.0
        for at, text in series["values"]:
            value = float(text)
            if value != value:  # nothing was counted, of which this is a part
                continue
            if at - last > 1.5 * STEP:
                runs.append([])
            runs[-1].append(Point(at - since, value, value, value))
            last = at
        lines.append(Line(name, runs))
    return lines


def _panel(panel: Json, lines: list[Line], seconds: float, ids: Ids) -> Html:
    title, what = panel["title"], panel.get("description", "")
    points = [point for line in lines for run in line.runs for point in run]
    if not points:
        return tag("figure", tag("h3", title), tag("p", what, class_="soft"), tag("p", "No data."))
    if panel["type"] != "timeseries":
        lines = [line for line in lines if line.runs and line.runs[-1][-1].at >= seconds - 3 * STEP]
    last = [[line.name, number(line.runs[-1][-1].mean) if line.runs else "–"] for line in lines]
    values = table(f"{title}: last values", ["Series", "Last"], last, numbers=frozenset({1}))
    if panel["type"] != "timeseries":
        return tag("figure", tag("h3", title), tag("p", what, class_="soft"), values)
    y = axis.of_values([point.mean for point in points], zero=min(point.mean for point in points) >= 0)
    words = f"{what} " + "; ".join(f"{name} last {value}" for name, value in last)
    plot = Plot(title, words, axis.of_time(seconds), y, lines)
    return tag(
        "figure",
        tag("h3", title),
        tag("p", what, class_="soft"),
        drawn(plot, ids),
        legend(plot),
        folded(f"{title} as numbers", values),
    )


def browser() -> str | None:
    """The one that takes pictures; None: there is none."""
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


async def photographed(program: str, page: Path, folder: Path) -> list[Path]:
    """Pictures of a page. Raises OSError if the browser takes none."""
    found = []
    for width, dark in VIEWS:
        picture = folder / f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"
        with tempfile.TemporaryDirectory(prefix="drivetrain-observe-") as profile:
            process = await asyncio.create_subprocess_exec(
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--user-data-dir={profile}",
                f"--window-size={width},{6000 if width < 1000 else 4000}",
                f"--screenshot={picture}",
                page.resolve().as_uri(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(_SECONDS):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if not picture.exists():
            raise OSError(f"{program} took no picture of {page}")
        found.append(picture)
    return found
