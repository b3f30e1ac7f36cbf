"""What a script says of its progress, and what its job says then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drivetrain.torchrun import told
from drivetrain_api.messages import Progress


def body(percent: int | None = None, remaining: int | None = None, **metrics: object) -> bytes:
    """As Transformers and Kubeflow's SDK write it: values are text."""
    status: dict[str, Any] = {"lastUpdatedTime": "2026-11-29T20:00:00+00:00"}
    if percent is not None:
        status["progressPercentage"] = percent
    if remaining is not None:
        status["estimatedRemainingSeconds"] = remaining
    if metrics:
        status["metrics"] = [{"name": name, "value": str(value)} for name, value in metrics.items()]
    return json.dumps({"trainerStatus": status}).encode()


def after(*said: tuple[float, bytes]) -> Progress | None:
    """The last word, of what was said at these times."""
    start, found = told.Start(), None
    for now, each in said:
        found = start.hear(told.read(each), now)
    return found


def test_the_words_of_transformers() -> None:
    begins = (0.0, body(0, total_steps=60))
    assert after(begins) is None  # it may have begun in the middle: no step was named
    first = (5.0, body(16, 42, loss=2.5, learning_rate=0.1, current_step=10, total_steps=60, current_epoch=0.5))
    assert after(begins, first) == Progress(
        step=9,
        steps=60,
        loss=2.5,
        step_seconds=42 / 50,
        metrics={"learning_rate": 0.1, "current_epoch": 0.5},
        goes_back=True,
    )
    second = (10.0, body(33, 20, loss=2.0, current_step=20, total_steps=60))
    found = after(begins, first, second)
    # Its own estimate counts the steps before a restart as if they had been made since.
    assert found is not None
    assert (found.step, found.loss, found.step_seconds, found.metrics["learning_rate"]) == (19, 2.0, 0.5, 0.1)


def test_the_end_of_a_training_that_was_cut_short_is_no_hundred_percent() -> None:
    found = after((0.0, body(16, current_step=10, total_steps=60)), (1.0, body(100, 0, train_loss=1.5)))
    assert found is not None
    assert (found.step, found.steps, found.loss) == (9, 60, 1.5)


def test_a_script_that_counts_no_steps_is_at_so_many_of_a_hundred() -> None:
    found = after((0.0, body(10, 90)), (20.0, body(30, 5, accuracy=0.5)))
    assert found is not None
    assert (found.step, found.steps, found.step_seconds, found.metrics) == (29, 100, 1.0, {"accuracy": 0.5})


def test_what_is_no_number_is_no_metric() -> None:
    found = after((0.0, body(10, current_step=1, loss="nan", stage="warm", step="inf")))
    assert found is not None
    assert (found.loss, found.metrics) == (None, {})


def test_of_names_without_end_the_newest_are_kept() -> None:
    start = told.Start()
    found = start.hear(told.read(body(10, current_step=1, loss=2.5)), 0.0)
    for number in range(0, 1000, 10):
        some = {f"m{each}": each for each in range(number, number + 10)}
        found = start.hear(told.read(body(10, **some)), 1.0)
    assert found is not None
    assert found.loss == 2.5
    assert list(found.metrics) == [f"m{each}" for each in range(936, 1000)]
    many = told.read(body(10, **{f"n{each}": each for each in range(256)}))
    for _ in range(3):
        found = start.hear(many, 2.0)
        assert found is not None
        assert list(found.metrics) == [f"n{each}" for each in range(64)]
    assert len(start._metrics) == 64


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"{", "Invalid JSON"),
        (b"{}", "trainerStatus: Field required"),
        (body(101), "trainerStatus.progressPercentage: Input should be less than or equal to 100"),
        (body(1, -1), "trainerStatus.estimatedRemainingSeconds: Input should be greater"),
        (body(1, **{f"m{number}": 1 for number in range(257)}), "trainerStatus.metrics: List should have at most 256"),
        (body(1, loss="1" * 65), "trainerStatus.metrics.0.value: String should have at most 64"),
    ],
)
def test_what_cannot_be_is_refused_by_name(said: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        told.read(said)
