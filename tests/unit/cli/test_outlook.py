"""What does `drivetrain plan` say of a job that nobody submitted?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from drivetrain_cli.main import main
from drivetrain_cli.manifests import documents

EXAMPLES = Path(__file__).parents[3] / "examples" / "energy"
BEGIN = datetime(2026, 11, 30, tzinfo=UTC)
JOB: dict[str, Any] = {
    "apiVersion": "drivetrain.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "night"},
    "spec": {
        "image": "train",
        "command": ["python", "train.py"],
        "workers": 2,
        "elastic": {"minWorkers": 1, "maxWorkers": 4},
        "snapshots": {"storage": {"path": "/snapshots"}},
        "training": {"steps": 20_000},
        "energy": {
            "deadline": "2026-12-01T00:00:00Z",
            "minRunSeconds": 0,
            "profile": [{"workers": n, "stepsPerSecond": n**0.9, "watts": 300 * n} for n in (1, 2, 4)],
        },
    },
}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Three days: 500 g, and 50 g from six to noon."""
    rows = ["timestamp,g_per_kwh"]
    for hour in range(72):
        rows.append(f"{(BEGIN + timedelta(hours=hour)).isoformat()},{50 if 6 <= hour % 24 < 12 else 500}")
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(rows))
    return path


def tariff(trace: Path) -> Path:
    """The same numbers as prices, in thousandths."""
    head, *rows = trace.read_text().splitlines()
    path = trace.with_name("tariff.csv")
    cheaper = (f"{row.partition(',')[0]},{float(row.partition(',')[2]) / 1000}" for row in rows)
    path.write_text("\n".join([head.replace("g_per_kwh", "per_kwh"), *cheaper]))
    return path


def written(folder: Path, **energy: Any) -> Path:
    spec = {**JOB["spec"], "energy": {k: v for k, v in (JOB["spec"]["energy"] | energy).items() if v is not None}}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, "spec": spec}))
    return path


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["plan", *map(str, words)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_it_waits_for_the_clean_hours(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capsys, written(tmp_path), "--trace", trace, "--at", BEGIN.isoformat(), "-o", "json")
    found = json.loads(out)
    assert code == 0
    assert found["mode"] == "planned"
    assert found["slots"][0] | {"stepsPerSecond": 0, "watts": 0} == {
        "start": "2026-11-30T00:00:00Z",
        "end": "2026-11-30T06:00:00Z",
        "workers": 0,
        "capWatts": None,
        "stepsPerSecond": 0,
        "watts": 0,
        "intensity": 500.0,
    }
    assert all(slot["intensity"] == 50 for slot in found["slots"] if slot["workers"])
    assert found["saved"]["carbon"] > 0.85
    assert [each["later"] for each in found["laterDeadlines"]] == ["6 hours", "a day", "two days"]


def test_a_person_reads_it(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capsys, written(tmp_path), "--trace", trace, "--at", "2026-11-30T00:00:00Z")
    assert code == 0
    assert "Mon 30 Nov 06:00" in out
    assert "less carbon" in out
    assert "a day later" in out


def test_a_budget_that_will_not_do_is_said_before_it_is_submitted(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--trace", trace, "--at", "2026-11-30T00:00:00Z"]
    few = written(tmp_path, budget={"grams": 0.5, "kilowattHours": 1e6})
    assert "\nspec.energy.budget.grams (0.5) will not suffice: all of it takes " in asked(capsys, few, *words)[1]
    found = json.loads(asked(capsys, few, *words, "-o", "json")[1])
    assert [each.partition(" ")[0] for each in found["beyondBudget"]] == ["spec.energy.budget.grams"]
    assert "budget" not in asked(capsys, written(tmp_path, budget={"grams": 1e9}), *words)[1]


def test_what_moves_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    code, out, _ = asked(capsys, written(tmp_path, zone="DE", deadline=later))
    assert code == 0
    assert "At once" in out
    assert "annual" in out or "mean" in out


def test_a_job_that_is_late_ends_so(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, deadline="2026-11-30T01:00:00Z")
    code, out, _ = asked(capsys, path, "--trace", trace, "--at", BEGIN.isoformat())
    assert code == 1
    assert "LATE" in out


def test_the_picture_is_whole_and_escaped(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(capsys, written(tmp_path), "--trace", trace, "--at", BEGIN.isoformat(), "--picture", tmp_path / "plan.svg")
    root = ElementTree.fromstring((tmp_path / "plan.svg").read_text())
    texts = [each.text for each in root.iter() if each.text]
    assert "night" in texts
    assert not [each for each in root.iter() if each.tag.endswith("script")]
    assert root.get("role") == "img"


@pytest.mark.parametrize(
    ("energy", "words", "said"),
    [
        ({"deadline": "2026-13-01T00:00:00Z"}, [], "spec.energy.deadline"),
        ({"deadline": None}, [], "spec.energy.deadline"),
        ({"profile": None}, [], "--steps-per-second"),
        ({}, ["--pue", "0.5"], "--pue"),
        ({}, ["--pue", "nan"], "--pue"),
        ({}, ["--picture", "/nowhere/plan.svg"], "--picture"),
        ({}, ["--steps-per-second", "0"], "--steps-per-second"),
        ({}, ["--picture", "plan.png"], "--picture"),
        ({}, ["--at", "tomorrow"], "--at"),
        ({}, ["--trace", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], energy: dict[str, Any], words: list[str], said: str
) -> None:
    code, _, err = asked(capsys, written(tmp_path, **energy), *words)
    assert code in (1, 2)
    assert said in err


@pytest.mark.parametrize("text", ["timestamp\n", "a,b\n1,2\n", "timestamp,g_per_kwh\n2026-11-30T00:00:00Z,x\n", "\xff"])
def test_a_trace_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="latin-1")
    code, _, err = asked(capsys, written(tmp_path), "--trace", path)
    assert code == 2
    assert "trace.csv" in err


def test_a_time_stays_text() -> None:
    """kubectl makes JSON of it, which has no times."""
    assert documents("a: 2026-12-01T18:00:00Z\nb: 2026-12-01\nc: 3\n---\nd: yes") == [
        {"a": "2026-12-01T18:00:00Z", "b": "2026-12-01", "c": 3},
        {"d": True},
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_can_be_planned(path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [path, "--trace", trace, "--tariff", tariff(trace), "--steps-per-second", "2", "--at", BEGIN.isoformat()]
    code, out, err = asked(capsys, *words, "-o", "json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["meetsDeadline"]
    assert found["mode"] == ("flat-out" if path.stem == "time" else "planned")
