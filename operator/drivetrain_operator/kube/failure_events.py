"""Events of what failed, or stands in the way: the second half of the table in `events.py`."""

from typing import Final

from drivetrain_operator.kube.event import EventReason

FAILURE_EVENTS: Final = (
    # Why it ended without success.
    EventReason(
        "DeadlineExceeded",
        "Warning",
        "spec.activeDeadlineSeconds has passed.",
        "spec.activeDeadlineSeconds was too short for this training.",
    ),
    EventReason(
        "OwnNamespace",
        "Warning",
        "The job is in the operator's own namespace, where none is started; the message names the setting.",
        "Create the job in another namespace, or set the chart's allowOwnNamespace (docs/security.md "
        "says what that opens).",
    ),
    EventReason(
        "RestartBudgetExceeded",
        "Warning",
        "More incidents than recovery.maxRestarts.",
        "Mend what status.failures names (drivetrain why); or raise recovery.maxRestarts in a new job.",
    ),
    EventReason(
        "Replaced",
        "Normal",
        "A process was ended by Drivetrain itself, for no fault of its script; it costs nothing.",
        "Nothing; if it comes at each step, the message says what for.",
    ),
    # Why a process or worker failed.
    EventReason(
        "InitContainerFailed",
        "Warning",
        "An init container of the worker failed; says which, and how.",
        "Mend the init container of spec.podTemplate that is named; what it said is below.",
    ),
    EventReason(
        "Evicted",
        "Warning",
        "The kubelet evicted the worker: for what it used itself, or because its node was full.",
        "The worker used more disk than it may: raise its ephemeral-storage limit or the volume's sizeLimit.",
    ),
    EventReason(
        "NeverStarted",
        "Warning",
        "The script ended with exit code 0 and never called drivetrain.start().",
        "The script must call drivetrain.start() in the process that spec.command starts. For one "
        "that does not, set spec.runtime to torchrun (in a new job).",
    ),
    EventReason(
        "ScriptError",
        "Warning",
        "The training script raised; its traceback is in status.failures.",
        "The script raised; its traceback is below.",
    ),
    EventReason(
        "StateLost",
        "Warning",
        "A rank found a part of a sharded state gone. The job goes on from the last save; without one it fails.",
        "A part of the state is gone where a rank and the one with its copy die together, or there is "
        "no copy (recovery.replicas): set spec.snapshots, or call run.save now and then and hand the "
        "file to prepare(resume=...).",
    ),
    EventReason(
        "NoProgress",
        "Warning",
        "A rank was killed because the others waited for it in vain, for recovery.noProgressSeconds or while the "
        "membership formed; the message says where it was, with its stack.",
        "The stack below is where the rank was. If it only takes long there, raise "
        "spec.recovery.noProgressSeconds (it may be changed while the job runs).",
    ),
    EventReason(
        "ProcessExited",
        "Warning",
        "A rank ended with an exit code other than 0.",
        "Look at the last lines that the process printed, in status.failures.",
    ),
    EventReason(
        "ProcessCrashed",
        "Warning",
        "A rank was ended by a signal such as SIGSEGV.",
        "Look at the stack in the log: a crash of compiled code, such as an extension, a driver or a library.",
    ),
    EventReason(
        "ProcessKilled",
        "Warning",
        "A rank was killed (SIGKILL), often by the node's out-of-memory killer.",
        "Often the node's out-of-memory killer: look at the pod's memory limit.",
    ),
    EventReason(
        "OOMKilled",
        "Warning",
        "The container used more memory than its limit; raise resources.limits.memory.",
        "Raise resources.limits.memory of the container `worker` in spec.podTemplate.",
    ),
    EventReason(
        "CommandNotFound",
        "Warning",
        "spec.command could not be started in this image.",
        "Correct spec.command as the message says (in a new job), or use an image that has the program.",
    ),
    EventReason(
        "ImageDoesNotFit",
        "Warning",
        "spec.image lacks Python 3.10, torch or a package that the job needs.",
        "Install what the message names in the image, or make it from drivetrain-worker.",
    ),
    EventReason(
        "RequirementsNotInstalled",
        "Warning",
        "The packages of drivetrain run --requirements could not be installed; the message names the requirement.",
        "Correct the requirements file as the message says (in a new job), or mend the way to the "
        "package index; what pip said in full: kubectl logs POD -c requirements.",
    ),
    EventReason(
        "StartError",
        "Warning",
        "The container runtime could not start the container.",
        "Look at the message of the container runtime: often a mount, a device or a runtime class that the node lacks.",
    ),
    EventReason(
        "ContainerCannotRun",
        "Warning",
        "The container runtime could not start the container.",
        "Look at the message of the container runtime: often a mount, a device or a runtime class that the node lacks.",
    ),
    EventReason(
        "LauncherUsage",
        "Warning",
        "The launcher cannot use what the operator gave it: their versions do not match.",
        "Use a worker image of the operator's release, or set spec.runtimeFrom to operator (in a new job).",
    ),
    EventReason(
        "StorageFailed",
        "Warning",
        "spec.storage could not be used; the message has the path and the reason.",
        "Look at what is said of spec.storage: its volume or its URL, and who may write there (docs/results.md).",
    ),
    EventReason(
        "ResultsLost",
        "Warning",
        "A worker ended before all that it had left was at the URL of spec.storage; the message has what was refused.",
        "Mend what the storage refuses; what is missing there is gone with the worker (docs/results.md).",
    ),
    EventReason(
        "LauncherCrashed",
        "Warning",
        "The launcher itself failed; please report it.",
        "Please report it, with the traceback in the pod's log.",
    ),
    EventReason(
        "WorkerFailed",
        "Warning",
        "A worker pod failed in a way that has no name of its own; the message has the exit code.",
        "Look at the exit code and the last line in the message, and at the pod's log.",
    ),
    EventReason(
        "PodFailed",
        "Warning",
        "A worker pod failed before its container could say why.",
        "Look at the pod's events: kubectl describe pod.",
    ),
    EventReason(
        "Killed",
        "Warning",
        "All processes of a worker were killed from outside.",
        "Look who signals processes on that node: often its out-of-memory killer.",
    ),
    EventReason(
        "Fenced",
        "Warning",
        "A worker was cut off for recovery.fenceSeconds and ended itself.",
        "The worker lost touch with its coordinator and with all others: look at the network between nodes.",
    ),
    EventReason(
        "Refused",
        "Warning",
        "The coordinator refused a worker, for example one that was already replaced.",
        "Nothing, if the worker was replaced; else look at the coordinator's log.",
    ),
    EventReason(
        "Stopped",
        "Warning",
        "A worker was told to stop while it was still wanted.",
        "Nothing; if it comes without anybody stopping the job, please report it.",
    ),
    EventReason(
        "Left",
        "Warning",
        "A worker was told to go and left after its last step.",
        "Nothing; the worker was drained or is beyond spec.workers.",
    ),
    # What stands in the way of a full set of workers.
    EventReason(
        "InvalidSpec",
        "Warning",
        "The stored spec breaks a rule, most often of a newer release: nothing is created until it is mended; what "
        "runs goes on, and is suspended, ended and deleted as wished.",
        "Correct spec as the message says (kubectl edit trainingjob). What runs goes on meanwhile; "
        "nothing that is lost is replaced.",
    ),
    EventReason(
        "InvalidTemplate",
        "Warning",
        "The pod that spec.podTemplate makes is refused; the message names the field.",
        "Correct the template at the path named; pods are created again when spec changes.",
    ),
    EventReason(
        "ScriptNotFound",
        "Warning",
        "spec.script names a ConfigMap, or a key of one, that does not exist.",
        "Create the ConfigMap in the job's namespace, with that key; the job goes on by itself.",
    ),
    EventReason(
        "NameConflict",
        "Warning",
        "An object that the job needs exists already and belongs to somebody else.",
        "Delete or rename the object that has the name, or give the job another name.",
    ),
    EventReason(
        "QuotaExceeded",
        "Warning",
        "A ResourceQuota of the namespace is used up.",
        "Raise the ResourceQuota that is named, free what it counts, or lower spec.workers.",
    ),
    EventReason(
        "Forbidden",
        "Warning",
        "Admission (such as Pod Security) or RBAC refused an object.",
        "The namespace's admission rules or the operator's permissions (RBAC) refuse the object.",
    ),
    EventReason(
        "CreateFailed",
        "Warning",
        "An object could not be created; the message is the API server's.",
        "Do what the API server's message asks for; the operator tries again by itself.",
    ),
    EventReason(
        "ImagePullFailed",
        "Warning",
        "An image cannot be pulled; the message is the registry's.",
        "Correct spec.image (in a new job), or make the image available to the nodes.",
    ),
    EventReason(
        "Unschedulable",
        "Warning",
        "No node has room; the message counts what is missing.",
        "Free capacity, add nodes, or ask for less (spec.workers, gpusPerWorker, podTemplate resources).",
    ),
    EventReason(
        "WorkersTakenAway",
        "Warning",
        "The platform takes away each new pod of a worker at once (a taint, preemption, a drain): the next ones wait, "
        "up to five minutes. It costs no restart.",
        "status.departures says who takes them: look at that taint, drain, or pod of higher priority.",
    ),
    EventReason(
        "IncompatibleWorkerImage",
        "Warning",
        "Worker image and operator share no protocol version; both are named.",
        "Rebuild spec.image with a drivetrain of the operator's release, or set spec.runtimeFrom to "
        "operator (in a new job).",
    ),
)
