"""What a person reads of a process or pod that was killed: by whom, and what it said last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.messages import OUT_OF_MEMORY
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import View
from unit.plan.builders import (
    ended,
    process_failure,
    replaced,
    report,
    running,
)

HANDLED = 'Traceback (most recent call last):\n  File "train.py", line 3\nValueError: tried again'
"""Printed by a script that went on."""
STEP = "step 120 loss 0.3"
BY_SOMEBODY = "killed by SIGKILL (not by Drivetrain: the kernel's out-of-memory killer, or somebody on the node)"
OUT = "killed by the kernel: the container used more memory than its limit (resources.limits.memory)"


def of_rank(signal: int | None, tail: str, exit_code: int | None = None) -> View:
    one = process_failure(0, 0, exit_code=exit_code, signal=signal, log_tail=tail)
    return running(report=report(failures=[one]))


TOLD: list[tuple[str, View, str]] = [
    ("killed", of_rank(9, STEP), f"ProcessKilled: rank 1 in lm-1-0-11111, {BY_SOMEBODY}; last line: {STEP}"),
    ("killed silently", of_rank(9, ""), f"ProcessKilled: rank 1 in lm-1-0-11111, {BY_SOMEBODY}"),
    (
        "out of memory",
        of_rank(9, f"{STEP}\n{OUT_OF_MEMORY}"),
        f"OOMKilled: rank 1 in lm-1-0-11111, {OUT}; last line: {STEP}",
    ),
    (
        "a crash",
        of_rank(11, STEP),
        f"ProcessCrashed: rank 1 in lm-1-0-11111, ended by SIGSEGV (a crash in compiled code); last line: {STEP}",
    ),
    (
        "told to end by somebody",
        of_rank(15, STEP),
        f"ProcessCrashed: rank 1 in lm-1-0-11111, ended by SIGTERM (sent by somebody else); last line: {STEP}",
    ),
    (
        "a signal of no name",
        of_rank(40, STEP),
        f"ProcessCrashed: rank 1 in lm-1-0-11111, ended by signal 40; last line: {STEP}",
    ),
    ("an exit", of_rank(None, STEP, 3), f"ProcessExited: rank 1 in lm-1-0-11111, exit code 3; last line: {STEP}"),
    (
        "an error",
        of_rank(None, HANDLED, 1),
        "ScriptError: rank 1 in lm-1-0-11111, exit code 1: ValueError: tried again",
    ),
    (
        "a pod killed",
        replaced(running(), ended(1, 137, tail=STEP)),
        f"Killed: lm-1-0-11111, {BY_SOMEBODY}; last line: {STEP}",
    ),
    ("a pod killed silently", replaced(running(), ended(1, 137)), f"Killed: lm-1-0-11111, {BY_SOMEBODY}"),
    (
        "a pod out of memory",
        replaced(running(), ended(1, 137, reason="OOMKilled", tail=STEP)),
        f"OOMKilled: lm-1-0-11111, {OUT}; last line: {STEP}",
    ),
    (
        "a pod out of memory, silently",
        replaced(running(), ended(1, 137, reason="OOMKilled")),
        f"OOMKilled: lm-1-0-11111, {OUT}",
    ),
    (
        "a launcher that crashed",
        replaced(running(), ended(1, 139, tail=STEP)),
        f"WorkerFailed: lm-1-0-11111, ended by SIGSEGV (a crash in compiled code); last line: {STEP}",
    ),
    (
        "an eviction for what it used",
        replaced(running(), replace(ended(1, 137), reason="Evicted", message="Pod used too much disk")),
        "Evicted: lm-1-0-11111, evicted by its kubelet: Pod used too much disk",
    ),
    (
        "a launcher that says why",
        replaced(running(), ended(1, 70, tail="OSError: disk full")),
        "LauncherCrashed: lm-1-0-11111, exit code 70: OSError: disk full",
    ),
]


@pytest.mark.parametrize(("name", "view", "line"), TOLD, ids=[case[0] for case in TOLD])
def test_what_was_printed_before_a_kill_is_not_why(name: str, view: View, line: str) -> None:
    found = plan(view)
    told = [each.message for each in found.effects if isinstance(each, RecordEvent) and each.message.startswith(line)]
    assert [message.splitlines()[0] for message in told] == [line]
