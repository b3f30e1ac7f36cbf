"""The check of GPUs, tried out on the CPU, so that it works when there is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "gpu" / "check.sh"
PARTS = ("exactness", "recovery", "state", "precision", "nccl", "cost")

pytestmark = pytest.mark.timeout(600)
"""It starts interpreters that import torch, which a busy machine takes minutes for."""


def run(*parts: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """On the CPU."""
    return subprocess.run(
        [CHECK, *parts],
        env={**os.environ, "DEVICE": "cpu", "PYTHON": sys.executable, "PATIENCE": "5", **environment},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )


def test_a_part_passes_and_the_last_line_has_the_figures() -> None:
    ended = run("nccl")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert [line[:4] for line in lines if line.startswith(("PASS", "FAIL", "SKIP"))] == ["PASS", "SKIP"]
    figures = dict(each.split("=") for each in lines[-1].split())
    assert (figures["result"], figures["device"]) == ("pass", "cpu")
    assert int(figures["nccl_s"]) <= int(figures["seconds"])


def test_all_parts_are_there_each_with_a_limit() -> None:
    text = CHECK.read_text()
    assert f"for name in ${{*:-{' '.join(PARTS)}}}" in text
    assert set(re.findall(r"(\w+)\) echo \d+", text)) == set(PARTS)
    for name in PARTS:
        assert callable(import_module(f"gpu.{name}").main)


def test_what_has_no_time_left_fails_and_so_does_the_whole() -> None:
    ended = run("state", SECONDS_IN_ALL="0")
    assert ended.returncode == 1
    assert "FAIL  state  (no time is left for it)" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("result=fail device=cpu ")


def test_what_cannot_be_tried_says_why() -> None:
    assert (run("nonsense").returncode, run("nonsense").stderr) == (2, "gpu-check: there is no part 'nonsense'\n")
    ended = run(DEVICE="tpu")
    assert (ended.returncode, ended.stderr) == (2, "gpu-check: DEVICE is 'tpu'; want cuda or cpu\n")
