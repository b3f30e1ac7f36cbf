"""Fewer rounds where a change waits for them, and only there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import activity
from harness.often import VARIABLE, often

CI = Path(__file__).parents[3] / ".ci" / "run"


@pytest.mark.parametrize(("value", "wanted"), [("few", 8), ("", 20), ("1", 20), (None, 20)])
def test_what_the_variable_says(value: str | None, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert often(20, 8) == wanted


def test_ci_says_so_by_a_variable_that_no_test_sets() -> None:
    assert re.search(rf"^export {VARIABLE}=few\b", CI.read_text(), re.MULTILINE)
    assert activity.MARK != VARIABLE
