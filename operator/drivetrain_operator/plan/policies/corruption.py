"""Whose memory held other bits than its peers', and which nodes get no more workers of this job for that?

Ranks compare their state, heal what differs and tell it (docs/corruption.md); here stands on which pod and node it
was. Ranks tell their last findings again and again: status keeps more of them than they tell, so each is taken over
once. A node is excluded by three in a row, of those that say something about it: which rank was right is known, and
what differed is not a buffer alone, which a script may have changed on one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivetrain_api.messages import Corruption
from drivetrain_api.status import (
    MAX_CORRUPTIONS_KEPT,
    MAX_EXCLUDED,
    ConditionType,
    CorruptionStatus,
    TrainingJobStatus,
)
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.conditions import stamp, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

IN_A_ROW: Final = 3
MAX_NODE: Final = 253
MAX_PROCESS: Final = 128


def corruption(view: View, status: TrainingJobStatus) -> Decision:
    """corruptions, excludedNodes, NodeExcluded."""
    report = fresh_report(view, status)
    told = report.progress.corruptions if report is not None and report.progress is not None else ()
    known = {_key(each) for each in status.corruptions}
    news = [each for each in (_entry(view, found) for found in told) if _key(each) not in known]
    if not news:
        return Decision(status)
    kept = [*status.corruptions, *news][-MAX_CORRUPTIONS_KEPT:]
    status = status.model_copy(update={"corruptions": kept})
    node = suspect(kept)
    if node is None or node in status.excluded_nodes or len(status.excluded_nodes) >= MAX_EXCLUDED:
        return Decision(status)
    status = status.model_copy(update={"excluded_nodes": [*status.excluded_nodes, node]})
    return Decision(with_condition(view, status, ConditionType.NODE_EXCLUDED, True, "HeldOtherBits", _why(status)))


def suspect(entries: Sequence[CorruptionStatus]) -> str | None:
    """The node of the last three findings that say something about a node, if they are of one."""
    telling = [each for each in entries if each.counted and each.node]
    steps: set[int] = set()
    for each in reversed(telling):
        if each.node != telling[-1].node:
            break
        steps.add(each.step)
    return telling[-1].node if len(steps) >= IN_A_ROW else None


def summary(found: CorruptionStatus) -> str:
    """One finding, for people."""
    what = f" in {found.what}" if found.what else ""
    where = f"rank {found.rank}{_place(found)}"
    if not found.known:
        return (
            f"{where} and its peers held different bits{what} before step {found.step}, and nothing says which were "
            f"right: all go on with the state of rank {found.peer}"
        )
    buffers = "" if found.counted else "; a script that changes a buffer on one rank does that, too"
    return (
        f"{where} held other bits than its peers{what} before step {found.step}, has taken the state of rank "
        f"{found.peer}, and training went on{buffers}"
    )


def of_one_finding(entries: Sequence[CorruptionStatus]) -> list[CorruptionStatus]:
    """Where nobody knows who was right, all ranks have an entry: the first speaks for them."""
    seen: set[int] = set()
    found = []
    for each in entries:
        if each.known or each.step not in seen:
            found.append(each)
        if not each.known:
            seen.add(each.step)
    return found


def _place(found: CorruptionStatus) -> str:
    if not found.pod:
        return ""
    return f" in pod {found.pod}" + (f" on node {found.node}" if found.node else "")


def _why(status: TrainingJobStatus) -> str:
    last = status.corruptions[-1]
    nodes = ", ".join(status.excluded_nodes)
    return (
        f"{nodes}: three times in a row a worker there held other bits than its peers, last before step {last.step}. "
        "New workers of this job keep off; the one that is there goes on and is healed each time: to move it, "
        f"delete pod {last.pod}"
    )


def _key(found: CorruptionStatus) -> tuple[int, int, str]:
    return (found.step, found.rank, found.process)


def _entry(view: View, found: Corruption) -> CorruptionStatus:
    uid = found.process.partition("/")[0]
    pod = next((each for each in view.pods if each.uid == uid), None)
    return CorruptionStatus(
        time=stamp(view.now),
        step=found.step,
        rank=found.rank,
        process=found.process[:MAX_PROCESS],
        pod=pod.name if pod is not None else "",
        node=pod.node[:MAX_NODE] if pod is not None else "",
        peer=found.peer,
        what=found.what,
        known=found.known,
        counted=found.known and not found.only_buffers,
    )
