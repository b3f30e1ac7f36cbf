"""What of the chart's values is wrong, and is it refused with its path? Helm itself looks."""

from __future__ import annotations

from typing import Any, Final

import pytest

from harness.helm import nested, refusal
from unit.chart.values import leaves, schema, sections

LABELS: Final = ("commonLabels", "podLabels", "metrics.serviceMonitor.labels", "metrics.dashboards.labels")
SELECTED: Final = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
WRONG: Final[list[tuple[str, Any, str]]] = [
    ("image.repository", "", "/image/repository"),
    ("image.repository", "a b", "/image/repository"),
    ("image.registry", "https://r.example", "/image/registry"),
    ("image.repository", "team/op:1", "/image/repository"),
    ("image.tag", "a/b", "/image/tag"),
    ("image.digest", "sha256:abc", "/image/digest"),
    ("image.pullPolicy", "Sometimes", "/image/pullPolicy"),
    ("imagePullSecrets", ["pull"], "/imagePullSecrets/0"),
    ("imagePullSecrets", [{"nam": "pull"}], "/imagePullSecrets/0"),
    ("global.imagePullSecrets", [{"nam": "pull"}], "/global/imagePullSecrets/0"),
    ("workerTemplate", {"specs": {}}, "/workerTemplate"),
    ("coordinatorTemplate", {"spec": 1}, "/coordinatorTemplate/spec"),
    ("workerTemplate", {"spec": {"containers": [{"image": "x"}]}}, "/workerTemplate/spec/containers/0"),
    (
        "workerTemplate",
        {"spec": {"containers": [{"name": "worker", "env": [{"name": "A", "value": 1}]}]}},
        "/workerTemplate/spec/containers/0/env/0/value",
    ),
    ("proxy.https", "proxy:3128", "/proxy/https"),
    ("proxy.except", "a b", "/proxy/except"),
    ("trustedCA.configMap", "A_B", "/trustedCA/configMap"),
    ("trustedCA.key", "../x", "/trustedCA/key"),
    ("watchNamespaces", ["A"], "/watchNamespaces/0"),
    ("watchNamespaces", ["a", "a"], "/watchNamespaces"),
    ("serviceAccount.create", False, "/serviceAccount/name"),
    ("serviceAccount.name", "A B", "/serviceAccount/name"),
    ("templatePolicy.actions", [], "/templatePolicy/actions"),
    ("templatePolicy.actions", ["Allow"], "/templatePolicy/actions/0"),
    ("templatePolicy.secrets", ["*"], "/templatePolicy/secrets/0"),
    ("networkPolicy.scrapers", [{}], "/networkPolicy/scrapers/0"),
    ("metrics.serviceMonitor.interval", "30", "/metrics/serviceMonitor/interval"),
    ("metrics.podMonitor.relabelings", [{"target": "x"}], "/metrics/podMonitor/relabelings/0"),
    ("metrics.rules.runbooks", "docs/runbooks", "/metrics/rules/runbooks"),
    ("metrics.rules.labels", {"a": True}, "/metrics/rules/labels/a"),
    ("nodeAgent.namespace", "A B", "/nodeAgent/namespace"),
    ("nodeAgent.runtimeClassName", "A B", "/nodeAgent/runtimeClassName"),
    ("nodeAgent.tolerations", [{"keys": "a"}], "/nodeAgent/tolerations/0"),
    ("nodeAgent.resources.limits", {"memory": "1 GB"}, "/nodeAgent/resources/limits/memory"),
    ("energy.settings", {"source": []}, "/energy/settings"),
    ("energy.settings", {"sources": [{"name": "a"}]}, "/energy/settings/sources/0"),
    ("energy.credentials.secretName", "A_B", "/energy/credentials/secretName"),
    ("replicas", -1, "/replicas"),
    ("replicas", 6, "/replicas"),
    ("log.format", "xml", "/log/format"),
    ("log.level", "loud", "/log/level"),
    ("resources.limits", {"memory": "1 GB"}, "/resources/limits/memory"),
    ("podSecurityContext", {"runAsUsers": 1}, "/podSecurityContext"),
    ("securityContext", {"privileged": "no"}, "/securityContext/privileged"),
    ("livenessProbe.periodSeconds", 0, "/livenessProbe/periodSeconds"),
    ("readinessProbe.httpGet", {"path": "/"}, "/readinessProbe"),
    ("extraArgs", ["workers=3"], "/extraArgs/0"),
    ("extraEnv", [{"name": "A", "value": 1}], "/extraEnv/0/value"),
    ("extraEnv", [{"name": "POD_IP", "value": "x"}], "/extraEnv/0/name"),
    ("extraEnvFrom", [{"secret": {}}], "/extraEnvFrom/0"),
    ("extraVolumes", [{"name": "tmp", "emptyDir": {}}], "/extraVolumes/0/name"),
    ("extraVolumes", [{"emptyDir": {}}], "/extraVolumes/0"),
    ("extraVolumeMounts", [{"name": "v", "mountPath": "/tmp"}], "/extraVolumeMounts/0/mountPath"),
    ("podAnnotations", {"a": 1}, "/podAnnotations/a"),
    ("podAnnotations", {"a b": "1"}, "/podAnnotations"),
    ("nodeSelector", {"a": True}, "/nodeSelector/a"),
    ("tolerations", [{"operator": "Is"}], "/tolerations/0/operator"),
    ("affinity", {"nodeAffinities": {}}, "/affinity"),
    ("topologySpreadConstraints", [{"maxSkew": 1}], "/topologySpreadConstraints/0"),
    ("priorityClassName", "A", "/priorityClassName"),
    *(
        (path, {name: "x"}, "/" + path.replace(".", "/") + "/" + name.replace("/", "~1"))
        for path in LABELS
        for name in SELECTED
    ),
    *((path, {"a": "b c"}, "/" + path.replace(".", "/") + "/a") for path in LABELS),
]


@pytest.mark.parametrize(("path", "value", "where"), WRONG, ids=lambda each: str(each)[:40])
def test_a_wrong_value_is_refused_with_its_path(path: str, value: Any, where: str) -> None:
    said = refusal(nested(path, value))
    assert f"at '{where}'" in said, said


@pytest.mark.parametrize("path", leaves())
def test_a_value_of_another_type_is_refused_with_its_path(path: str) -> None:
    said = refusal(nested(path, 7.5))
    assert f"at '/{path.replace('.', '/')}': " in said, said


CLOSED: Final = [name for name in (*sections(), *leaves()) if schema(name).get("additionalProperties") is False]
"""Names in them are the chart's, not the user's."""


@pytest.mark.parametrize("section", ["", *(name for name in CLOSED if "patternProperties" not in schema(name))])
def test_a_name_that_is_not_there_is_refused_with_its_path(section: str) -> None:
    said = refusal(nested(f"{section}.nothing" if section else "nothing", 1))
    where = "/" + section.replace(".", "/") if section else ""
    assert f"at '{where}': additional properties 'nothing' not allowed" in said
