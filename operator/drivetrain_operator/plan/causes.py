"""PURE: what ended this worker pod or rank process, and who pays for it?

A *disruption* is the platform's doing (drain, preemption, lost node, spot): it costs nothing. Anything else costs one
restart of the budget. A *hopeless* cause is one that every replacement would meet again: the job fails at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from drivetrain_api.exit_codes import ExitCode, RankExitCode
from drivetrain_api.messages import DEVIATION, KILLED, NO_PROGRESS, OUT_OF_MEMORY, STATE_LOST, Failure
from drivetrain_api.status import FailureStatus
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
    if pod.disruption:
        return Cause(pod.disruption, pod.message or "the platform took the pod", disruption=True)
    if pod.reason in _PLATFORM or pod.reason.startswith(("OutOf", "Unexpected")):
        return Cause(pod.reason, pod.message or "the platform refused or ended the pod", disruption=True)
    ended = pod.terminated
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


def process_reason(failure: Failure) -> str:
    """One word for a rank process that ended when it should not have."""
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


def summary(failure: FailureStatus) -> str:
    """One line for messages and events; the last line of a traceback is the one that names the error."""
    who = f"rank {failure.rank} in {failure.pod}" if failure.rank is not None else failure.pod
    how = f"signal {failure.signal}" if failure.signal else f"exit code {failure.exit_code}"
    last = next((line.strip() for line in reversed(failure.log_tail.splitlines()) if line.strip()), "")
    if failure.reason == NO_PROGRESS:
        return f"{failure.reason}: {_killed_for(failure.log_tail).removeprefix(f'{NO_PROGRESS}: ')}"
    return f"{failure.reason}: {who}, {how}{': ' + last if last else ''}"


def _killed_for(tail: str) -> str:
    """Why its launcher killed it, as the last line says; empty if it did not."""
    last = tail.rstrip().rpartition("\n")[2]
    return last.removeprefix(KILLED) if last.startswith(KILLED) else ""


def _with_tail(message: str, ended: Terminated) -> str:
    last = next((line.strip() for line in reversed(ended.message.splitlines()) if line.strip()), "")
    return f"{message}: {last}" if last else message
