"""Bytes that a training step sends: counted by the transport, and by the interface as a cross-check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from harness.commands import succeeded

GRADIENT = 8 * 512 * 512 * 4
"""Bytes, of the model in payload.py."""

CASES: dict[str, tuple[int, dict[str, Any], float]] = {
    # How many gradients a step sends over all ranks; a ring: 2(N-1).
    "2 ranks": (2, {}, 2.0),
    "4 ranks": (4, {}, 6.0),
    "accumulation": (2, {"microbatches": 4}, 2.0),
    "small buckets": (2, {"bucket_bytes": 1 << 20}, 2.0),
    "large buckets": (2, {"bucket_bytes": 64 << 20}, 2.0),
    "bf16": (3, {"precision": {"reduce": "bf16"}}, 4.0 / 2),
    "fp16": (2, {"precision": {"compute": "fp16", "reduce": "fp16"}}, 2.0 / 2),
    # Reduce-scatter and gather; stage 3 gathers again for backward, but for the block whose forward was the last.
    "ZeRO 1, 2 ranks": (2, {"zero": 1}, 2.0),
    "ZeRO 1, 4 ranks": (4, {"zero": 1, "bucket_bytes": 1 << 20}, 6.0),
    "ZeRO 2, 2 ranks": (2, {"zero": 2}, 2.0),
    "ZeRO 2, 4 ranks, accumulation": (4, {"zero": 2, "microbatches": 2}, 6.0),
    "ZeRO 2, bf16": (2, {"zero": 2, "precision": {"reduce": "bf16"}}, 1.5),
    "ZeRO 3, 2 ranks": (2, {"zero": 3}, 3.0 - 1 / 8),
    "ZeRO 3, 4 ranks": (4, {"zero": 3}, 9.0 - 3 / 8),
    "compressed to bf16": (3, {"compression": {"method": "bf16"}}, 4.0 / 2),
    "compressed to int8": (2, {"compression": {"method": "int8"}}, 2.0 / (4 / (1 + 4 / 256))),
    "compressed to int4": (4, {"compression": {"method": "int4"}}, 6.0 / (4 / (0.5 + 4 / 128))),
    # A matrix of 512 by 512 becomes 4 columns of both sides.
    "PowerSGD": (2, {"compression": {"method": "powersgd", "rank": 4}}, 2.0 * 4 * (512 + 512) / 512**2),
    # To each rank from each other one: numbers and places.
    "top-k": (4, {"compression": {"method": "topk", "density": 0.02}}, 4 * 3 * 0.02 * 2),
    # Of each subtree's vector, what other ranks own; then the sums to all others.
    "deterministic, 2 ranks": (2, {"deterministic": True}, 2 * 1 / 2 + 1),
    "deterministic, 3 ranks": (3, {"deterministic": True}, 5 * 2 / 3 + 2),
    "deterministic, 4 ranks": (4, {"deterministic": True}, 4 * 3 / 4 + 3),
    # Every rank gets the others' rows: 64 numbers of 4 bytes and a row number of 8.
    "sparse": (2, {"touched": 32}, 1 * 32 * 32 * 264 / GRADIENT),
    "sparse, twice the rows": (2, {"touched": 64}, 1 * 32 * 64 * 264 / GRADIENT),
    "sparse, 3 ranks": (3, {"touched": 64}, 2 * 32 * 64 * 264 / GRADIENT),
    "sparse, deterministic": (2, {"touched": 64, "deterministic": True}, 1 * 32 * 64 * 264 / GRADIENT),
}


@pytest.fixture(scope="module")
def measured() -> Callable[[str], dict[str, float]]:
    """Bytes of a step of each case, in a network namespace where nothing else sends."""
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let its users make network namespaces")
    cases = [[world, training] for world, training, _ in CASES.values()]
    said = succeeded(
        [*unshare, sys.executable, "-m", "unit.runtime.payload", json.dumps(cases)],
        60,
        {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    found = json.loads(said.splitlines()[-1])  # before it, the logs of rank 0
    return dict(zip(CASES, found, strict=True)).__getitem__


@pytest.mark.parametrize("name", CASES)
def test_a_step_sends_what_the_algorithm_says(name: str, measured: Callable[[str], dict[str, float]]) -> None:
    expected = CASES[name][2] * GRADIENT
    assert measured(name)["payload"] == pytest.approx(expected, rel=0.01)
    headers = 0.02 * expected + 15_000 * CASES[name][0]  # and acknowledgements: more of them on a busy machine
    assert expected <= measured(name)["lo"] <= expected + headers, "the counter must tell what the interface saw"
