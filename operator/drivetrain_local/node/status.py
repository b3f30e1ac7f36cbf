"""What is the status of a pod, given the states of its containers? Pure, and in the words of a kubelet."""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_local.objects import Obj, dig


def phase(pod: Obj, inits: Sequence[Obj], mains: Sequence[Obj]) -> str:
    """Pending, Running, Succeeded or Failed, from the container statuses."""
    policy = pod["spec"].get("restartPolicy", "Always")
    for status in inits:
        code = dig(status, "state", "terminated", "exitCode")
        if code is not None and code != 0 and policy == "Never":
            return "Failed"
        if code != 0:
            return "Pending"
    codes = [dig(status, "state", "terminated", "exitCode") for status in mains]
    if all(code is not None for code in codes):
        if policy == "Never":
            return "Failed" if any(codes) else "Succeeded"
        if policy == "OnFailure" and not any(codes):
            return "Succeeded"
        return "Running"
    started = [
        dig(status, "state", "running") is not None
        or dig(status, "state", "terminated") is not None
        or dig(status, "lastState", "terminated") is not None
        for status in mains
    ]
    return "Running" if all(started) else "Pending"


def conditions(pod: Obj, phase_now: str, inits: Sequence[Obj], mains: Sequence[Obj], moment: str) -> list[Obj]:
    """The kubelet's conditions; those of others (PodScheduled) are kept, and transition times change with status."""
    before = {condition["type"]: condition for condition in dig(pod, "status", "conditions", default=[])}
    init_done = all(dig(status, "state", "terminated", "exitCode") == 0 for status in inits)
    unready = [status["name"] for status in mains if not status["ready"]]
    if phase_now in ("Succeeded", "Failed"):
        reason = "PodCompleted" if phase_now == "Succeeded" else "PodFailed"
        ready = {"status": "False", "reason": reason}
        init_done = init_done or not inits
    elif unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        ready = {"status": "False", "reason": "ContainersNotReady", "message": message}
    else:
        ready = {"status": "True"}
    initialized: Obj = {"status": "True"}
    if not init_done:
        waiting = [s["name"] for s in inits if dig(s, "state", "terminated", "exitCode") != 0]
        message = f"containers with incomplete status: [{' '.join(waiting)}]"
        initialized = {"status": "False", "reason": "ContainersNotInitialized", "message": message}
    if phase_now == "Succeeded":
        initialized["reason"] = "PodCompleted"
    ours = {
        "PodReadyToStartContainers": {"status": "False" if phase_now in ("Succeeded", "Failed") else "True"},
        "Initialized": initialized,
        "Ready": ready,
        "ContainersReady": dict(ready),
    }
    made = []
    for kind, condition in ours.items():
        old = before.get(kind, {})
        since = old.get("lastTransitionTime", moment) if old.get("status") == condition["status"] else moment
        made.append({"type": kind, "lastProbeTime": None, "lastTransitionTime": since, **condition})
    return made + [condition for kind, condition in before.items() if kind not in ours]


def lost_container(status: Obj) -> Obj:
    """A container that ran when the node agent died: nobody knows how it ended, so a kubelet says 137."""
    if dig(status, "state", "terminated") is not None:
        return status
    terminated = {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "startedAt": None,
        "finishedAt": None,
    }
    return {**status, "ready": False, "started": False, "state": {"terminated": terminated}}
