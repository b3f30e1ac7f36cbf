"""Which columns does `kubectl get` print for a built-in kind? Those of Kubernetes' own printers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from drivetrain_local.objects import Obj, dig, meta, now, parse_time

Cells = Callable[[Obj], list[Any]]
_WIDE = 1


def human_age(timestamp: str) -> str:
    """`45s`, `3m20s`, `5h`, `12d`: apimachinery's HumanDuration."""
    return human_duration(now() - parse_time(timestamp)) if timestamp else "<unknown>"


def human_duration(length: dt.timedelta) -> str:
    """How kubectl writes a length of time."""
    seconds = int(length.total_seconds())
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    years = days // 365
    return f"{years}y{days % 365}d" if years < 8 and days % 365 else f"{years}y"


def _age(obj: Obj) -> str:
    return human_age(meta(obj).get("creationTimestamp", ""))


def pod_status(pod: Obj) -> tuple[str, int, int]:
    """STATUS, ready containers and restarts of a pod, as kubectl shows them."""
    reason = dig(pod, "status", "reason") or dig(pod, "status", "phase", default="Unknown")
    restarts, ready, initializing = 0, 0, False
    for condition in dig(pod, "status", "conditions", default=[]):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    inits = dig(pod, "spec", "initContainers", default=[])
    for index, status in enumerate(dig(pod, "status", "initContainerStatuses", default=[])):
        restarts += status.get("restartCount", 0)
        terminated, waiting = dig(status, "state", "terminated"), dig(status, "state", "waiting")
        if terminated and terminated.get("exitCode") == 0:
            continue
        initializing = True
        if terminated:
            reason = f"Init:{terminated.get('reason') or 'ExitCode:' + str(terminated.get('exitCode'))}"
        elif waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{len(inits)}"
        break
    if not initializing:
        running = False
        for status in reversed(dig(pod, "status", "containerStatuses", default=[])):
            restarts += status.get("restartCount", 0)
            terminated, waiting = dig(status, "state", "terminated"), dig(status, "state", "waiting")
            if waiting and waiting.get("reason"):
                reason = waiting["reason"]
            elif terminated:
                signal = terminated.get("signal")
                fallback = f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode')}"
                reason = terminated.get("reason") or fallback
            elif status.get("ready") and dig(status, "state", "running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            reason = "Running"
    if meta(pod).get("deletionTimestamp"):
        reason = "Unknown" if dig(pod, "status", "reason") == "NodeLost" else "Terminating"
    return reason, ready, restarts


def _pod(pod: Obj) -> list[Any]:
    reason, ready, restarts = pod_status(pod)
    total = len(dig(pod, "spec", "containers", default=[]))
    return [
        meta(pod)["name"], f"{ready}/{total}", reason, str(restarts), _age(pod),
        dig(pod, "status", "podIP") or "<none>", dig(pod, "spec", "nodeName") or "<none>", "<none>", "<none>",
    ]  # fmt: skip


def _service(service: Obj) -> list[Any]:
    spec = service.get("spec", {})
    ports = ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports") or []) or "<none>"
    selector = ",".join(f"{k}={v}" for k, v in sorted((spec.get("selector") or {}).items())) or "<none>"
    address = spec.get("clusterIP") or "<none>"
    return [meta(service)["name"], spec.get("type"), address, "<none>", ports, _age(service), selector]


def _event(event: Obj) -> list[Any]:
    seen = event.get("lastTimestamp") or event.get("eventTime") or meta(event).get("creationTimestamp", "")
    first = event.get("firstTimestamp") or event.get("eventTime") or meta(event).get("creationTimestamp", "")
    about = event.get("involvedObject", {})
    source = dig(event, "source", "component") or event.get("reportingComponent", "")
    return [
        human_age(seen), event.get("type", ""), event.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}", about.get("fieldPath", ""), source,
        str(event.get("message", "")).strip(), human_age(first), event.get("count", 1), meta(event)["name"],
    ]  # fmt: skip


def _node(node: Obj) -> list[Any]:
    ready: Obj = next((c for c in dig(node, "status", "conditions", default=[]) if c["type"] == "Ready"), {})
    status = {"True": "Ready", "False": "NotReady"}.get(ready.get("status", ""), "Unknown" if not ready else "NotReady")
    if dig(node, "spec", "unschedulable"):
        status += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = ",".join(sorted(key[len(prefix) :] for key in meta(node).get("labels", {}) if key.startswith(prefix)))
    info = dig(node, "status", "nodeInfo", default={})
    addresses = {a["type"]: a["address"] for a in dig(node, "status", "addresses", default=[])}
    return [
        meta(node)["name"], status, roles or "<none>", _age(node), info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"), addresses.get("ExternalIP", "<none>"), info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"), info.get("containerRuntimeVersion", "<unknown>"),
    ]  # fmt: skip


def _endpoint_slice(endpoints: Obj) -> list[Any]:
    ports = ",".join(str(port.get("port", "*")) for port in endpoints.get("ports") or []) or "<unset>"
    addresses = [address for e in endpoints.get("endpoints") or [] for address in e.get("addresses", [])]
    shown = ",".join(addresses[:3]) + (f" + {len(addresses) - 3} more..." if len(addresses) > 3 else "")
    return [meta(endpoints)["name"], endpoints.get("addressType"), ports, shown or "<unset>", _age(endpoints)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _claim(claim: Obj) -> list[Any]:
    modes = ",".join(_MODES.get(mode, mode) for mode in dig(claim, "status", "accessModes", default=[]))
    return [
        meta(claim)["name"], dig(claim, "status", "phase", default=""), dig(claim, "spec", "volumeName", default=""),
        dig(claim, "status", "capacity", "storage", default=""), modes,
        dig(claim, "spec", "storageClassName", default=""),
        dig(claim, "spec", "volumeAttributesClassName") or "<unset>", _age(claim),
        dig(claim, "spec", "volumeMode", default=""),
    ]  # fmt: skip


def _named(*values: Callable[[Obj], Any]) -> Cells:
    return lambda obj: [meta(obj)["name"], *(value(obj) for value in values), _age(obj)]


def _lease_holder(lease: Obj) -> str:
    return str(dig(lease, "spec", "holderIdentity", default=""))


Head = list[tuple[str, str, int]]
_NAME, _AGE = ("Name", "string", 0), ("Age", "string", 0)


def _text(*names: str, wide: tuple[str, ...] = ()) -> Head:
    return [(name, "string", 0) for name in names] + [(name, "string", _WIDE) for name in wide]


BUILTIN: dict[str, tuple[Head, Cells]] = {
    "pods": (_text("Name", "Ready", "Status", "Restarts", "Age",
                   wide=("IP", "Node", "Nominated Node", "Readiness Gates")), _pod),
    "services": (_text("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", wide=("Selector",)), _service),
    "events": (
        [("Last Seen", "string", 0), ("Type", "string", 0), ("Reason", "string", 0), ("Object", "string", 0),
         ("Subobject", "string", _WIDE), ("Source", "string", _WIDE), ("Message", "string", 0),
         ("First Seen", "string", _WIDE), ("Count", "string", _WIDE), ("Name", "string", _WIDE)], _event),
    "nodes": (_text("Name", "Status", "Roles", "Age", "Version",
                    wide=("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime")), _node),
    "discovery.k8s.io/endpointslices": (_text("Name", "AddressType", "Ports", "Endpoints", "Age"), _endpoint_slice),
    "namespaces": (_text("Name", "Status", "Age"), _named(lambda ns: dig(ns, "status", "phase", default=""))),
    "configmaps": ([_NAME, ("Data", "string", 0), _AGE],
                   _named(lambda cm: len(cm.get("data") or {}) + len(cm.get("binaryData") or {}))),
    "secrets": ([_NAME, ("Type", "string", 0), ("Data", "string", 0), _AGE],
                _named(lambda secret: secret.get("type", ""), lambda secret: len(secret.get("data") or {}))),
    "persistentvolumeclaims": (_text("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass",
                                     "VolumeAttributesClass", "Age", wide=("VolumeMode",)), _claim),
    "serviceaccounts": ([_NAME, ("Secrets", "string", 0), _AGE], _named(lambda sa: len(sa.get("secrets") or []))),
    "coordination.k8s.io/leases": ([_NAME, ("Holder", "string", 0), _AGE], _named(_lease_holder)),
    "apiextensions.k8s.io/customresourcedefinitions": (
        [_NAME, ("Created At", "date", 0)],
        lambda crd: [meta(crd)["name"], meta(crd)["creationTimestamp"]]),
}  # fmt: skip
"""Column heads (name, type, priority) and cells by storage key."""
