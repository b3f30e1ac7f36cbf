"""Each value of the chart, set to something else: where does it arrive? Helm itself renders."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from drivetrain_operator.settings import parse
from harness.helm import MONITORING, Objects, at, container, deployment, nested, refusal, rendered
from unit.chart.values import leaves, sections

Path = tuple[str | int, ...]
OPERATOR: Final = "drivetrain-operator"
POD: Final[Path] = ("Deployment", OPERATOR, "spec", "template", "spec")
C: Final[Path] = (*POD, "containers", 0)
CLUSTER: Final = "drivetrain-operator-drivetrain-system"
MONITOR: Final[Path] = ("ServiceMonitor", OPERATOR)
PODS: Final[Path] = ("PodMonitor", "drivetrain-coordinators")
POLICY: Final[Path] = ("NetworkPolicy", OPERATOR)
AGENT: Final[Path] = ("DaemonSet", "drivetrain-nodeagent", "spec", "template", "spec")
TEMPLATES: Final[Path] = ("ValidatingAdmissionPolicy", f"{CLUSTER}-templates", "spec")
ONE_PORT: Final = {"ports": [{"port": 1}]}
RELABELING: Final = {"action": "drop", "sourceLabels": ["a"], "regex": "b"}
EVERY: Final[Path] = ()
"""All objects."""


def flag(text: str) -> tuple[Path, Any]:
    """The operator is started with this."""
    return (*C, "args"), lambda args: text in args


def gone(*where: str | int) -> tuple[Path, Any]:
    """There is no such object."""
    return EVERY, lambda objects: where not in objects


def ends_with(expected: Any) -> Any:
    """The last item of a list."""
    return lambda found: found[-1] == expected


def has(**expected: Any) -> Any:
    """A map with these in it; `__` stands for a slash, `_` for a dot."""
    wanted = {name.replace("__", "/").replace("_", "."): value for name, value in expected.items()}
    return lambda found: {**found, **wanted} == found


def everywhere(kind: str) -> tuple[Path, Any]:
    """All objects have this label, or annotation."""
    return EVERY, lambda every: all(each["metadata"][kind]["a"] == "1" for each in every.values())


def secret(volume: str, name: str) -> dict[str, Any]:
    """A volume."""
    return {"name": volume, "secret": {"secretName": name, "defaultMode": 0o440}}


def variable(name: str) -> tuple[Path, Any]:
    """Of templatePolicy."""
    return (*TEMPLATES, "variables"), lambda found: {"name": name, "expression": '["x-1"]'} in found


ON: Final = {"templatePolicy": {"enabled": True}, "networkPolicy": {"enabled": True}, "nodeAgent": {"enabled": True}}
"""What is off by default, so that values below it can be seen."""
CASES: Final[dict[str, tuple[Any, tuple[Path, Any]]]] = {
    "image.registry": ("r.example/m/", ((*C, "image"), "r.example/m/drivetrain-operator:0.1.0")),
    "image.repository": ("team/op", ((*C, "image"), "team/op:0.1.0")),
    "image.tag": ("1", ((*C, "image"), "drivetrain-operator:1")),
    "image.digest": (f"sha256:{'a' * 64}", ((*C, "image"), f"drivetrain-operator@sha256:{'a' * 64}")),
    "image.pullPolicy": ("Never", ((*C, "imagePullPolicy"), "Never")),
    "imagePullSecrets": ([{"name": "pull"}], ((*POD, "imagePullSecrets"), [{"name": "pull"}])),
    "workerTemplate": ({"spec": {"hostIPC": True}}, flag('--worker-template={"spec":{"hostIPC":true}}')),
    "coordinatorTemplate": ({"spec": {"hostIPC": True}}, flag('--coordinator-template={"spec":{"hostIPC":true}}')),
    "proxy.http": ("http://p:1", ((*C, "env"), lambda env: {"name": "HTTP_PROXY", "value": "http://p:1"} in env)),
    "proxy.https": ("http://p:1", ((*C, "env"), lambda env: {"name": "https_proxy", "value": "http://p:1"} in env)),
    "proxy.except": ("x", ((*C, "env"), lambda env: not any("PROXY" in each["name"] for each in env))),
    "trustedCA.configMap": ("ca", ((*C, "args"), lambda args: '"configMap":{"name":"ca"}' in str(args))),
    "trustedCA.key": ("x", ((*C, "args"), lambda args: "ca" not in str(args))),
    "jobDisruptionBudgets": (False, flag("--no-disruption-budgets")),
    "jobHistory": (False, flag("--no-history")),
    "watchNamespaces": (["a", "true"], flag("--namespace=true")),
    "allowOwnNamespace": (True, flag("--allow-own-namespace")),
    "serviceAccount.create": (False, gone("ServiceAccount", OPERATOR)),
    "serviceAccount.name": ("123", ((*POD, "serviceAccountName"), "123")),
    "serviceAccount.annotations": ({"a": "1"}, (("ServiceAccount", OPERATOR, "metadata", "annotations"), has(a="1"))),
    "rbac.create": (False, (EVERY, lambda every: not any("RoleBinding" in kind for kind, _ in every))),
    "aggregatedRoles.enabled": (False, gone("ClusterRole", f"{CLUSTER}-view")),
    "templatePolicy.enabled": (False, gone("ValidatingAdmissionPolicy", f"{CLUSTER}-templates")),
    "templatePolicy.actions": (
        ["Warn"], (("ValidatingAdmissionPolicyBinding", f"{CLUSTER}-templates", "spec", "validationActions"), ["Warn"]),
    ),
    "templatePolicy.namespaceSelector": (
        {"matchLabels": {"a": "1"}},
        (
            ("ValidatingAdmissionPolicyBinding", f"{CLUSTER}-templates", "spec", "matchResources", "namespaceSelector"),
            {"matchLabels": {"a": "1"}},
        ),
    ),
    "templatePolicy.secrets": (["x-1"], variable("secrets")),
    "templatePolicy.imagePullSecrets": (["x-1"], variable("imagePullSecrets")),
    "templatePolicy.serviceAccounts": (["x-1"], variable("serviceAccounts")),
    "templatePolicy.csiDrivers": (["x-1"], variable("csiDrivers")),
    "templatePolicy.classes": (["x-1"], variable("classes")),
    "templatePolicy.labels": (["x-1"], variable("labels")),
    "templatePolicy.annotations": (["x-1"], variable("annotations")),
    "templatePolicy.nonRoot": (
        True, ((*TEMPLATES, "variables"), lambda found: {"name": "nonRoot", "expression": "true"} in found),
    ),
    "templatePolicy.shut": (
        True, ((*TEMPLATES, "variables"), lambda found: {"name": "shut", "expression": "true"} in found),
    ),
    "networkPolicy.enabled": (False, gone("NetworkPolicy", OPERATOR)),
    "networkPolicy.scrapers": (
        [{"podSelector": {}}], ((*POLICY, "spec", "ingress"), lambda rules: rules[1]["from"] == [{"podSelector": {}}]),
    ),
    "networkPolicy.ingress": ([ONE_PORT], ((*POLICY, "spec", "ingress"), ends_with(ONE_PORT))),
    "networkPolicy.egress": ([ONE_PORT], ((*POLICY, "spec", "egress"), [ONE_PORT])),
    "metrics.tls.secretName": ("pair", ((*POD, "volumes"), ends_with(secret("metrics-tls", "pair")))),
    "metrics.tls.caKey": ("x", ((*MONITOR, "spec", "endpoints", 0), lambda endpoint: "tlsConfig" not in endpoint)),
    "metrics.token.secretName": ("word", ((*POD, "volumes"), ends_with(secret("metrics-token", "word")))),
    "metrics.token.key": ("x", ((*C, "args"), lambda args: "metrics-token" not in str(args))),
    "metrics.serviceMonitor.enabled": (False, gone(*MONITOR)),
    "metrics.serviceMonitor.interval": ("1m30s", ((*MONITOR, "spec", "endpoints", 0, "interval"), "1m30s")),
    "metrics.serviceMonitor.scrapeTimeout": ("9s", ((*MONITOR, "spec", "endpoints", 0, "scrapeTimeout"), "9s")),
    "metrics.serviceMonitor.labels": ({"a": "1"}, ((*MONITOR, "metadata", "labels"), has(a="1"))),
    "metrics.serviceMonitor.annotations": ({"a": "1"}, ((*MONITOR, "metadata", "annotations"), has(a="1"))),
    "metrics.serviceMonitor.relabelings": (
        [RELABELING], ((*MONITOR, "spec", "endpoints", 0, "relabelings"), ends_with(RELABELING)),
    ),
    "metrics.serviceMonitor.metricRelabelings": (
        [RELABELING], ((*MONITOR, "spec", "endpoints", 0, "metricRelabelings"), [RELABELING]),
    ),
    "metrics.podMonitor.enabled": (False, gone(*PODS)),
    "metrics.podMonitor.interval": ("5s", ((*PODS, "spec", "podMetricsEndpoints", 0, "interval"), "5s")),
    "metrics.podMonitor.scrapeTimeout": ("4s", ((*PODS, "spec", "podMetricsEndpoints", 0, "scrapeTimeout"), "4s")),
    "metrics.podMonitor.labels": ({"a": "1"}, ((*PODS, "metadata", "labels"), has(a="1"))),
    "metrics.podMonitor.annotations": ({"a": "1"}, ((*PODS, "metadata", "annotations"), has(a="1"))),
    "metrics.podMonitor.relabelings": (
        [RELABELING], ((*PODS, "spec", "podMetricsEndpoints", 0, "relabelings"), ends_with(RELABELING)),
    ),
    "metrics.podMonitor.metricRelabelings": (
        [RELABELING], ((*PODS, "spec", "podMetricsEndpoints", 0, "metricRelabelings"), [RELABELING]),
    ),
    "replicas": (1, gone("PodDisruptionBudget", OPERATOR)),
    "log.format": ("text", flag("--log-format=text")),
    "log.level": ("debug", flag("--log-level=debug")),
    "log.workers.format": ("json", flag("--worker-log-format=json")),
    "log.workers.level": ("debug", flag("--worker-log-level=debug")),
    "traces.endpoint": ("http://c:4318", flag("--trace-endpoint=http://c:4318")),
    "traces.headers.secretName": (
        "s",
        (
            (*C, "env"),
            ends_with(
                {
                    "name": "DRIVETRAIN_OPERATOR_TRACE_HEADER",
                    "valueFrom": {"secretKeyRef": {"name": "s", "key": "headers"}},
                }
            ),
        ),
    ),
    "traces.headers.key": ("x", ((*C, "env"), lambda env: "TRACE" not in str(env))),
    "energy.settings": (
        {"sources": [{"name": "gb", "provider": "neso", "zones": ["GB"]}]},
        flag("--energy-settings=/etc/drivetrain/energy/energy.yaml"),
    ),
    "energy.credentials.secretName": ("keys", ((*POD, "volumes"), ends_with(secret("energy-credentials", "keys")))),
    "energy.traces.configMap": (
        "grid", ((*POD, "volumes"), ends_with({"name": "energy-traces", "configMap": {"name": "grid"}})),
    ),
    "resources.requests": ({"cpu": 2}, ((*C, "resources", "requests"), {"cpu": 2, "memory": "128Mi"})),
    "resources.limits": ({"memory": None}, ((*C, "resources"), lambda found: not found.get("limits"))),
    "podDisruptionBudget.enabled": (False, gone("PodDisruptionBudget", OPERATOR)),
    "podSecurityContext": ({"runAsUser": None}, ((*POD, "securityContext"), lambda found: "runAsUser" not in found)),
    "securityContext": ({"runAsUser": 7}, ((*C, "securityContext", "runAsUser"), 7)),
    "livenessProbe.initialDelaySeconds": (77, ((*C, "livenessProbe", "initialDelaySeconds"), 77)),
    "livenessProbe.periodSeconds": (77, ((*C, "livenessProbe", "periodSeconds"), 77)),
    "livenessProbe.timeoutSeconds": (77, ((*C, "livenessProbe", "timeoutSeconds"), 77)),
    "livenessProbe.failureThreshold": (77, ((*C, "livenessProbe", "failureThreshold"), 77)),
    "readinessProbe.initialDelaySeconds": (77, ((*C, "readinessProbe", "initialDelaySeconds"), 77)),
    "readinessProbe.periodSeconds": (77, ((*C, "readinessProbe", "periodSeconds"), 77)),
    "readinessProbe.timeoutSeconds": (77, ((*C, "readinessProbe", "timeoutSeconds"), 77)),
    "readinessProbe.failureThreshold": (77, ((*C, "readinessProbe", "failureThreshold"), 77)),
    "nodeAgent.enabled": (False, (EVERY, lambda every: not any("nodeagent" in name for _, name in every))),
    "nodeAgent.namespace": ("gpu", (EVERY, lambda every: ("DaemonSet", "gpu/drivetrain-nodeagent") in every)),
    "nodeAgent.runtimeClassName": ("nvidia", ((*AGENT, "runtimeClassName"), "nvidia")),
    "nodeAgent.resources.requests": (
        {"cpu": "1"}, ((*AGENT, "containers", 0, "resources", "requests"), {"cpu": "1", "memory": "64Mi"}),
    ),
    "nodeAgent.resources.limits": (
        {"memory": "1Gi"}, ((*AGENT, "containers", 0, "resources", "limits"), {"memory": "1Gi"}),
    ),
    "nodeAgent.nodeSelector": ({"a": "true"}, ((*AGENT, "nodeSelector"), {"a": "true"})),
    "nodeAgent.tolerations": ([], (AGENT, lambda pod: "tolerations" not in pod)),
    "extraArgs": (["--workers=3"], ((*C, "args"), ends_with("--workers=3"))),
    "extraEnv": ([{"name": "A", "value": "1"}], ((*C, "env"), ends_with({"name": "A", "value": "1"}))),
    "extraEnvFrom": ([{"secretRef": {"name": "s"}}], ((*C, "envFrom"), [{"secretRef": {"name": "s"}}])),
    "extraVolumes": ([{"name": "v", "emptyDir": {}}], ((*POD, "volumes"), ends_with({"name": "v", "emptyDir": {}}))),
    "extraVolumeMounts": (
        [{"name": "v", "mountPath": "/v"}], ((*C, "volumeMounts"), ends_with({"name": "v", "mountPath": "/v"})),
    ),
    "commonLabels": ({"a": "1"}, everywhere("labels")),
    "commonAnnotations": ({"a": "1"}, everywhere("annotations")),
    "podLabels": ({"a": "1"}, ((*POD[:-1], "metadata", "labels"), has(a="1"))),
    "podAnnotations": ({"a": "1"}, ((*POD[:-1], "metadata", "annotations"), {"a": "1"})),
    "nodeSelector": ({"a": "true"}, ((*POD, "nodeSelector"), {"a": "true"})),
    "tolerations": ([{"operator": "Exists"}], ((*POD, "tolerations"), [{"operator": "Exists"}])),
    "affinity": ({"nodeAffinity": {"x": 1}}, ((*POD, "affinity"), {"nodeAffinity": {"x": 1}})),
    "topologySpreadConstraints": ([], (POD, lambda pod: "topologySpreadConstraints" not in pod)),
    "priorityClassName": ("1", ((*POD, "priorityClassName"), "1")),
}  # fmt: skip
ELSEWHERE: Final = {
    "crds.enabled", "crds.keep",
    "metrics.rules.enabled", "metrics.rules.runbooks", "metrics.rules.labels", "metrics.rules.annotations",
    "metrics.dashboards.enabled", "metrics.dashboards.labels", "metrics.dashboards.annotations",
}  # fmt: skip
"""In test_chart.py and test_monitoring.py."""


def over(base: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Both, as Helm would merge them."""
    return {
        name: over(base[name], value[name])
        if isinstance(base.get(name), dict) and isinstance(value.get(name), dict)
        else value.get(name, base.get(name))
        for name in base | value
    }


def test_every_value_has_a_case() -> None:
    assert set(leaves()) == set(CASES) | ELSEWHERE


@pytest.mark.parametrize("path", CASES)
def test_a_value_arrives(path: str) -> None:
    value, (where, expected) = CASES[path]
    given = over(ON, nested(path, value))
    if path == "serviceAccount.create":
        given = over(given, nested("serviceAccount.name", "there"))
    objects = rendered(given, *MONITORING)
    found: Any = objects if not where else at(objects[str(where[0]), str(where[1])], where[2:])
    assert expected(found) if callable(expected) else found == expected, found


@pytest.mark.parametrize("path", [path for path in (*sections(), *leaves()) if path not in ELSEWHERE])
def test_null_is_refused_by_name_or_harmless(path: str) -> None:
    said = refusal(over(ON, nested(path, None)), *MONITORING)
    above, _, name = path.rpartition(".")
    where = "/" + above.replace(".", "/") if above else ""
    assert not said or f"at '{where}': missing propert" in said, said
    assert not said or f"'{name}'" in said


def test_text_that_looks_like_something_else_stays_text() -> None:
    odd = {"yes": "true", "n": "1e3", "o": "0x1f", "nothing": "null", "day": "2001-01-01"}
    values = {
        "podAnnotations": {**odd, "colon": "a: b # c", "quote": "\"'{{ x }}"},
        "podLabels": odd,
        "nodeSelector": odd,
        "priorityClassName": "007",
        "serviceAccount": {"name": "true"},
        "image": {"repository": "0", "tag": "1.0"},
        "watchNamespaces": ["123", "null"],
        "imagePullSecrets": [{"name": "1"}],
        "extraEnv": [{"name": "A", "value": "true"}],
    }
    objects = rendered(values)
    pod = deployment(objects)
    assert pod["metadata"]["annotations"] == values["podAnnotations"]
    assert {**pod["metadata"]["labels"], **odd} == pod["metadata"]["labels"]
    assert pod["spec"]["nodeSelector"] == odd
    assert (pod["spec"]["priorityClassName"], pod["spec"]["serviceAccountName"]) == ("007", "true")
    assert (container(objects)["image"], container(objects)["env"][-1]["value"]) == ("0:1.0", "true")
    assert objects["Role", "null/drivetrain-operator-jobs"]["metadata"]["namespace"] == "null"


def test_the_security_context_is_restricted() -> None:
    pod = deployment(rendered())["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = pod["containers"][0]["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def settings(objects: Objects) -> Any:
    """What the operator makes of its arguments, as Kubernetes gives them."""
    args = [each.replace("$$", "$") for each in container(objects)["args"]]
    assert all("$(" not in each.replace("$$", "") for each in container(objects)["args"]), "that would be expanded"
    return parse(args, {"POD_IP": "10.0.0.1", "POD_NAME": "p", "POD_NAMESPACE": "n"})


def test_what_workers_get_of_the_cluster_and_what_their_template_says_itself() -> None:
    template = {
        "spec": {
            "securityContext": {"runAsUser": None},
            "containers": [
                {"name": "side", "image": "x"},
                {"name": "worker", "env": [{"name": "HTTP_PROXY", "value": "$(MINE)"}, {"name": "B", "value": "2"}]},
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
    }
    found = settings(
        rendered(
            {
                "workerTemplate": template,
                "proxy": {"http": "http://p:1"},
                "trustedCA": {"configMap": "bundle", "key": "ca.pem"},
            }
        )
    ).worker_template["spec"]
    assert found["securityContext"] == {"runAsUser": None}
    assert [each["name"] for each in found["containers"]] == ["worker", "side"]
    worker = found["containers"][0]
    env = {each["name"]: each["value"] for each in worker["env"]}
    assert len(env) == len(worker["env"])
    assert (env["HTTP_PROXY"], env["http_proxy"], env["B"]) == ("$(MINE)", "http://p:1", "2")
    assert env["NO_PROXY"].startswith("$(KUBERNETES_SERVICE_HOST),localhost")
    assert env["SSL_CERT_FILE"] == env["AWS_CA_BUNDLE"] == worker["volumeMounts"][0]["mountPath"] + "/ca.pem"
    assert [each["name"] for each in found["volumes"]] == ["trusted-ca", "data"]
    assert found["volumes"][0]["configMap"] == {"name": "bundle"}


def test_registry_and_secrets_of_the_parent_chart() -> None:
    values = {
        "global": {"imageRegistry": "mirror.example", "imagePullSecrets": ["one", {"name": "two"}]},
        "image": {"registry": "own.example"},
        "imagePullSecrets": [{"name": "two"}, {"name": "three"}],
    }
    objects = rendered(values)
    found = settings(objects)
    assert (
        container(objects)["image"] == found.image == found.runtime_image == "mirror.example/drivetrain-operator:0.1.0"
    )
    assert found.image_pull_secrets == ("one", "two", "three")
    assert deployment(objects)["spec"]["imagePullSecrets"] == [{"name": each} for each in ("one", "two", "three")]
    rendered({"global": {"imageRegistry": None, "imagePullSecrets": None, "of": {"another": "chart"}}})


def test_scrapers_are_told_to_the_operator() -> None:
    peer = {"podSelector": {"matchLabels": {"a": "b"}}}
    found = settings(rendered({"networkPolicy": {"scrapers": [peer]}}))
    assert [json.loads(json.dumps(each)) for each in found.scrapers] == [peer]
