"""What does `drivetrain energy` say of a job's electricity?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.energy import EnergySource
from drivetrain_cli.life.energy import KNOWN_BY, account, lines
from drivetrain_cli.main import main
from harness.served import served
from unit.api.cases import job

Json = dict[str, Any]
USED: Json = {
    "kwh": "2.50",
    "joules": {"gpu": {"nvml": 7.2e6}, "cpu": {"model": 1.8e6}},
    "seconds": 7200.0,
    "workerSeconds": 14_400.0,
    "carbon": {"average": {"grams": 1000.0, "kwh": 3.0, "source": "electricity-maps", "quality": "history"}},
    "embodiedGrams": 123.4,
    "spent": {"amount": 0.75, "currency": "EUR", "kwh": 3.0},
    "avoided": {"grams": 250.0, "replayedGrams": 1250.0, "actualGrams": 1000.0, "measure": "average"},
    "counted": {"term": 1},
}


def of(**used: Any) -> list[str]:
    made = {"metadata": {"name": "lm", "namespace": "team"}, "status": {"energy": {"used": USED | used}}}
    return lines(account(made))


def test_all_that_is_known() -> None:
    assert of() == [
        "lm has used 2.50 kWh, 1250 W on average.",
        "COMPONENT   KWH      SHARE   HOW IT IS KNOWN",
        "gpu         2.00     80.0%   measured: the GPU's own counter",
        "cpu         0.5000   20.0%   not measured: assumed from processor time",
        "Generating it emitted 1000 g CO2e, by the average intensity, electricity-maps: history.",
        "Making the nodes emitted 123 g CO2e for the time that it had them.",
        "It cost 0.7500 EUR.",
        "That is 250 g less than the same power would have emitted, had it been drawn from its creation on without a "
        "pause (average intensity).",
    ]


@pytest.mark.parametrize(
    ("what", "used", "line"),
    [
        ("no source", {"carbon": {}, "why": "no zone"}, "What that emitted is not known: no zone."),
        ("the source fails now", {"why": "HTTP 401"}, "What it emits now is not known: HTTP 401."),
        (
            "Prometheus is waited for",
            {"counted": {"awaited": {"dcgm": {"workerSeconds": 7200.0}}}},
            "Of 2 hours of its workers the GPUs are not counted yet: Prometheus is waited for.",
        ),
        (
            "from the beginning",
            {"joules": {}, "counted": {"awaited": {"kepler": {"workerSeconds": 360.0}}}},
            "Of 0.1 hours of its workers processors and memory are not counted yet: Prometheus is waited for.",
        ),
        ("readings that lie", {"refused": 3}, "3 readings could not be, and were cut or left out."),
    ],
)
def test_what_is_not_known_is_said(what: str, used: Json, line: str) -> None:
    assert line in of(**used)


def test_what_is_not_counted_yet_is_in_no_average() -> None:
    text = of(counted={"awaited": {"dcgm": {"workerSeconds": 7200.0}}})
    assert text[0] == "lm has used 2.50 kWh."
    assert not any("Nobody" in line for line in text)


def test_it_may_have_been_worse() -> None:
    assert "5.00 g more" in of(avoided={"grams": -5.0, "measure": "marginal"})[-1]


def test_of_a_job_that_nobody_has_told_of() -> None:
    assert lines(account({"metadata": {"name": "lm"}})) == ["Nobody has told of electricity of lm."]


PLANNED: Json = {
    "first": {"made": "2026-11-21T12:00:00Z", "finish": "2026-11-22T06:00:00Z", "kwh": 2.4, "grams": 900.0},
    "foreseen": {"made": "2026-11-21T15:00:00Z", "finish": "2026-11-22T07:00:00Z", "kwh": 3.0, "grams": 1100.0},
}


def test_what_was_planned_stands_beside_what_was_used() -> None:
    status = {"energy": {"used": USED} | PLANNED}
    text = lines(account({"metadata": {"name": "lm"}, "status": status}))
    assert text[-5:] == [
        "What plans foresaw of all of it; the first was made at 2026-11-21T12:00:00Z:",
        "         FIRST PLAN             FORESEEN NOW           SO FAR",
        "kWh      2.40                   3.00                   2.50",
        "g CO2e   900                    1100                   1000",
        "done     2026-11-22T06:00:00Z   2026-11-22T07:00:00Z   -",
    ]
    ended = lines(account({"metadata": {"name": "lm"}, "status": status | {"completionTime": "2026-11-22T06:30:00Z"}}))
    assert ended[-4].split() == ["FIRST", "PLAN", "LAST", "PLAN", "IN", "THE", "END"]
    assert ended[-1].endswith("2026-11-22T06:30:00Z")


@pytest.mark.parametrize(("measure", "grams"), [("average", "1000"), ("marginal", "1500")])
def test_plans_stand_beside_grams_of_their_own_measure(measure: str, grams: str) -> None:
    both = USED["carbon"] | {"marginal": {"grams": 1500.0, "kwh": 3.0, "source": "watttime", "quality": "history"}}
    status = {"energy": {"used": USED | {"carbon": both}} | PLANNED}
    made = {"metadata": {"name": "lm"}, "spec": {"energy": {"measure": measure}}, "status": status}
    assert lines(account(made))[-2].split() == ["g", "CO2e", "900", "1100", grams]
    only = {**made, "status": {"energy": {"used": USED} | PLANNED}}
    assert lines(account(only))[-2].split()[-1] == ("1000" if measure == "average" else "-")


def test_grams_of_a_first_plan_by_another_measure_are_left_out_and_it_says_why() -> None:
    """spec.energy.measure was edited meanwhile."""
    first, foreseen = PLANNED["first"] | {"measure": "average"}, PLANNED["foreseen"] | {"measure": "marginal"}
    status = {"energy": {"used": USED, "first": first, "foreseen": foreseen}}
    made = {"metadata": {"name": "lm"}, "spec": {"energy": {"measure": "marginal"}}, "status": status}
    *_, grams, _, why = lines(account(made))
    assert grams.split() == ["g", "CO2e", "-", "1100", "-"]
    assert "by the average intensity, and spec.energy.measure is marginal now" in why
    made["spec"] = {"energy": {"measure": "average"}}
    *_, grams, done = lines(account(made))
    assert grams.split() == ["g", "CO2e", "900", "-", "1000"]
    assert done.startswith("done")


def test_also_before_anything_was_drawn() -> None:
    text = lines(account({"metadata": {"name": "lm"}, "status": {"energy": PLANNED}}))
    assert text[0] == "Nobody has told of electricity of lm."
    assert text[3].split() == ["kWh", "2.40", "3.00", "0"]


def test_each_source_has_a_meaning() -> None:
    assert set(KNOWN_BY) == set(EnergySource)


def test_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        api.put(job("lm", {"phase": "Running", "energy": {"used": USED}}))
        assert main(["energy", "lm", "-o", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["kilowattHours"], found["joules"]) == (2.5, USED["joules"])
        assert "counted" not in found
        assert main(["energy", "other"]) == 4
