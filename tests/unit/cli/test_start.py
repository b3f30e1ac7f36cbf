"""A command that prints a line is there at once: what only some commands need is loaded by those."""

from __future__ import annotations

import os
import sys

from harness.commands import succeeded

SLOW = ("kubernetes.client", "torch", "kopf")


def test_no_command_waits_for_what_few_need() -> None:
    ask = f"import sys, drivetrain_cli.main; print([name for name in {SLOW} if name in sys.modules])"
    path = os.pathsep.join(filter(None, sys.path))
    assert succeeded([sys.executable, "-c", ask], 60, {**os.environ, "PYTHONPATH": path}).strip() == "[]"
