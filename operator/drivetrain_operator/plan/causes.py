"""PURE: what ended this worker pod or rank process, and who pays for it?

A *disruption* is the platform's doing (drain, preemption, lost node, spot): it costs nothing. Anything else costs one
restart of the budget. A *hopeless* cause is one that every replacement would meet again: the job fails at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_api import logline
from drivetrain_api.constants import REQUIREMENTS_CONTAINER
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

_BY_SOMEBODY: Final = (
    "killed by SIGKILL (not by Drivetrain: the kernel's out-of-memory killer, or somebody on the node)"
)
_FROM_OUTSIDE: Final = (1, 2, 9, 15)
"""Signals that a process does not send to itself when it fails: nothing that it printed before is why it ended."""
_SIGNALS: Final = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}
"""Of Linux, which workers run on, whatever the operator does."""
_CRASHES: Final = frozenset({4, 7, 8, 11})

_EXITS: Final[dict[int, Cause]] = {
    ExitCode.USAGE: Cause("LauncherUsage", "the launcher cannot use what this operator gave it", hopeless=True),
    ExitCode.INCOMPATIBLE: Cause(
        "IncompatibleWorkerImage", "launcher and coordinator share no protocol version", hopeless=True
    ),
    ExitCode.REFUSED: Cause("Refused", "the coordinator refused the worker"),
    ExitCode.FENCED: Cause("Fenced", "it was cut off for recovery.fenceSeconds", disruption=True),
    ExitCode.COMMAND: Cause("CommandNotFound", "the job's command could not be started", hopeless=True),
    ExitCode.STORAGE: Cause("StorageFailed", "spec.storage could not be used"),
    ExitCode.UNFIT: Cause("ImageDoesNotFit", "spec.image lacks what the job needs", hopeless=True),
    ExitCode.STOPPED: Cause("Stopped", "it was told to stop", disruption=True),
    ExitCode.INTERNAL: Cause("LauncherCrashed", "the launcher itself failed"),
    ExitCode.LEFT: Cause("Left", "it was told to go", disruption=True),
    137: Cause("Killed", _BY_SOMEBODY),
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
        if name == REQUIREMENTS_CONTAINER:
            return _not_installed(init)
        how = _by_signal(init.signal) if init.signal else f"exit code {init.exit_code}"
        said = _with_tail(f"init container {name}: {how} ({init.reason})", init)
        return Cause("InitContainerFailed", said)
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
    signal = ended.signal or signal_of(ended.exit_code)
    if signal is not None:
        return Cause("WorkerFailed", _with_tail(f"the launcher was {_by_signal(signal)}", ended))
    return Cause("WorkerFailed", _with_tail(f"the launcher exited {ended.exit_code}", ended))


def _not_installed(init: Terminated) -> Cause:
    """The container has said itself whether another pod could do better."""
    said = last_line(init.message).removeprefix("requirements: ")
    how = _by_signal(init.signal) if init.signal else f"exit code {init.exit_code}"
    hopeless = init.exit_code == ExitCode.REQUIREMENTS
    return Cause("RequirementsNotInstalled", f"its packages: {said or how}", hopeless=hopeless)


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
_TORCHS_PREFIX: Final = re.compile(r"^\[rank\d+\]: ")
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
    if "Traceback (most recent call last)" in failure.log_tail and failure.signal not in _FROM_OUTSIDE:
        return "ScriptError"
    if failure.signal == 9:
        return "OOMKilled" if OUT_OF_MEMORY in failure.log_tail else "ProcessKilled"
    return "ProcessCrashed" if failure.signal else "ProcessExited"


def signal_of(exit_code: int | None) -> int | None:
    """Which signal ended a container, as its exit code has it; None if none did."""
    return exit_code - 128 if exit_code is not None and exit_code - 128 in _SIGNALS else None


def last_line(text: str) -> str:
    """The last line of a traceback is the one that names the error. torch puts the rank before each."""
    found = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return _TORCHS_PREFIX.sub("", logline.message(found).strip())


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
    """One line for messages and events. What it printed last is called why only where it is."""
    if failure.reason == NO_PROGRESS:
        return f"{failure.reason}: {_killed_for(failure.log_tail).removeprefix(f'{NO_PROGRESS}: ')}"
    who = f"rank {failure.rank} in {failure.pod}" if failure.rank is not None else failure.pod
    how, printed = _ended_by(failure)
    last = last_line(printed)
    if not last or last in how:
        return f"{failure.reason}: {who}, {how}"
    return f"{failure.reason}: {who}, {how}{': ' if _says_why(failure) else '; last line: '}{last}"


def _ended_by(failure: FailureStatus) -> tuple[str, str]:
    """How it ended, and what it had printed by then, without what its launcher added."""
    tail = failure.log_tail.rstrip()
    printed, _, last = tail.rpartition("\n")
    if last.startswith(KILLED) or last == OUT_OF_MEMORY:
        return last, printed
    if failure.reason == "OOMKilled":
        return OUT_OF_MEMORY, tail
    if failure.reason == "Evicted":
        return "evicted by its kubelet", tail
    signal = _signal(failure)
    return (_by_signal(signal) if signal is not None else f"exit code {failure.exit_code}"), tail


def _signal(failure: FailureStatus) -> int | None:
    return failure.signal or (signal_of(failure.exit_code) if not failure.process else None)


def _says_why(failure: FailureStatus) -> bool:
    """Whether the last line names the cause. That of an error does, and that of a launcher which gives up; one about a
    step does not say why its process was killed after it."""
    if failure.reason in ("ScriptError", "Evicted"):
        return True
    return failure.reason not in ("OOMKilled", "ProcessExited") and _signal(failure) is None


def _by_signal(signal: int) -> str:
    """How a process ended by this signal, for a person."""
    if signal == 9:
        return _BY_SOMEBODY
    name = _SIGNALS.get(signal, f"signal {signal}")
    if signal in _CRASHES:
        return f"ended by {name} (a crash in compiled code)"
    return f"ended by {name}{' (sent by somebody else)' if signal in _FROM_OUTSIDE else ''}"


def _killed_for(tail: str) -> str:
    """Why its launcher killed it, as the last line says; empty if it did not."""
    last = tail.rstrip().rpartition("\n")[2]
    return last.removeprefix(KILLED) if last.startswith(KILLED) else ""


def _with_tail(message: str, ended: Terminated) -> str:
    last = last_line(ended.message)
    killed = ended.signal or signal_of(ended.exit_code)
    return f"{message}{'; last line: ' if killed else ': '}{last}" if last else message
