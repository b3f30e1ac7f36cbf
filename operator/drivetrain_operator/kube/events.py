"""Which Events the operator posts, and what each means to the person who reads it.

A table and nothing else, from which `docs/reference/events.md` is generated:

    python -m drivetrain_operator.kube.events > docs/reference/events.md
"""

from dataclasses import dataclass
from typing import Final, Literal

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class EventReason:
    """One row. `reason` is what stands in `event.reason`, and where it names a condition or failure, there too."""

    reason: str
    type: EventType
    description: str


EVENTS: Final = (
    # What the job does.
    EventReason("Started", "Normal", "The job became active; the message says how many workers are wanted."),
    EventReason("Scaled", "Normal", "The number of wanted workers changed."),
    EventReason("Training", "Normal", "All ranks of the first membership are training."),
    EventReason(
        "Recovered",
        "Normal",
        "Training went on after a loss, with the survivors or, of a stock script, with all ranks started again in "
        "their pods; the message says how long it took, where that is known.",
    ),
    EventReason(
        "JobSuspended",
        "Normal",
        "spec.suspend was set: pods end, steps since the last save are trained again later; says how far it was.",
    ),
    EventReason("JobResumed", "Normal", "spec.suspend was cleared."),
    EventReason("Completed", "Normal", "All ranks finished; the job succeeded."),
    EventReason(
        "CoordinatorReplaced",
        "Warning",
        "The coordinator was lost; another of a higher term follows; training goes on. Says how it ended.",
    ),
    EventReason("NoSurvivor", "Warning", "Every process that held the training state is gone: training starts over."),
    EventReason(
        "PartLost",
        "Warning",
        "A rank took its part of a sharded state along: training starts over from the last save; says from where.",
    ),
    EventReason(
        "StateCorrupted",
        "Warning",
        "A rank held other bits than most of its peers (a bit that flipped, a defective processor) and took the state "
        "of one; training went on. Names rank, pod, node and tensor.",
    ),
    EventReason(
        "StateDiffered",
        "Warning",
        "Ranks held different bits and nothing says which were right, as of two; all go on with those of the lowest.",
    ),
    EventReason(
        "NodeExcluded",
        "Warning",
        "Three StateCorrupted in a row were on one node: new workers of the job keep off it.",
    ),
    EventReason(
        "StandingStill", "Warning", "All workers are there and nothing moves; the message says who waits for whom."
    ),
    EventReason(
        "ReportUnusable",
        "Warning",
        "Nothing can be decided with what the coordinator says: the job is looked after as if it was silent.",
    ),
    EventReason(
        "ClocksDiffer",
        "Warning",
        "An operator whose clock was days ahead wrote times into status: they count from now, deadlines, too.",
    ),
    EventReason(
        "UnknownField",
        "Warning",
        "spec.podTemplate has a field that no pod has, most often a typing error; Kubernetes drops it.",
    ),
    # Who took a worker: each gets a successor, and none costs a restart. status.departures keeps them.
    EventReason("EvictionByEvictionAPI", "Warning", "Workers were evicted through the API, as a drain does."),
    EventReason("PreemptionByScheduler", "Warning", "Workers were preempted for pods of higher priority."),
    EventReason("DeletionByTaintManager", "Warning", "Workers' node got a taint, such as unreachable or not-ready."),
    EventReason("DeletionByPodGC", "Warning", "Workers' node is gone."),
    EventReason("TerminationByKubelet", "Warning", "A kubelet ended workers: its node shuts down, or lacks room."),
    EventReason("Deleted", "Warning", "Somebody deleted worker pods; Kubernetes does not say who."),
    EventReason("Gone", "Warning", "Worker pods vanished without a word: deleted by force, or with their node."),
    EventReason(
        "StatusUnreadable",
        "Warning",
        "Somebody, or another release, wrote something into status that cannot be: the job is left alone until it is "
        "mended; the message names the field and the command.",
    ),
    # Why it ended without success.
    EventReason("DeadlineExceeded", "Warning", "spec.activeDeadlineSeconds has passed."),
    EventReason(
        "OwnNamespace",
        "Warning",
        "The job is in the operator's own namespace, where none is started; the message names the setting.",
    ),
    EventReason("RestartBudgetExceeded", "Warning", "More incidents than recovery.maxRestarts."),
    EventReason(
        "Replaced", "Normal", "A process was ended by Drivetrain itself, for no fault of its script; it costs nothing."
    ),
    # Why a process or worker failed.
    EventReason("InitContainerFailed", "Warning", "An init container of the worker failed; says which, and how."),
    EventReason(
        "Evicted", "Warning", "The kubelet evicted the worker: for what it used itself, or because its node was full."
    ),
    EventReason("NeverStarted", "Warning", "The script ended with exit code 0 and never called drivetrain.start()."),
    EventReason("ScriptError", "Warning", "The training script raised; its traceback is in status.failures."),
    EventReason(
        "StateLost",
        "Warning",
        "A rank found a part of a sharded state gone. The job goes on from the last save; without one it fails.",
    ),
    EventReason(
        "NoProgress",
        "Warning",
        "A rank was killed because the others waited for it in vain, for recovery.noProgressSeconds or while the "
        "membership formed; the message says where it was, with its stack.",
    ),
    EventReason("ProcessExited", "Warning", "A rank ended with an exit code other than 0."),
    EventReason("ProcessCrashed", "Warning", "A rank was ended by a signal such as SIGSEGV."),
    EventReason("ProcessKilled", "Warning", "A rank was killed (SIGKILL), often by the node's out-of-memory killer."),
    EventReason(
        "OOMKilled", "Warning", "The container used more memory than its limit; raise resources.limits.memory."
    ),
    EventReason("CommandNotFound", "Warning", "spec.command could not be started in this image."),
    EventReason("ImageDoesNotFit", "Warning", "spec.image lacks Python 3.10, torch or a package that the job needs."),
    EventReason(
        "RequirementsNotInstalled",
        "Warning",
        "The packages of drivetrain run --requirements could not be installed; the message names the requirement.",
    ),
    EventReason("StartError", "Warning", "The container runtime could not start the container."),
    EventReason("ContainerCannotRun", "Warning", "The container runtime could not start the container."),
    EventReason(
        "LauncherUsage", "Warning", "The launcher cannot use what the operator gave it: their versions do not match."
    ),
    EventReason("StorageFailed", "Warning", "spec.storage could not be used; the message has the path and the reason."),
    EventReason(
        "ResultsLost",
        "Warning",
        "A worker ended before all that it had left was at the URL of spec.storage; the message has what was refused.",
    ),
    EventReason("LauncherCrashed", "Warning", "The launcher itself failed; please report it."),
    EventReason(
        "WorkerFailed",
        "Warning",
        "A worker pod failed in a way that has no name of its own; the message has the exit code.",
    ),
    EventReason("PodFailed", "Warning", "A worker pod failed before its container could say why."),
    EventReason("Killed", "Warning", "All processes of a worker were killed from outside."),
    EventReason("Fenced", "Warning", "A worker was cut off for recovery.fenceSeconds and ended itself."),
    EventReason("Refused", "Warning", "The coordinator refused a worker, for example one that was already replaced."),
    EventReason("Stopped", "Warning", "A worker was told to stop while it was still wanted."),
    EventReason("Left", "Warning", "A worker was told to go and left after its last step."),
    # What stands in the way of a full set of workers.
    EventReason(
        "InvalidSpec",
        "Warning",
        "The stored spec breaks a rule, most often of a newer release: nothing is created until it is mended; what "
        "runs goes on, and is suspended, ended and deleted as wished.",
    ),
    EventReason(
        "InvalidTemplate", "Warning", "The pod that spec.podTemplate makes is refused; the message names the field."
    ),
    EventReason("ScriptNotFound", "Warning", "spec.script names a ConfigMap, or a key of one, that does not exist."),
    EventReason("NameConflict", "Warning", "An object that the job needs exists already and belongs to somebody else."),
    EventReason("QuotaExceeded", "Warning", "A ResourceQuota of the namespace is used up."),
    EventReason("Forbidden", "Warning", "Admission (such as Pod Security) or RBAC refused an object."),
    EventReason("CreateFailed", "Warning", "An object could not be created; the message is the API server's."),
    EventReason("ImagePullFailed", "Warning", "An image cannot be pulled; the message is the registry's."),
    EventReason("Unschedulable", "Warning", "No node has room; the message counts what is missing."),
    EventReason(
        "WorkersTakenAway",
        "Warning",
        "The platform takes away each new pod of a worker at once (a taint, preemption, a drain): the next ones wait, "
        "up to five minutes. It costs no restart.",
    ),
    EventReason(
        "IncompatibleWorkerImage", "Warning", "Worker image and operator share no protocol version; both are named."
    ),
)


def reference() -> str:
    """The table in Markdown."""
    rows = [f"| `{event.reason}` | {event.type} | {event.description} |" for event in EVENTS]
    return "\n".join(
        [
            "# Events",
            "",
            "Generated by `python -m drivetrain_operator.kube.events`; do not edit.",
            "",
            "| Reason | Type | Meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(reference(), end="")
