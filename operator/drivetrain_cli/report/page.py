"""PURE: the page of a job. It asks for nothing over the network and holds no script: it can be read for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from drivetrain_cli.reasons import headline
from drivetrain_cli.report import sections
from drivetrain_cli.report.axis import elapsed, number
from drivetrain_cli.report.electricity import electricity
from drivetrain_cli.report.markup import Html, Ids, join, tag
from drivetrain_cli.report.style import STYLE
from drivetrain_cli.report.told import Told

Json = dict[str, Any]
_LOOK: Final = {"Running": "good", "Succeeded": "good", "Failed": "bad"}
_PARTS: Final[tuple[tuple[str, str, Callable[[Told, Ids], list[Html]]], ...]] = (
    ("curves", "Curves", sections.curves),
    ("members", "Members and what happened", sections.happenings),
    ("recoveries", "Recoveries", sections.recoveries),
    ("time", "Time", sections.time),
    ("energy", "Electricity", electricity),
    ("stragglers", "Stragglers", sections.holdup),
    ("bytes", "Bytes and snapshots", lambda told, _: sections.traffic(told)),
    ("failures", "Last failures", lambda told, _: sections.failures(told)),
    ("configuration", "Configuration", lambda told, _: sections.settings(told)),
)
_FRAME: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(told: Told) -> str:
    """The whole of it."""
    ids = Ids()
    meta = told.job["metadata"]
    parts = [(name, title, found) for name, title, make in _PARTS if (found := make(told, ids))]
    links = tag("ul", *(tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in parts))
    body = (
        tag("a", "Skip to the curves", href="#main", class_="skip"),
        tag("header", _title(told), tag("p", _sentence(told)), _facts(told)),
        tag("nav", links, aria_label="Parts of this page"),
        tag("main", *(_part(name, title, found) for name, title, found in parts), id="main"),
        tag("footer", *_made(told)),
    )
    return document(f"{meta.get('namespace', '')}/{meta['name']}: Drivetrain", body)


def document(title: str, body: object) -> str:
    """A page around a body. Its policy lets a browser fetch and run nothing, should markup get in all the same."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_FRAME),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', join(body)), lang='en')}\n"


def _part(name: str, title: str, found: list[Html]) -> Html:
    return tag("section", tag("h2", title, id=f"{name}-title"), *found, id=name, aria_labelledby=f"{name}-title")


def _title(told: Told) -> Html:
    meta, phase = told.job["metadata"], told.status.get("phase") or "New"
    badge = tag("span", phase, class_=f"phase {_LOOK.get(phase, 'warn')}")
    return tag("h1", f"{meta.get('namespace', '')}/{meta['name']} ", badge)


def _sentence(told: Told) -> str:
    if not told.status.get("phase"):
        return "No operator has looked at it yet."
    message = str(told.status.get("message") or "").splitlines()[:1]
    return " ".join([headline(told.job).rstrip(".") + ".", *message])


def _facts(told: Told) -> Html:
    status = told.status
    progress, workers = status.get("progress") or {}, status.get("workers") or {}
    steps = f" of {progress['steps']}" if progress.get("steps") else ""
    facts = [
        ("Step", f"{progress['step']}{steps}" if progress.get("step") is not None else None),
        ("About left", progress.get("eta") if status.get("phase") == "Running" else None),
        ("Loss", _told(progress.get("loss"))),
        ("Samples a second", _told(progress.get("samplesPerSecond"))),
        ("Goodput", (status.get("goodput") or {}).get("summary")),
        ("Workers ready", workers.get("summary")),
        ("Recoveries", status.get("recoveries", 0)),
        ("Restarts charged", (status.get("budget") or {}).get("summary") or status.get("restarts", 0)),
        ("Age when it ended" if told.over else "Age", elapsed(told.seconds)),
    ]
    shown = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value not in (None, ""))
    return tag("dl", *shown, class_="facts")


def _told(value: float | None) -> str | None:
    return number(value) if value is not None else None


def _made(told: Told) -> list[Html]:
    when = told.now.strftime("%Y-%m-%d %H:%M:%S UTC")
    sentences = [f"Made at {when}, by drivetrain report. Times are since the job's creation, "]
    sentences[0] += f"{told.job['metadata']['creationTimestamp']}."
    if told.history is not None:
        sentences.append(
            f"Numbers are what its coordinator told about once a second, in pieces of {elapsed(told.history.width)} "
            f"with the lowest, the mean and the highest; known until {elapsed(told.history.until)}."
        )
    return [tag("p", each) for each in sentences]
