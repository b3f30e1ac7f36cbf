"""Names of tests that depend on the moment are found in every run, and told in a few lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from harness.collection import disagreement, own_clock

TESTS = Path(__file__).parents[2]
KINDS = {
    "time": "gzip.compress(b'x')",
    "day": "time.strftime('%Y-%m-%d')",
    "random": "str(random.random())",
    "address": "repr(object())",
    "order": "''.join(set('abcdefghijklmnopqrst'))",
    "constant": "b'always the same'",
}
"""A file each, whose only test has this value in its name."""
ONE_TEST = "import gzip, random, time, pytest\n@pytest.mark.parametrize('value', [{}])\ndef test(value): pass\n"


def run_by_two_workers(folder: Path, values: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """These tests, with the hooks of this suite."""
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    for name, value in values.items():
        (folder / f"test_{name}.py").write_text(ONE_TEST.format(value))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTHONPATH"] = f"{TESTS}:{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_names_that_differ_from_worker_to_worker_end_the_run_and_are_told(tmp_path: Path) -> None:
    done = run_by_two_workers(tmp_path, KINDS)
    assert done.returncode == 3, done.stdout + done.stderr
    told = done.stdout.partition("Give these parameters `ids=`, or values that are the same everywhere: ")[2]
    assert set(re.findall(r"test_(\w+)\.py", told)) == KINDS.keys() - {"constant"}
    assert len(done.stdout.splitlines()) < 16


def test_many_names_are_told_in_a_few_lines() -> None:
    told = disagreement(Counter(f"a.py::t[{n}]" for n in range(900)), Counter(["b.py::t[" + "x" * 5000 + "]"]))
    assert "and 897 more" in told
    assert "a.py, b.py" in told
    assert max(map(len, told.splitlines())) < 200


def test_a_clock_of_collection_is_right_afterwards() -> None:
    with own_clock(3):
        kept = time.time
        there = time.time()
    assert 2.9 < (there - time.time()) / 86_400 < 3.1
    assert abs(kept() - time.time()) < 60
