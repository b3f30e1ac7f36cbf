"""A test that hangs is ended at its limit and shows where; one that works for longer is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.commands import ran

TESTS = Path(__file__).parents[2]
CASES = """
import time, pytest

@pytest.mark.timeout(1)
def test_hangs():
    time.sleep(600)

@pytest.mark.timeout(1)
def test_works():
    end = time.monotonic() + 3
    while time.monotonic() < end: pass
"""


def test_limits_are_limits_of_patience(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    conftest = (TESTS / "conftest.py").read_text() + "\nlimits._AGAIN_SECONDS = 0.2\n"
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_one.py").write_text(CASES)
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = ran(command, 60, environment, tmp_path)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "test_hangs: not within 1 s in which no process of this test ran" in done.stdout
    assert "    time.sleep(600)" in done.stdout
