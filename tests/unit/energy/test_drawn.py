"""What does a coordinator count of what launchers tell, whoever comes, goes, shares or lies?"""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from drivetrain_api.energy import Meter, Metered, total
from drivetrain_api.messages import LauncherState, from_launcher
from drivetrain_api.report import Report
from drivetrain_coordinator.membership.energy import Drawn


class Term:
    """A coordinator that hears of launchers; time passes with what they tell."""

    def __init__(self) -> None:
        self.drawn, self.now = Drawn(), 1000.0

    def hear(self, pod: str, seconds: float, joules: float, boot: str = "b", **more: Any) -> None:
        device = more.pop("device", "")
        fields = {"component": "gpu" if device else "cpu", "source": "nvml" if device else "rapl", "device": device}
        before = {"before": more.pop("before", 0.0)}
        meter = Meter(joules=joules, **fields, **before, **more.pop("meter", {}))
        self.drawn.hear(pod, boot, Metered(seconds=seconds, meters=[meter], **more), self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def joules(self) -> float:
        told = self.drawn.told()
        return total(told.joules) if told is not None else 0.0


def test_what_a_launcher_tells_again_is_counted_once() -> None:
    term = Term()
    for seconds, joules in ((10, 1000), (11, 1100), (11, 1100), (20, 2000)):
        term.passes(10)
        term.hear("a", seconds, joules)
    assert term.joules() == 2000
    assert (term.drawn.worker_seconds, term.drawn.seconds, term.drawn.refused) == (20, 20, 0)


def test_another_launcher_in_the_same_pod_begins_anew() -> None:
    term = Term()
    term.hear("a", 10, 1000)
    term.passes(5)
    term.hear("a", 3, 300, boot="c")
    assert term.joules() == 1300


def test_a_successor_counts_what_its_predecessor_was_not_told() -> None:
    term = Term()
    term.hear("a", 100, 10_000, before=9_000.0, seconds_before=90.0)
    term.passes(1)
    term.hear("a", 101, 10_100, before=9_000.0, seconds_before=90.0)
    assert (term.joules(), term.drawn.worker_seconds) == (1100, 11)


def test_a_device_that_two_launchers_tell_of_counts_once() -> None:
    term = Term()
    for second in range(1, 101):
        term.passes(1)
        term.hear("a", second, 300.0 * second, device="GPU-1")
        if 20 <= second <= 60:
            term.hear("b", second - 20, 300.0 * (second - 20), device="GPU-1")
        term.hear("c", second, 200.0 * second, device="GPU-2")
    assert term.joules() == pytest.approx(300 * 100 + 200 * 100, rel=0.02)
    assert term.drawn.worker_seconds == pytest.approx(240)
    assert term.drawn.seconds == pytest.approx(100)


def test_what_launchers_that_share_a_device_told_nobody_counts_once() -> None:
    """The coordinator is new, and the operator had heard nothing for minutes."""
    term = Term()
    for pod, seconds in (("a", 600), ("b", 300), ("c", 900)):
        term.hear(pod, seconds, 300.0 * seconds, device="GPU-1")
    assert term.joules() == pytest.approx(300 * 900, rel=0.01)


def test_of_a_device_that_nobody_shares_all_counts_however_late_it_is_told() -> None:
    term, jitter = Term(), random.Random(0)
    for second in range(1, 1001):
        term.now = 2000.0 + second + jitter.uniform(0, 0.9)
        term.hear("a", second, 300.0 * second, device="GPU-1")
    assert term.joules() == pytest.approx(300 * 1000, rel=1e-6)


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("below zero", {"joules": -5.0}),
        ("no number", {"joules": math.nan}),
        ("without end", {"joules": math.inf}),
        ("a petajoule", {"joules": 1e15}),
        ("more than any device draws", {"joules": 9e12}),
        ("that falls", {"joules": 900.0}),
        ("time without end", {"seconds": math.inf}),
        ("more time than passed", {"seconds": 1e6}),
    ],
)
def test_what_cannot_be_is_cut_and_counted(what: str, fields: dict[str, float]) -> None:
    term = Term()
    term.hear("a", 10, 1000)
    term.passes(1)
    term.hear("a", fields.get("seconds", 11.0), fields.get("joules", 1050.0))
    assert term.drawn.refused >= 1
    assert term.joules() <= 1000 + 5000 * 11
    term.passes(1)
    term.hear("a", 12.0, 1100.0)
    assert math.isfinite(term.joules())


def test_lies_about_what_was_told_before_count_nothing() -> None:
    for before in (-1.0, math.nan, 2_000.0):
        term = Term()
        term.hear("a", 10, 1000, before=before)
        assert (term.joules(), term.drawn.refused) == (0, 1)


def test_words_of_newer_images_are_left_out() -> None:
    term = Term()
    meter = Meter(component="npu", source="x", joules=1)
    term.drawn.hear("a", "b", Metered(seconds=5, meters=[meter]), 0.0)
    assert (term.joules(), term.drawn.refused) == (0, 0)


# --- on the wire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "energy", "readable"),
    [
        ("as it should be", {"seconds": 1, "meters": [{"component": "cpu", "source": "rapl", "joules": 1}]}, True),
        ("no object", "much", False),
        ("no list", {"meters": "much"}, False),
        ("no number", {"meters": [{"component": "cpu", "source": "rapl", "joules": "much"}]}, False),
        ("a name without end", {"meters": [{"component": "c" * 9999, "source": "s", "joules": 1}]}, False),
        ("meters without end", {"meters": [{"component": "c", "source": "s", "joules": 1}] * 99_999}, True),
    ],
)
def test_a_meter_that_lies_silences_no_worker(what: str, energy: Any, readable: bool) -> None:
    text = json.dumps({"type": "state", "seq": 1, "processes": [], "energy": energy})
    told = from_launcher.validate_json(text)
    assert isinstance(told, LauncherState)
    assert told.energy is not None
    assert told.energy.readable is readable
    assert len(told.energy.meters) <= 256


@pytest.mark.parametrize(
    ("energy", "expect"),
    [
        ({"joules": {"gpu": {"nvml": 5}}}, {"gpu": {"nvml": 5.0}}),
        ({"joules": {"gpu": {"nvml": -5, "nvml-power": 1e300}, "cpu": "x", "x": {"nvml": 1}}}, {}),
        ({"joules": [1], "seconds": -1, "worker_seconds": "x", "refused": 1.5}, {}),
        ("much", None),
    ],
)
def test_a_report_that_lies_is_read_all_the_same(energy: Any, expect: Any) -> None:
    text = {"job_uid": "u", "namespace": "n", "job": "j", "term": 1, "seq": 1, "state": "training", "energy": energy}
    told = Report.model_validate_json(json.dumps(text)).energy
    assert (told.joules if told is not None else None) == expect
    assert told is None or (told.seconds, told.worker_seconds, told.refused) == (0, 0, 0)


def test_nothing_is_told_before_anything_is_heard() -> None:
    assert Drawn().told() is None
