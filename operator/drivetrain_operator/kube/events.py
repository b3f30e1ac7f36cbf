"""Which Events the operator posts, and what each means to the person who reads it.

A table and nothing else, from which `docs/reference/events.md` is generated:

    python -m drivetrain_operator.kube.events > docs/reference/events.md
"""

from typing import Final

from drivetrain_operator.kube.event import EventReason
from drivetrain_operator.kube.failure_events import FAILURE_EVENTS

EVENTS: Final = (
    # What the job does.
    EventReason(
        "Started", "Normal", "The job became active; the message says how many workers are wanted.", "Nothing."
    ),
    EventReason("Scaled", "Normal", "The number of wanted workers changed.", "Nothing."),
    EventReason("Training", "Normal", "All ranks of the first membership are training.", "Nothing."),
    EventReason(
        "Recovered",
        "Normal",
        "Training went on after a loss, with the survivors or, of a stock script, with all ranks started again in "
        "their pods; the message says how long it took, where that is known.",
        "Nothing; if it comes often, drivetrain why says what is lost again and again.",
    ),
    EventReason(
        "JobSuspended",
        "Normal",
        "spec.suspend was set: pods end, steps since the last save are trained again later; says how far it was.",
        "Nothing; drivetrain resume lets it go on.",
    ),
    EventReason(
        "WaitsForEnergy",
        "Normal",
        "The plan of its energy, its budget, or a limit of its power domain has the job wait; says for what.",
        "Nothing; drivetrain energy shows the plan. A nearer spec.energy.deadline has it run sooner.",
    ),
    EventReason(
        "EnergyPlanned",
        "Normal",
        "A plan of when and with how many workers the job runs was made, or made anew; says what it saves.",
        "Nothing; drivetrain energy shows it.",
    ),
    EventReason(
        "EnergyNotPlanned",
        "Normal",
        "The job runs at once, or as fast as it can: says why nothing justifies a wait.",
        "Nothing, or give what is missing: a deadline, training.steps, a profile, a source of carbon intensity "
        "(docs/energy.md).",
    ),
    EventReason(
        "EnergyBudgetUsedUp",
        "Warning",
        "The job has used all of spec.energy.budget; says what follows.",
        "Raise spec.energy.budget, or let it go on as it says.",
    ),
    EventReason(
        "PowerLimited",
        "Normal",
        "The job's power domain has to draw less: it has fewer workers, or is suspended, until that is over.",
        "Nothing; spec.energy.tier says what it gives before others do (docs/energy-power.md).",
    ),
    EventReason("PowerRestored", "Normal", "The limit of its power domain is over for this job.", "Nothing."),
    EventReason(
        "WorkersSteered",
        "Normal",
        "New workers prefer nodes where their work takes the least, and keep off hot ones; says which, and why.",
        "Nothing; the scheduler has the last word, and energy.yaml turns it off (docs/energy-placement.md).",
    ),
    EventReason("JobResumed", "Normal", "spec.suspend was cleared.", "Nothing."),
    EventReason(
        "Completed",
        "Normal",
        "All ranks finished; the job succeeded.",
        "Nothing; fetch the results with drivetrain get.",
    ),
    EventReason(
        "EnergyUsed",
        "Normal",
        "The job ended; the message says how much electricity it took, what that emitted and cost, what was planned.",
        "Nothing; drivetrain energy says what of it was measured.",
    ),
    EventReason(
        "CoordinatorReplaced",
        "Warning",
        "The coordinator was lost; another of a higher term follows; training goes on. Says how it ended.",
        "Nothing; if it comes often, docs/operations.md says what its causes mean.",
    ),
    EventReason(
        "NoSurvivor",
        "Warning",
        "Every process that held the training state is gone: training starts over.",
        "Set spec.snapshots, or call run.save now and then, so that training goes on from there; "
        "spread workers over nodes.",
    ),
    EventReason(
        "PartLost",
        "Warning",
        "A rank took its part of a sharded state along: training starts over from the last save; says from where.",
        "Set recovery.replicas or spec.snapshots, so that a part of the state outlives its rank.",
    ),
    EventReason(
        "StateCorrupted",
        "Warning",
        "A rank held other bits than most of its peers (a bit that flipped, a defective processor) and took the state "
        "of one; training went on. Names rank, pod, node and tensor.",
        "Nothing for the job; have the node's memory and accelerators checked if it is named again "
        "(docs/corruption.md).",
    ),
    EventReason(
        "StateDiffered",
        "Warning",
        "Ranks held different bits and nothing says which were right, as of two; all go on with those of the lowest.",
        "Train with three workers or more, so that most of them say which bits are right (docs/corruption.md).",
    ),
    EventReason(
        "NodeTooHot",
        "Warning",
        "A node of the job's workers is hotter than maxTemperatureC of its power domain: its cards are capped, and "
        "where that does not help, workers leave it one after the other. Names node and degrees.",
        "Have the node's cooling looked at, and cordon it meanwhile (docs/energy-power.md).",
    ),
    EventReason("NodeCool", "Normal", "None of the job's workers' nodes is too hot any more.", "Nothing."),
    EventReason(
        "NodeExcluded",
        "Warning",
        "Three StateCorrupted in a row were on one node: new workers of the job keep off it.",
        "Have the node's hardware checked, and cordon it meanwhile (docs/corruption.md).",
    ),
    EventReason(
        "StandingStill",
        "Warning",
        "All workers are there and nothing moves; the message says who waits for whom.",
        "Look at that line of the script, and at that pod. After recovery.noProgressSeconds it is an "
        "incident: late ranks are killed, and their stacks are shown here.",
    ),
    EventReason(
        "HeldUp",
        "Warning",
        "In every step the others wait for one rank, by a tenth of a step or more; says which, where it runs, in what "
        "it takes longer and by how much.",
        "Look at what that stage does on that rank, and at what else runs on its node; delete the pod to have the "
        "worker moved (docs/stragglers.md).",
    ),
    EventReason("NoLongerHeldUp", "Normal", "The others do not wait for that rank any more.", "Nothing."),
    EventReason(
        "RankLate",
        "Warning",
        "A rank that the others wait for, in a job that stands still: its pod, node, line and last collective, and the "
        "end of its stack.",
        "Look at that line; the whole stack and its last collectives are in its pod's log. What it may mean: "
        "docs/hangs.md.",
    ),
    EventReason(
        "ReportUnusable",
        "Warning",
        "Nothing can be decided with what the coordinator says: the job is looked after as if it was silent.",
        "Look at what the message names; if operator and coordinator are of one release, please report it.",
    ),
    EventReason(
        "ClocksDiffer",
        "Warning",
        "An operator whose clock was days ahead wrote times into status: they count from now, deadlines, too.",
        "Set the clock of the nodes on which the operator runs; look at what is left of spec.activeDeadlineSeconds.",
    ),
    EventReason(
        "UnknownField",
        "Warning",
        "spec.podTemplate has a field that no pod has, most often a typing error; Kubernetes drops it.",
        "Correct the field that is named in spec.podTemplate, or take it out.",
    ),
    # Who took a worker: each gets a successor, and none costs a restart. status.departures keeps them.
    EventReason(
        "EvictionByEvictionAPI",
        "Warning",
        "Workers were evicted through the API, as a drain does.",
        "Nothing; the node that is named is being drained.",
    ),
    EventReason(
        "PreemptionByScheduler",
        "Warning",
        "Workers were preempted for pods of higher priority.",
        "Nothing, or give the job's pods a priorityClassName of higher priority.",
    ),
    EventReason(
        "DeletionByTaintManager",
        "Warning",
        "Workers' node got a taint, such as unreachable or not-ready.",
        "Look at the node that is named and at its taints; tolerate the taint where workers should stay.",
    ),
    EventReason(
        "DeletionByPodGC",
        "Warning",
        "Workers' node is gone.",
        "Nothing; a new node has to come if the job should have as many workers again.",
    ),
    EventReason(
        "TerminationByKubelet",
        "Warning",
        "A kubelet ended workers: its node shuts down, or lacks room.",
        "Look at the node that is named: what it lacks, or why it was shut down.",
    ),
    EventReason(
        "Deleted",
        "Warning",
        "Somebody deleted worker pods; Kubernetes does not say who.",
        "Nothing; if nobody is known to have done it, the API server's audit log says who.",
    ),
    EventReason(
        "Gone",
        "Warning",
        "Worker pods vanished without a word: deleted by force, or with their node.",
        "Look at the node that is named: pods vanish with it, or are deleted by force.",
    ),
    EventReason(
        "StatusUnreadable",
        "Warning",
        "Somebody, or another release, wrote something into status that cannot be: the job is left alone until it is "
        "mended; the message names the field and the command.",
        "Mend the field that is named, with the command in the message (docs/operations.md).",
    ),
    *FAILURE_EVENTS,
)


def reference() -> str:
    """The table in Markdown."""
    rows = [f"| `{event.reason}` | {event.type} | {event.description} | {event.advice} |" for event in EVENTS]
    return "\n".join(
        [
            "# Events",
            "",
            "Generated by `python -m drivetrain_operator.kube.events`; do not edit.",
            "",
            "| Reason | Type | Meaning | What to do |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(reference(), end="")
