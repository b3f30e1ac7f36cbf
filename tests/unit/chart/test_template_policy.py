"""What the chart's admission policy lets pod templates say: its CEL, evaluated as the API server evaluates it.

Its messages are the names of its rules. That the real API server takes it is an e2e test.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from drivetrain_local.apiserver.cel import CelError, compiled
from harness.helm import rendered

ROOT: Final = Path(__file__).parents[3]
Json = dict[str, Any]


def policy(**values: Any) -> Json:
    """The policy as the chart renders it with these values of `templatePolicy`."""
    return _rendered(json.dumps(values))


@functools.cache
def _rendered(values: str) -> Json:
    given = {"templatePolicy": {"enabled": True, **json.loads(values)}}
    objects = rendered(given, "--show-only", "templates/templatepolicy.yaml")
    return next(each for (kind, _), each in objects.items() if kind == "ValidatingAdmissionPolicy")


def value(expression: str, seen: Json) -> Any:
    """Our evaluator knows rules of CRDs, which see `self`: there stand the variables of a policy."""
    return compiled(re.sub(r"(?<![\w.])(variables|object|oldObject|request)\b", r"self.\1", expression)).value(
        {"self": seen, "oldSelf": None}
    )


class Variables(dict[str, Any]):
    """Each is evaluated when it is asked for, as by the API server."""

    def __init__(self, declared: list[Json], seen: Json) -> None:
        self._expressions = {each["name"]: each["expression"] for each in declared}
        self._seen = seen
        super().__init__(dict.fromkeys(self._expressions))

    def __getitem__(self, name: str) -> Any:
        return value(self._expressions[name], {**self._seen, "variables": self})


def refusals(job: Json, **values: Any) -> list[str]:
    """Messages of the rules that a job breaks; a rule that cannot be evaluated is broken, too."""
    spec = policy(**values)["spec"]
    seen = {"object": job, "oldObject": None}
    seen["variables"] = Variables(spec["variables"], seen)
    found = []
    for each in spec["validations"]:
        try:
            holds = value(each["expression"], seen)
        except CelError:
            holds = False
        if holds is not True:
            found.append(each["message"])
    return found


def a_job(template: Json | None = None, **spec: Any) -> Json:
    given = {"image": "train", "podTemplate": template or {}, "coordinator": {"podTemplate": {}}, **spec}
    return {"metadata": {"name": "lm", "namespace": "ns"}, "spec": given}


def pod(**fields: Any) -> Json:
    return {"spec": fields}


def container(**fields: Any) -> Json:
    return pod(containers=[{"name": "worker", **fields}])


def context(**fields: Any) -> Json:
    return container(securityContext=fields)


def volume(**source: Any) -> Json:
    return pod(volumes=[{"name": "v", **source}])


def projected(*sources: Json) -> Json:
    return volume(projected={"sources": list(sources)})


ALLOWED: list[tuple[str, Json]] = [
    ("nothing", {}),
    ("memory, and a variable", container(resources={"limits": {"memory": "8Gi"}}, env=[{"name": "A", "value": "1"}])),
    ("a node pool", pod(nodeSelector={"pool": "gpu"}, tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}])),
    ("a claim", volume(persistentVolumeClaim={"claimName": "data"})),
    ("a scratch disk", volume(ephemeral={"volumeClaimTemplate": {"spec": {}}})),
    ("an init container", pod(initContainers=[{"name": "fetch", "image": "curl", "command": ["fetch"]}])),
    ("a sidecar", pod(initContainers=[{"name": "logs", "image": "tail", "restartPolicy": "Always"}])),
    ("a ConfigMap", container(envFrom=[{"configMapRef": {"name": "settings"}}])),
    ("its own name", container(env=[{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])),
    ("another user", pod(securityContext={"runAsUser": 2000, "fsGroup": 0})),
    ("stricter than we are", context(readOnlyRootFilesystem=True, privileged=False, capabilities={"drop": ["ALL"]})),
    ("a probe of its own", container(readinessProbe={"httpGet": {"path": "/", "port": 80}}, lifecycle={"preStop": {}})),
    ("no probe", container(readinessProbe=None)),
    ("a port", container(ports=[{"name": "board", "containerPort": 6006}])),
    ("no token, said twice", pod(automountServiceAccountToken=False)),
    ("parts in one folder", projected({"configMap": {"name": "a"}}, {"downwardAPI": {"items": []}})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "template"), ALLOWED, ids=[name for name, _ in ALLOWED])
def test_what_stays_within_the_job_passes(name: str, template: Json) -> None:
    assert refusals(a_job(template)) == []
    assert refusals(a_job(coordinator={"podTemplate": template})) == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/job.yaml")), ids=lambda path: path.parent.name)
def test_every_example_passes(path: Path) -> None:
    jobs = [each for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "TrainingJob"]
    assert jobs
    assert [refusals(job) for job in jobs] == [[]] * len(jobs)


UNKNOWN = "a pod template's spec has only"
CONTAINER = "a container has only"
CONTEXT = "a securityContext has only"
SNAPSHOTS: Json = {"storage": {"url": "s3://bucket", "secretName": "keys"}}
VOLUME = "a volume is"
ENV = "env and envFrom take only"
ACCOUNT = "service accounts of pods"
NULL = "securityContext must not be null"
NULLS = "metadata and spec of a pod template"
HOST = "probes and lifecycle hooks"
REFUSED: list[tuple[str, Json, str]] = [
    ("another object", {"kind": "Pod"}, "a pod template has only"),
    ("metadata of ours", {"metadata": {"finalizers": ["x"]}}, "a pod template has only"),
    ("another app's label", {"metadata": {"labels": {"app": "payments"}}}, "labels and annotations"),
    ("an annotation for AppArmor", {"metadata": {"annotations": {
        "container.apparmor.security.beta.kubernetes.io/worker": "unconfined"}}}, "labels and annotations"),
    ("the node's network", pod(hostNetwork=True), UNKNOWN),
    ("the node's processes", pod(hostPID=True), UNKNOWN),
    ("the node's memory", pod(hostIPC=True), UNKNOWN),
    ("the node's users", pod(hostUsers=True), UNKNOWN),
    ("one process namespace", pod(shareProcessNamespace=True), UNKNOWN),
    ("a node, past the scheduler", pod(nodeName="master"), UNKNOWN),
    ("another scheduler", pod(schedulerName="mine"), UNKNOWN),
    ("the old name of the account", pod(serviceAccount="admin"), UNKNOWN),
    ("an ephemeral container", pod(ephemeralContainers=[{"name": "x"}]), UNKNOWN),
    ("devices", pod(resourceClaims=[{"name": "x"}]), UNKNOWN),
    ("a priority by number", pod(priority=2_000_000_000), UNKNOWN),
    ("Windows", pod(os={"name": "windows"}), UNKNOWN),
    ("what Kubernetes will have", pod(newPower=True), UNKNOWN),
    ("an account", pod(serviceAccountName="admin"), ACCOUNT),
    ("the default account's token", pod(automountServiceAccountToken=True), ACCOUNT),
    ("the default account's token, by taking our word away", pod(automountServiceAccountToken=None), ACCOUNT),
    ("a token for somebody", projected({"serviceAccountToken": {"audience": "vault", "path": "t"}}), ACCOUNT),
    ("a class of priority", pod(priorityClassName="system-node-critical"), "priority and runtime classes"),
    ("a runtime", pod(runtimeClassName="host"), "priority and runtime classes"),
    ("every node", pod(tolerations=[{"operator": "Exists"}]), "a toleration names"),
    ("the control plane", pod(tolerations=[{"key": "node-role.kubernetes.io/control-plane"}]), "a toleration names"),
    ("another's image", pod(imagePullSecrets=[{"name": "registry"}]), "imagePullSecrets must"),
    ("a block device", container(volumeDevices=[{"name": "v", "devicePath": "/dev/x"}]), CONTAINER),
    ("what containers will have", container(newPower=True), CONTAINER),
    ("in an init container", pod(initContainers=[{"name": "i", "volumeDevices": []}]), CONTAINER),
    ("a port of the node", container(ports=[{"containerPort": 80, "hostPort": 80}]), "ports of containers"),
    ("an address of the node", container(ports=[{"containerPort": 80, "hostIP": "1.2.3.4"}]), "ports of containers"),
    ("a probe of another host", container(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}), HOST),
    ("a hook to another host", container(lifecycle={"postStart": {"tcpSocket": {"host": "x", "port": 1}}}), HOST),
    ("another job's Secret as variable", container(env=[{"name": "T", "valueFrom": {
        "secretKeyRef": {"name": "lm-2-worker-22222222", "key": "token"}}}]), ENV),
    ("another job's Secret as variables", container(envFrom=[{"secretRef": {"name": "lm-2-worker-22222222"}}]), ENV),
    ("a variable from what will be", container(env=[{"name": "T", "valueFrom": {"fileKeyRef": {"path": "x"}}}]), ENV),
    ("another job's Secret as volume", volume(secret={"secretName": "lm-2-worker-22222222"}), VOLUME),
    ("another job's Secret in a folder", projected({"secret": {"name": "lm-2-worker-22222222"}}), VOLUME),
    ("a certificate in a pod's name", projected({"podCertificate": {"signerName": "x"}}), VOLUME),
    ("a Secret without a name", volume(secret={}), VOLUME),
    ("the node's files", volume(hostPath={"path": "/"}), VOLUME),
    ("a file server", volume(nfs={"server": "10.0.0.1", "path": "/"}), VOLUME),
    ("a driver", volume(csi={"driver": "secrets-store.csi.k8s.io"}), VOLUME),
    ("a plugin", volume(flexVolume={"driver": "x"}), VOLUME),
    ("a privileged container", context(privileged=True), CONTEXT),
    ("a privileged sidecar", pod(initContainers=[{"name": "i", "securityContext": {"privileged": True}}]), CONTEXT),
    ("escalation", context(allowPrivilegeEscalation=True), CONTEXT),
    ("escalation, by taking our word away", context(allowPrivilegeEscalation=None), CONTEXT),
    ("a capability", context(capabilities={"add": ["SYS_ADMIN"], "drop": ["ALL"]}), CONTEXT),
    ("capabilities that we drop", context(capabilities={"drop": ["NET_RAW"]}), CONTEXT),
    ("capabilities, by taking our word away", context(capabilities=None), CONTEXT),
    ("an open /proc", context(procMount="Unmasked"), CONTEXT),
    ("no seccomp", context(seccompProfile={"type": "Unconfined"}), CONTEXT),
    ("no AppArmor", context(appArmorProfile={"type": "Unconfined"}), CONTEXT),
    ("another SELinux type", context(seLinuxOptions={"type": "spc_t"}), CONTEXT),
    ("no seccomp in the pod", pod(securityContext={"seccompProfile": {"type": "Unconfined"}}), CONTEXT),
    ("a sysctl", pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), CONTEXT),
    ("the node's Windows", pod(securityContext={"windowsOptions": {"hostProcess": True}}), CONTEXT),
    ("no seccomp, by taking our word away", pod(securityContext={"seccompProfile": None}), NULL),
    ("nothing of what we say", pod(securityContext=None), NULL),
    ("nothing of what we say of a container", container(securityContext=None), NULL),
    ("nothing of what we say of anything", {"spec": None}, NULLS),
    ("nothing of what we say of containers", pod(containers=None), NULLS),
    ("nothing of what we say of init containers", pod(initContainers=None), NULLS),
    ("none of the cluster's labels and annotations", {"metadata": None}, NULLS),
    ("none of the cluster's labels", {"metadata": {"labels": None}}, NULLS),
    ("none of the cluster's annotations", {"metadata": {"annotations": None}}, NULLS),
    ("an object for a list", pod(volumes={"a": {"hostPath": {"path": "/"}}}), VOLUME),
    ("a list of lists", pod(containers=[[{"name": "worker"}]]), CONTAINER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "template", "why"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_what_reaches_beyond_the_job_is_refused(name: str, template: Json, why: str) -> None:
    assert any(each.startswith(why) for each in refusals(a_job(template))), refusals(a_job(template))
    assert refusals(a_job(coordinator={"podTemplate": template}))


def test_every_rule_refuses_something() -> None:
    asked = {"nonRoot": True, "shut": True}
    told = {each["message"] for each in policy()["spec"]["validations"]}
    assert told == {
        message
        for job in (
            *(a_job(each) for _, each, _ in REFUSED),
            a_job(pod(securityContext={"runAsUser": 0})),
            a_job(snapshots=SNAPSHOTS),
            a_job(storage=SNAPSHOTS["storage"]),
        )
        for message in refusals(job, **asked)
    }


def test_keys_for_snapshots_are_secrets_too() -> None:
    (why,) = refusals(a_job(snapshots=SNAPSHOTS))
    assert why.startswith("spec.snapshots.storage.secretName")
    assert refusals(a_job(snapshots=SNAPSHOTS), secrets=["keys"]) == []
    assert refusals(a_job(snapshots={"storage": {"url": "s3://bucket"}})) == []


def test_keys_for_results_are_secrets_too() -> None:
    (why,) = refusals(a_job(storage=SNAPSHOTS["storage"]))
    assert why.startswith("spec.storage.secretName")
    assert refusals(a_job(storage=SNAPSHOTS["storage"]), secrets=["keys"]) == []
    assert refusals(a_job(storage={"persistentVolumeClaim": "shared"})) == []


LISTED: list[tuple[str, Json, Json]] = [
    ("a Secret", {"secrets": ["hub"]}, container(envFrom=[{"secretRef": {"name": "hub"}}])),
    ("a Secret in a folder", {"secrets": ["hub"]}, projected({"secret": {"name": "hub"}})),
    ("a registry", {"imagePullSecrets": ["hub"]}, pod(imagePullSecrets=[{"name": "hub"}])),
    ("an account", {"serviceAccounts": ["train"]}, pod(serviceAccountName="train", automountServiceAccountToken=True)),
    ("a driver", {"csiDrivers": ["s3"]}, volume(csi={"driver": "s3"})),
    ("classes", {"classes": ["low", "gvisor"]}, pod(priorityClassName="low", runtimeClassName="gvisor")),
    ("a label", {"labels": ["kueue.x-k8s.io/"]}, {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "a"}}}),
    ("any annotation", {"annotations": [""]}, {"metadata": {"annotations": {"a": "b"}}}),
]


@pytest.mark.parametrize(("name", "values", "template"), LISTED, ids=[name for name, _, _ in LISTED])
def test_what_an_administrator_lists_passes(name: str, values: Json, template: Json) -> None:
    assert refusals(a_job(template))
    assert refusals(a_job(template), **values) == []


def test_a_driver_that_is_listed_takes_no_secret_along() -> None:
    stolen = {"driver": "s3", "nodePublishSecretRef": {"name": "lm-2-worker-22222222"}}
    assert refusals(a_job(volume(csi=stolen)), csiDrivers=["s3"])


ROOTS: list[Json] = [
    pod(securityContext={"runAsUser": 0}),
    pod(securityContext={"runAsUser": None}),
    pod(securityContext={"runAsNonRoot": False}),
    pod(securityContext={"runAsNonRoot": None}),
    context(runAsUser=0),
]


@pytest.mark.parametrize("template", ROOTS)
def test_root_is_refused_if_asked(template: Json) -> None:
    assert refusals(a_job(template)) == []
    assert refusals(a_job(template), nonRoot=True)


def test_jobs_are_shut_off_if_asked() -> None:
    assert refusals(a_job(), shut=True)
    assert refusals(a_job(network={"ingress": "any"}), shut=True)
    assert refusals(a_job(network={"ingress": "job"}), shut=True) == []


BEFORE = a_job(pod(hostNetwork=True), workers=2)["spec"]
CHANGES: list[tuple[str, Json, bool]] = [
    ("scaled", BEFORE | {"workers": 3}, False),
    ("suspended", BEFORE | {"suspend": True}, False),
    ("another template", BEFORE | {"podTemplate": pod(hostPID=True)}, True),
    ("another template of the coordinator", BEFORE | {"coordinator": {"podTemplate": pod(hostPID=True)}}, True),
    ("no template", {key: value for key, value in BEFORE.items() if key != "podTemplate"}, True),
    ("snapshots with another job's Secret", BEFORE | {"snapshots": SNAPSHOTS}, True),
    ("storage with another job's Secret", BEFORE | {"storage": SNAPSHOTS["storage"]}, True),
    ("opened", BEFORE | {"network": {"ingress": "any"}}, True),
]


@pytest.mark.parametrize(("name", "after", "judged"), CHANGES, ids=[name for name, _, _ in CHANGES])
def test_a_job_that_was_there_before_can_be_managed(name: str, after: Json, judged: bool) -> None:
    """Also by the collector, whose updates of finalizers must not be refused."""
    (condition,) = policy()["spec"]["matchConditions"]
    seen = {"object": {"spec": after}, "oldObject": {"spec": BEFORE}, "request": {"operation": "UPDATE"}}
    assert value(condition["expression"], seen) is judged
