"""What is on a job's page? Can everybody read it, and can nobody write into it but us?"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api import history as histories
from drivetrain_api.goodput import Category
from drivetrain_api.history import LOSS, MAX_HAPPENINGS, MAX_TEXT, RANKS, RATE, STEP, Happening, History, Kind, own
from drivetrain_cli.main import main
from drivetrain_cli.report import axis
from drivetrain_cli.report.axis import Axis, elapsed, number, size
from drivetrain_cli.report.markup import Html, tag, text
from drivetrain_cli.report.page import page
from drivetrain_cli.report.style import STYLE
from drivetrain_cli.report.told import Told, line, missing, spans
from drivetrain_operator.render import names
from harness.html import Element, objections, parsed
from harness.served import Served, served
from unit.api.cases import job as a_spec

Json = dict[str, Any]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
EVIL = "</title></svg><script>alert(1)</script><img src=x onerror=alert(2)>\"' &"


def stamp(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def a_history(until: int = 600, **more: float) -> History:
    """A sample each second from 10 s on; nothing was heard from 100 s to 150 s."""
    history = History()
    for at in range(10, until):
        if not 100 <= at < 150:
            history.add(at, {STEP: at, RANKS: 3, LOSS: 5.0 / at, RATE: 100.0 + at % 7, own("lr"): 0.1} | more)
    history.note(Happening(10.0, Kind.PHASE, "Running"))
    history.note(Happening(300.0, Kind.FAILURE, "RankFailed: rank 1 in lm-1-0", {"counted": 1.0}))
    recovery = {"seconds": 2.0, "detected": 0.5, "formed": 0.5, "copied": 0.5, "first_step": 0.5}
    history.note(Happening(302.0, Kind.RECOVERY, "training went on 2 s after the loss (process)", recovery))
    return history


def a_job(phase: str = "Running", name: str = "lm", **status: Any) -> Json:
    ended = {"completionTime": stamp(600)} if phase in ("Succeeded", "Failed") else {}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": "u", "creationTimestamp": stamp(0)},
        "spec": {"image": "train", "workers": 3, "training": {"steps": 1000}},
        "status": {
            "phase": phase,
            "startTime": stamp(1),
            "workers": {"ready": 3, "target": 3, "world": 3, "summary": "3/3"},
            "progress": {
                "step": 600,
                "steps": 1000,
                "percent": 60,
                "loss": 0.01,
                "communication": {"method": "int8", "bytesPerStep": 4096},
                "snapshots": {"bytesWritten": 2048},
                "durableStep": 598,
            },
            "goodput": {"ratio": 0.75, "summary": "75%", "seconds": {str(each): 50.0 for each in Category}},
            "recoveries": 1,
            "failures": [
                {"time": stamp(300), "reason": "RankFailed", "pod": "lm-1-0", "rank": 1, "logTail": "E: boom"}
            ],
            **ended,
            **status,
        },
    }


def told(job: Json | None = None, history: History | None = None, **more: Any) -> Told:
    return Told(job or a_job(), BEGAN + timedelta(seconds=610), history, **more)


def by_plan(**used: Any) -> Json:
    """It used 2 kWh, rests until 300 s, and then has four workers."""
    way = {"stepsPerSecond": 1.0, "watts": 900.0}
    foreseen = {"made": stamp(5), "finish": stamp(900), "kwh": 2.5, "grams": 800.0}
    plan = {
        "made": stamp(5),
        "end": stamp(900),
        "deadline": stamp(1000),
        "why": EVIL,
        "slots": [{"start": stamp(5), "workers": 0}, {"start": stamp(300), "workers": 4, "capWatts": 250.0, **way}],
    }
    joules = {"gpu": {"nvml": 5.4e6}, "cpu": {"model": 1.8e6}}
    carbon = {"average": {"grams": 700.0, "kwh": 2.0, "source": EVIL, "quality": "history"}}
    told = {"joules": joules, "seconds": 3600.0, "carbon": carbon} | used
    return a_job(energy={"used": told, "plan": plan, "first": foreseen, "foreseen": foreseen})


CASES: dict[str, Told] = {
    "planned": told(by_plan(), a_history()),
    "only a plan": told(a_job(energy={"plan": by_plan()["status"]["energy"]["plan"]})),
    "running": told(history=a_history()),
    "finished": told(a_job("Succeeded"), a_history()),
    "failed": told(a_job("Failed", message="a rank raised"), a_history()),
    "held up": told(
        a_job(
            holdUp={"rank": 2, "ranks": [2, 3], "stage": "data", "slowerBySeconds": 0.4, "share": 0.3, "message": EVIL}
        ),
        a_history(),
    ),
    "suspended": told(a_job("Suspended"), a_history(400)),
    "no history": told(missing="The job has not started yet."),
    "new": told({"metadata": a_job()["metadata"], "spec": {"image": "x", "workers": 1}}),
    "one sample": told(history=a_history(11)),
    "empty history": told(history=History()),
}


@pytest.mark.parametrize("name", CASES)
def test_everybody_can_read_it_wherever_they_are(name: str) -> None:
    found = page(CASES[name])
    assert objections(parsed(found)) == []
    assert "http://" not in found
    assert "https://" not in found


def test_pictures_have_their_tables() -> None:
    found = parsed(page(CASES["running"]))
    captions = " ".join(each.text for each in found.all("caption"))
    for figure in found.all("h3"):
        assert figure.text.split(" (")[0].lower() in captions.lower() or figure.text == "Ranks that train"
    (loss,) = (each for each in found.all("figure") if any(child.text.startswith("Loss") for child in each.all("h3")))
    (picture,) = loss.all("svg")
    assert re.search(r"first 0\.4773, last 0\.008368, lowest 0\.008347, highest 0\.5", picture_words(picture))
    assert len(list(loss.all("tr"))) > 5


def test_who_holds_the_others_up_is_drawn() -> None:
    found = parsed(page(CASES["held up"]))
    (part,) = (each for each in found.all("section") if each.attributes["id"] == "stragglers")
    assert [each.text for each in part.all("title")][1:] == [
        "without it: 70 % of a step",
        "waits for rank 2, 3: 0.4 s of each step (30 %)",
    ]
    assert "data" in part.text


def test_electricity_and_the_plan_are_drawn() -> None:
    found = parsed(page(CASES["planned"]))
    (part,) = (each for each in found.all("section") if each.attributes["id"] == "energy")
    assert "lm has used 2.00 kWh, 2000 W on average." in part.text
    rows = [[cell.text for cell in row.all("th", "td")] for row in part.all("tr")]
    assert ["gpu", "1.50", "75.0 %", "measured: the GPU's own counter"] in rows
    assert ["g CO2e", "800", "800"] in rows
    assert ["5m", "10m", "4", "250 W", "900 W"] in rows
    words = [each.text for each in part.all("desc")]
    assert words[-1].endswith("from 5s 0, from 5m 4; until 15m after creation.")
    assert not any(each.attributes["id"] == "energy" for each in parsed(page(CASES["running"])).all("section"))


def picture_words(picture: Element) -> str:
    return next(each.text for each in picture.all("desc"))


def test_a_loss_says_what_it_cost() -> None:
    rows = [[cell.text for cell in row.all("th", "td")] for row in parsed(page(CASES["running"])).all("tr")]
    assert ["5m", "failure", "RankFailed: rank 1 in lm-1-0", "2s until all went on, 1 restart of the budget"] in rows
    assert ["process", "1", "2 s", "0.5 s", "0.5 s", "0.5 s", "0.5 s"] in rows


def test_nothing_is_drawn_over_what_is_not_known() -> None:
    history = a_history()
    runs = line(history, LOSS, "loss").runs
    assert len(runs) == 2
    assert runs[0][-1].at < 104 < 148 < runs[1][0].at
    assert [(each.kind, each.begin, each.end) for each in spans(told(a_job("Succeeded"), history))] == [
        ("before", 0.0, 8.0),
        ("unknown", 100.0, 148.0),
    ]
    assert "1m40s to 2m28s" in missing(CASES["running"])


def test_a_rest_is_told_from_a_gap() -> None:
    history = a_history()
    history.note(Happening(100.0, Kind.PHASE, "Suspended"))
    history.note(Happening(148.0, Kind.PHASE, "Running"))
    assert [each.kind for each in spans(told(history=history))] == ["before", "suspended"]
    assert missing(told(history=history)) == ""


@pytest.mark.parametrize(("now", "expect"), [(610, 0), (700, 1)])
def test_what_is_not_written_yet_is_not_missing(now: int, expect: int) -> None:
    late = Told(a_job(), BEGAN + timedelta(seconds=now), a_history())
    assert sum(each.kind == "unknown" for each in spans(late)) == 1 + expect


def evil_history() -> History:
    history = a_history()
    history.add(200.0, {own(EVIL): 1.0})
    history.note(Happening(200.0, Kind.FAILURE, EVIL))
    history.note(Happening(201.0, Kind.RECOVERY, EVIL + f"({EVIL})", {"seconds": 1.0}))
    return history


def everywhere(value: Any) -> Any:
    """The same with every text made evil, keys too, but of what has to be a time or a number."""
    if isinstance(value, dict):
        kept = {key: value[key] for key in ("creationTimestamp", "completionTime", "startTime") if key in value}
        return {key: everywhere(each) for key, each in value.items()} | kept
    if isinstance(value, list):
        return [everywhere(each) for each in value]
    return EVIL if isinstance(value, str) else value


def test_no_text_of_others_becomes_markup() -> None:
    job = everywhere(a_job())
    job["spec"] |= {EVIL: {EVIL: EVIL}, "podTemplate": [{EVIL: [EVIL]}]}
    job["status"] |= {"message": EVIL, "goodput": a_job()["status"]["goodput"]}
    for of in (told(job, evil_history()), told(job, missing=EVIL)):
        found = parsed(page(of))
        assert objections(found) == []
        assert "alert(1)" in found.text


def test_control_characters_do_not_reach_the_page() -> None:
    assert text("a\x00b\x1bc\u202ed\ne") == "a�b�c�d\ne"
    assert tag("p", "<&>", Html("<b>"), id='"') == '<p id="&quot;">&lt;&amp;&gt;<b></p>'


@pytest.mark.parametrize(
    "change",
    [
        {"series": {LOSS: [[1, -5, 100], 50]}},
        {"series": {LOSS: [5e-324, 1], STEP: [5e-324, 0]}},
        {"series": {LOSS: [-1.7e308, 1.7e308], RANKS: [1.7e308, -1.7e308]}},
        {"happenings": [{"at": at, "kind": "recovery", "text": "", "numbers": {"seconds": 2.0**53}} for at in (1, 2)]},
    ],
    ids=["a mean below the lowest", "next to nothing", "huge", "a recovery of ages"],
)
def test_a_history_that_its_owner_has_changed(change: Json) -> None:
    stored = {"version": 1, "width": 1, "at": [0, 1], "heard": [1, 1], "series": {LOSS: [1, 2]}, "happenings": []}
    found = page(told(history=histories.decoded(json.dumps(stored | change))))
    assert objections(parsed(found)) == []


def test_numbers_that_nobody_can_add_up_are_no_history() -> None:
    text = histories.encoded(a_history()).replace('"seconds":2', '"seconds":1.7e308')
    with pytest.raises(histories.HistoryError):
        histories.decoded(text)


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]], ids=["objects", "lists"])
def test_a_configuration_without_a_ground(wrap: Callable[[Any], Any]) -> None:
    """Of a pod template nobody knows the fields."""
    deep: Any = {"b": 1}
    for _ in range(900):
        deep = wrap(deep)
    job = a_job()
    job["spec"] |= {"podTemplate": {"spec": deep}}
    assert objections(parsed(page(told(job)))) == []


def test_values_of_environment_variables_stay_out() -> None:
    job = a_job()
    env = [{"name": "TOKEN", "value": "hunter2"}, {"name": "OTHER", "value": ""}]
    job["spec"]["podTemplate"] = {"spec": {"containers": [{"name": "worker", "env": env}]}}
    found = page(told(job))
    assert "hunter2" not in found
    assert "TOKEN" in found


def test_a_page_has_bounded_size() -> None:
    history = History()
    for at in range(0, 4000, 2):
        history.add(
            at, {STEP: at, RANKS: 3, LOSS: math.sin(at) * 1e-99} | {own(f"n{n}"): math.cos(at) for n in range(9)}
        )
    for at in range(2 * MAX_HAPPENINGS):
        history.note(Happening(at, Kind.FAILURE, "&" * MAX_TEXT, {"counted": 1.0}))
    job = a_job(failures=[{"reason": "RankFailed", "logTail": "x" * 2048}] * 10)
    job["spec"]["podTemplate"] = {f"f{n}": "y" * 1000 for n in range(1000)}
    assert len(page(told(job, history)).encode()) <= 300_000
    assert len(page(CASES["running"]).encode()) < 100_000


def luminance(colour: str) -> float:
    """As WCAG 2 has it."""
    full = "".join(each * 2 for each in colour) if len(colour) == 3 else colour
    parts = [int(full[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("what", "least"),
    [(each, 4.5) for each in ("text", "soft", "link", "good", "bad", "warn")]  # words
    + [(each, 3.0) for each in ("c0", "c1", "c2", "c3", "c4", "c5", "focus")],  # lines
)
def test_everything_can_be_told_from_what_is_behind_it(scheme: int, what: str, least: float) -> None:
    colours = [dict(re.findall(r"--(\w+):#([0-9a-f]+)", block)) for block in re.findall(r":root{([^}]*)}", STYLE)]
    for behind in ("back", "card"):
        one, other = sorted((luminance(colours[scheme][what]), luminance(colours[scheme][behind])))
        assert (other + 0.05) / (one + 0.05) >= least, (what, behind)


@pytest.mark.parametrize(
    ("values", "zero", "expect"),
    [
        ([0.0, 1.0], False, (0.0, 0.25, 0.5, 0.75, 1.0)),
        ([3.0, 3.0], False, None),
        ([0.001, 10.0], False, (0.001, 0.01, 0.1, 1.0, 10.0)),
        ([0.001, 1000.0], True, (0.0, 250.0, 500.0, 750.0, 1000.0)),
        ([], False, None),
        ([-1e308, 1e308], False, None),
        ([1e-320, 1e308], False, None),
        ([5e-324, 5e-324], False, None),
        ([math.nan, math.inf, 2.0], True, None),
    ],
)
def test_axes(values: list[float], zero: bool, expect: tuple[float, ...] | None) -> None:
    found = axis.of_values(values, zero=zero)
    if expect is not None:
        assert found.ticks == pytest.approx(expect)
    for value in values:
        if math.isfinite(value):
            assert 0.0 <= found.share(value) <= 1.0
    assert 1 <= len(found.ticks) <= 12
    assert all(math.isfinite(each) for each in (*found.ticks, found.low, found.high))


def axes_of_time() -> Iterator[Axis]:
    return (axis.of_time(seconds) for seconds in (0.1, 59, 3600, 86_400, 1e7, 1e9))


def test_axes_of_time_have_few_ticks() -> None:
    assert all(1 <= len(each.ticks) <= 7 for each in axes_of_time())


@pytest.mark.parametrize(
    ("shown", "expect"),
    [
        (number(0.000123456), "0.0001235"),
        (number(12345.0), "12.35k"),
        (number(1e-9), "1e-09"),
        (number(3.0), "3"),
        (elapsed(0.25), "0.25s"),
        (elapsed(61), "1m1s"),
        (elapsed(90_000), "1d1h"),
        (size(10), "10 B"),
        (size(5_300_000), "5.1 MiB"),
    ],
)
def test_numbers_are_short(shown: str, expect: str) -> None:
    assert shown == expect


# --- the command


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        yield running


def put(api: Served, history: str | None, owner: str | None = None) -> Json:
    """A job that runs, and what its operator has kept of it."""
    job = api.put({**a_spec("lm"), "status": {"phase": "Running", "startTime": stamp(1)}})
    if history is not None:
        uid = job["metadata"]["uid"]
        other = api.put(a_spec("other"))["metadata"]["uid"]
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": names.history("lm", uid),
                "ownerReferences": [
                    {
                        "apiVersion": "drivetrain.dev/v1alpha1",
                        "kind": "TrainingJob",
                        "name": owner or "lm",
                        "uid": other if owner else uid,
                        "controller": True,
                    }
                ],
            },
            "data": {histories.KEY: history},
        }
        api.post("/api/v1/namespaces/default/configmaps", body)
    return job


def test_it_writes_the_page(api: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(api, histories.encoded(a_history()))
    file = tmp_path / "lm.html"
    assert main(["report", "lm", "--kubeconfig", str(api.kubeconfig), "-o", str(file)]) == 0
    assert "Samples a second" in file.read_text()
    assert str(file) in capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("tmp")] == []
    assert main(["report", "lm", "--kubeconfig", str(api.kubeconfig), "-o", "-"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("name", "history", "owner", "expect"),
    [
        ("none", None, None, "There is no ConfigMap lm-history-"),
        ("damaged", "<b>", None, "cannot be read"),
        ("another's", "{}", "other", "is not this job"),
    ],
)
def test_without_a_history_it_says_why(
    api: Served,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    history: str | None,
    owner: str | None,
    expect: str,
) -> None:
    put(api, history, owner)
    file = tmp_path / "lm.html"
    assert main(["report", "lm", "--kubeconfig", str(api.kubeconfig), "-o", str(file)]) == 0
    assert expect in file.read_text()
    assert expect in capsys.readouterr().err


def test_where_it_cannot_be_written_is_named(api: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(api, None)
    assert main(["report", "lm", "--kubeconfig", str(api.kubeconfig), "-o", str(tmp_path / "no" / "lm.html")]) == 1
    assert "-o " in capsys.readouterr().err


def test_what_is_no_file_of_its_own_stays_what_it_is(api: Served, tmp_path: Path) -> None:
    """Nobody's /dev/null becomes a page."""
    put(api, None)
    pipe, real, link = tmp_path / "pipe", tmp_path / "real.html", tmp_path / "lm.html"
    os.mkfifo(pipe)
    real.write_text("old")
    link.symlink_to(real)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for file in (pipe, link):
            assert main(["report", "lm", "--kubeconfig", str(api.kubeconfig), "-o", str(file)]) == 0
        assert os.read(reading, 65536).startswith(b"<!doctype html>")
    finally:
        os.close(reading)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert real.read_text().startswith("<!doctype html>")
    assert main(["report", "lm", "--kubeconfig", str(api.kubeconfig), "-o", str(tmp_path)]) == 1
    assert sorted(tmp_path.glob("tmp*")) == []
