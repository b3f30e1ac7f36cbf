"""What does `drivetrain goodput` say of a job's time?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.goodput import Category
from drivetrain_cli.life.goodput import MEANS, lines, split
from drivetrain_cli.main import main
from harness.served import served
from unit.api.cases import job

Json = dict[str, Any]
COUNTED: Json = {
    "ratio": 0.75,
    "summary": "75.0%",
    "seconds": {"starting": 200.0, "productive": 750.0, "recovering": 50.0},
    "counted": {"term": 1},
}


def of(goodput: Json | None, **status: Any) -> Json:
    """A job of 1,010 s, as `split` has it."""
    known = {"goodput": goodput} if goodput is not None else {}
    made: Json = {
        "metadata": {"name": "lm", "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {**known, **status},
    }
    return split(made, datetime(2026, 1, 1, 0, 16, 50, tzinfo=UTC))


def test_the_largest_part_comes_first() -> None:
    assert lines(of(COUNTED)) == [
        "Goodput of lm: 75.0% (12m30s of 16m40s).",
        "CATEGORY     TIME     SHARE   WHAT IT IS",
        "productive   12m30s   75.0%   steps that were not made before",
        "starting     3m20s    20.0%   pods and processes start",
        "recovering   50s      5.0%    from a loss to the next step of all",
        "The last 10s are not counted yet.",
    ]


def test_of_a_job_that_has_ended_all_is_counted() -> None:
    assert of(COUNTED, completionTime="2026-01-01T00:16:40Z")["uncountedSeconds"] == 0


def test_what_holds_without_a_count_is_said() -> None:
    waits = of({"seconds": {"starting": 2.0}, "counted": {"standing": "queued"}})
    assert lines(waits)[-1] == "The last 16m48s are not counted yet, queued."


@pytest.mark.parametrize(
    ("goodput", "told"),
    [
        (None, "Of lm nothing is counted yet."),
        ({"seconds": {"other": 600.0}}, "Nobody has told of a step of lm: how much of 10m it trained is not known."),
    ],
)
def test_what_is_not_known_is_not_made_up(goodput: Json | None, told: str) -> None:
    assert lines(of(goodput))[0] == told


def test_each_category_has_a_meaning() -> None:
    assert set(MEANS) == set(Category)


def test_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        api.put(job("lm", {"phase": "Running", "goodput": COUNTED}))
        assert main(["goodput", "lm", "-o", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["goodput"], found["countedSeconds"], found["seconds"]) == (0.75, 1000.0, COUNTED["seconds"])
        assert main(["status", "lm"]) == 0
        assert "Goodput 75.0%" in capsys.readouterr().out
        assert main(["goodput", "other"]) == 4
