"""PURE: what ended this worker pod or rank process, and who pays for it?

A *disruption* is the platform's doing (drain, preemption, lost node, spot): it costs nothing. Anything else costs one
restart of the budget. A *hopeless* cause is one that every replacement would meet again: the job fails at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_api.exit_codes import ExitCode, RankExitCode
from drivetrain_api.messages import (
    DEVIATION,
    KILLED,
    NEVER_STARTED,
    NO_PROGRESS,
    OUT_OF_MEMORY,
    STATE_LOST,
)
from drivetrain_api.report import Failure
from drivetrain_api.status import MAX_FAILURES, FailureStatus
from drivetrain_operator.plan.view import PodView, Terminated


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a pod ended."""

    reason: str
    message: str
    disruption: bool = False
    hopeless: bool = False


_PLATFORM: Final = frozenset(
    {"NodeLost", "Shutdown", "NodeShutdown", "Terminated", "Preempting", "Preempted", "NodeAffinity", "NodePorts"}
)
"""pod.status.reason of pods that the platform ended, on versions that set no DisruptionTarget condition."""

_NODE_PRESSURE: Final = ("The node was low on resource", "The node had condition")
"""How a kubelet's sentence begins if the node, and not the pod, used too much."""

_NOT_FOUND: Final = re.compile(r"executable file not found|no such file or directory|not found|permission denied", re.I)

_EXITS: Final[dict[int, Cause]] = {
    ExitCode.USAGE: Cause("LauncherUsage", "the launcher cannot use what this operator gave it", hopeless=True),
    ExitCode.INCOMPATIBLE: Cause(
        "IncompatibleWorkerImage", "launcher and coordinator share no protocol version", hopeless=True
    ),
    ExitCode.REFUSED: Cause("Refused", "the coordinator refused the worker"),
    ExitCode.FENCED: Cause("Fenced", "it was cut off for recovery.fenceSeconds", disruption=True),
    ExitCode.COMMAND: Cause("CommandNotFound", "the job's command could not be started", hopeless=True),
    ExitCode.STOPPED: Cause("Stopped", "it was told to stop", disruption=True),
    ExitCode.INTERNAL: Cause("LauncherCrashed", "the launcher itself failed"),
    ExitCode.LEFT: Cause("Left", "it was told to go", disruption=True),
    137: Cause("Killed", "its processes were killed from outside (SIGKILL)"),
}


def pod_cause(pod: PodView) -> Cause:
    """Why a worker pod ended that did not succeed."""
    if pod.reason == "Evicted" and not pod.disruption and not pod.message.startswith(_NODE_PRESSURE):
        return Cause("Evicted", pod.message or "the kubelet evicted it")  # for what it used itself
    if pod.disruption:
        return Cause(pod.disruption, pod.message or "the platform took the pod", disruption=True)
    if pod.reason in _PLATFORM or pod.reason.startswith(("OutOf", "Unexpected")):
        return Cause(pod.reason, pod.message or "the platform refused or ended the pod", disruption=True)
    if pod.reason == "Evicted":
        return Cause("Evicted", pod.message, disruption=True)
    ended = pod.terminated
    if pod.init_failed is not None and ended is None:
        name, init = pod.init_failed
        how = f"signal {init.signal}" if init.signal else f"exit code {init.exit_code}"
        return Cause("InitContainerFailed", _with_tail(f"init container {name} ended with {how} ({init.reason})", init))
    if ended is None:
        # Never ran, or its status is lost: only the pod itself can say why.
        return Cause(pod.reason or "PodFailed", pod.message or "the pod failed without a container status")
    if ended.reason == "OOMKilled":
        return Cause("OOMKilled", "the container used more memory than its limit (resources.limits.memory)")
    if ended.reason in ("StartError", "ContainerCannotRun"):
        found = _NOT_FOUND.search(ended.message) is not None
        return Cause("CommandNotFound" if found else ended.reason, ended.message, hopeless=found)
    known = _EXITS.get(ended.exit_code)
    if known is not None:
        return Cause(known.reason, _with_tail(known.message, ended), known.disruption, known.hopeless)
    return Cause("WorkerFailed", _with_tail(f"the launcher exited {ended.exit_code}", ended))


REPLACED: Final = "Replaced"
"""Reason of a rank process that Drivetrain ended itself, for no fault of the script's."""

_HOPELESS_ERRORS: Final = ("ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError")
"""Exceptions that the same script raises again, as long as it has not trained a step."""
_USAGE: Final = "drivetrain.errors.UsageError"
_PASSING: Final = re.compile(
    r"OSError|IOError|Connection|Timeout|BrokenPipe|Interrupted|HTTP|URLError|requests\.|botocore|Unavailable|"
    r"Accelerator|CUDA|NCCL|OutOfMemory|out of memory|gloo",
)
"""Errors of storage, networks and devices: another time, or another machine, may do better."""
IN_A_ROW: Final = 3
"""The first failure, and two tries that ended as it did."""


def process_reason(failure: Failure) -> str:
    """One word for a rank process that ended when it should not have."""
    if failure.remedy and STATE_LOST not in failure.log_tail:
        return REPLACED
    if NEVER_STARTED in failure.log_tail and failure.exit_code == 0:
        return NEVER_STARTED.partition(":")[0]
    if STATE_LOST in failure.log_tail and failure.exit_code in (RankExitCode.REPLACE_ME, RankExitCode.STATE_LOST):
        return STATE_LOST
    if DEVIATION in failure.log_tail and failure.exit_code == RankExitCode.DEVIATION:
        return DEVIATION
    if failure.signal == 9 and _killed_for(failure.log_tail).startswith(f"{NO_PROGRESS}: "):
        return NO_PROGRESS
    if "Traceback (most recent call last)" in failure.log_tail:
        return "ScriptError"
    if failure.signal == 9:
        return "OOMKilled" if OUT_OF_MEMORY in failure.log_tail else "ProcessKilled"
    return "ProcessCrashed" if failure.signal else "ProcessExited"


def last_line(text: str) -> str:
    """The last line of a traceback is the one that names the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def hopeless_process(failures: Sequence[FailureStatus]) -> str | None:
    """Why another try would end as the last one did; None if it may not. `failures`: oldest first.

    An error of a kind that no repetition mends, before the first step; a script that never joins; or an error of the
    script's own that it raised three times in a row at the same step.
    """
    counted = [each for each in failures if each.counted]
    if not counted:
        return None
    last = counted[-1]
    error = last_line(last.log_tail)
    if last.reason == NEVER_STARTED.partition(":")[0]:
        return error.partition(": ")[2] or error
    if last.reason != "ScriptError" or last.step is None:
        return None
    if error.startswith(_USAGE) or (last.step < 0 and error.startswith(_HOPELESS_ERRORS)):
        return f"{error}; it would fail the same way again"
    alike = [(each.reason, each.step, last_line(each.log_tail)) == (last.reason, last.step, error) for each in counted]
    if len(alike) < IN_A_ROW or not all(alike[-IN_A_ROW:]) or _PASSING.search(error):
        return None
    at = "before the first step" if last.step < 0 else f"after step {last.step + 1}"
    return f"{IN_A_ROW} times in a row {at}: {error}"


def kept(failures: Sequence[FailureStatus]) -> list[FailureStatus]:
    """What of these status keeps: the newest, and among them those that were charged last, whoever failed beside."""
    charged = [position for position, each in enumerate(failures) if each.counted][-IN_A_ROW:]
    others = [position for position in range(len(failures)) if position not in charged]
    positions = sorted([*charged, *others[len(others) - (MAX_FAILURES - len(charged)) :]])
    return [failures[position] for position in positions] if len(failures) > MAX_FAILURES else list(failures)


def summary(failure: FailureStatus) -> str:
    """One line for messages and events; the last line of a traceback is the one that names the error."""
    who = f"rank {failure.rank} in {failure.pod}" if failure.rank is not None else failure.pod
    how = f"signal {failure.signal}" if failure.signal else f"exit code {failure.exit_code}"
    last = last_line(failure.log_tail)
    if failure.reason == NO_PROGRESS:
        return f"{failure.reason}: {_killed_for(failure.log_tail).removeprefix(f'{NO_PROGRESS}: ')}"
    return f"{failure.reason}: {who}, {how}{': ' + last if last else ''}"


def _killed_for(tail: str) -> str:
    """Why its launcher killed it, as the last line says; empty if it did not."""
    last = tail.rstrip().rpartition("\n")[2]
    return last.removeprefix(KILLED) if last.startswith(KILLED) else ""


def _with_tail(message: str, ended: Terminated) -> str:
    last = last_line(ended.message)
    return f"{message}: {last}" if last else message
