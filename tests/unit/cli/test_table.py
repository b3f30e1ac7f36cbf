"""Does our table look as kubectl's does?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from drivetrain_cli.table import age, table

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (3600, "60m"),
        (18600, "5h10m"),
        (90000, "25h"),
        (259200, "3d"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert age((NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), NOW) == text


def test_columns_are_those_of_the_crd() -> None:
    status = {
        "phase": "Running",
        "progress": {"summary": "50%", "step": 5, "eta": "9s", "loss": 2.5},
        "restarts": 0,
        "workers": {"summary": "3/3"},
    }
    job = {"metadata": {"name": "charlm", "creationTimestamp": "2025-12-31T23:59:00Z"}, "status": status}
    expect = [
        "NAME     PHASE     PROGRESS   STEP   ETA   RESTARTS   READY   AGE",
        "charlm   Running   50%        5      9s    0          3/3     60s",
    ]
    assert table([job], NOW).splitlines() == expect
    assert "LOSS" in table([job], NOW, wide=True)
