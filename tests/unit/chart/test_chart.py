"""The chart says what the code says: permissions, ports, names, the CRD. Helm renders it; what a
cluster makes of that is an e2e test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivetrain_api.constants import LABEL_JOB, LABEL_ROLE, METRICS_PORT, REPORTS_PORT, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_operator import rbac
from drivetrain_operator.render.common import USER
from drivetrain_operator.settings import REPORTS_SERVICE, parse
from harness.helm import CHART, NAMESPACE, at, container, deployment, helm, refusal, rendered
from harness.network_policies import End, passes
from unit.chart.values import DEFAULTS, SCHEMA, schema, sections

ROOT = Path(__file__).parents[3]


def rules(name: str) -> set[tuple[str, str, frozenset[str], frozenset[str]]]:
    """One list of rules of the chart: (group, resource, verbs, names)."""
    text = (CHART / "templates" / "_rules.tpl").read_text()
    body = re.search(rf'define "drivetrain\.rules\.{name}" -}}}}\n(.*?){{{{- end }}}}', text, re.DOTALL)
    assert body is not None
    count = re.search(r"range until (\d+)", text)
    assert count is not None

    def names(what: re.Match[str]) -> str:
        """As the template says; that Helm makes these of it, test_node_agent says."""
        return json.dumps([f"drivetrain-power-{what[1]}-{n}" for n in range(int(count[1]))])

    found = set()
    for rule in yaml.safe_load(re.sub(r'{{ include "drivetrain.power.names" "(\w+)" }}', names, body[1])):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                key = (group, resource, frozenset(rule["verbs"]), frozenset(rule.get("resourceNames", ())))
                assert key not in found, f"{key} stands twice"
                found.add(key)
    return found


@pytest.mark.parametrize(
    ("name", "used"), [("jobs", rbac.JOBS), ("own", rbac.OWN), ("power", rbac.POWER), ("places", rbac.PLACES)]
)
def test_the_chart_grants_exactly_what_the_operator_uses(name: str, used: Iterable[rbac.Rule]) -> None:
    verbs: dict[tuple[str, str, frozenset[str]], frozenset[str]] = {}
    for rule in used:
        key = (rule.group, rule.resource, rule.names)
        verbs[key] = verbs.get(key, frozenset()) | rule.verbs
    granted = {(group, resource, names): given for group, resource, given, names in rules(name)}
    assert granted == verbs


def test_the_chart_carries_the_generated_crd() -> None:
    for crd in (ROOT / "crds").glob("*.yaml"):
        assert (CHART / "files" / crd.name).read_text() == crd.read_text(), "run make generate"


def test_keeping_the_crd_is_one_line_at_its_metadata() -> None:
    """The template adds the annotation by replacing text, which must occur exactly once."""
    for crd in (CHART / "files").glob("*.yaml"):
        assert crd.read_text().count("\nmetadata:\n") == 1


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    assert set(SCHEMA["properties"]) - {"global", "enabled"} == set(DEFAULTS)
    for section in sections():
        if schema(section).get("properties"):
            assert schema(section)["additionalProperties"] is False, section
            assert set(schema(section)["properties"]) == set(at(DEFAULTS, section.split("."))), section


def test_the_deployment_names_what_the_code_listens_on() -> None:
    objects = rendered()
    ports = {each["name"]: each["containerPort"] for each in container(objects)["ports"]}
    assert ports == {"reports": REPORTS_PORT, "metrics": METRICS_PORT}
    assert deployment(objects)["spec"]["securityContext"]["runAsUser"] == USER
    services = {name: each["spec"]["ports"][0]["port"] for (kind, name), each in objects.items() if kind == "Service"}
    assert services == {REPORTS_SERVICE: REPORTS_PORT, "drivetrain-metrics": METRICS_PORT}


def test_the_operator_takes_the_flags_that_the_deployment_gives() -> None:
    operator = container(rendered({"allowOwnNamespace": True, "watchNamespaces": ["a", "b"]}))
    environment = {each["name"]: "10.0.0.1" for each in operator["env"]}
    settings = parse(operator["args"], environment)
    assert settings.reports_service == REPORTS_SERVICE
    assert settings.pod_ip == settings.reports_host == settings.metrics_host == "10.0.0.1"
    assert settings.leader_election
    assert (settings.allow_own_namespace, settings.namespaces) == (True, ("a", "b"))
    assert not settings.node_agents


def test_the_network_policy_lets_in_whom_the_code_talks_to() -> None:
    objects = rendered({"networkPolicy": {"enabled": True}})
    policy = objects["NetworkPolicy", "drivetrain-operator"]
    operator = End(NAMESPACE, deployment(objects)["metadata"]["labels"])
    test = End.of(objects["Pod", "drivetrain-test"])
    for end, port, let_in in (
        (End("team", {LABEL_ROLE: ROLE_WORKER}), REPORTS_PORT, True),
        (End("team", {LABEL_ROLE: ROLE_COORDINATOR}), REPORTS_PORT, True),
        (End("team", {}), REPORTS_PORT, False),
        (End("team", {}), METRICS_PORT, True),
        (test, REPORTS_PORT, True),
        (End("team", test.labels), REPORTS_PORT, False),
    ):
        assert passes([policy], end, operator, port) is let_in, end


def test_the_selector_finds_the_operators_pods_and_no_others() -> None:
    objects = rendered({"podLabels": {"a": "1"}, "commonLabels": {"b": "2"}})
    selector = objects["Deployment", "drivetrain-operator"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment(objects)["metadata"]["labels"].items()
    assert not selector.items() <= objects["Pod", "drivetrain-test"]["metadata"]["labels"].items()
    assert selector == objects["Service", "drivetrain-metrics"]["spec"]["selector"]
    assert selector == objects["PodDisruptionBudget", "drivetrain-operator"]["spec"]["selector"]["matchLabels"]
    spread = deployment(objects)["spec"]["topologySpreadConstraints"]
    assert [each["labelSelector"]["matchLabels"] for each in spread] == [selector]
    mine = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"x": "y"}},
    }
    assert deployment(rendered({"topologySpreadConstraints": [mine]}))["spec"]["topologySpreadConstraints"] == [mine]


def test_the_crd_is_kept_unless_it_is_told_otherwise() -> None:
    kept, whole = "helm.sh/resource-policy: keep", (CHART / "files" / "drivetrain.dev_trainingjobs.yaml").read_text()
    for values, there, annotated in (
        ({}, True, True),
        ({"keep": False}, True, False),
        ({"enabled": False}, False, False),
    ):
        text = helm("template", "x", str(CHART), values={"crds": values}).stdout
        assert ("kind: CustomResourceDefinition" in text, kept in text) == (there, annotated), values
        without = text.replace(f"  annotations:\n    {kept}\n", "")
        assert (whole.strip() in without) is there


@pytest.mark.parametrize("namespaces", [[], ["team-a", "team-b"]], ids=["all", "named"])
def test_roles_are_bound_to_the_account_that_the_pod_has(namespaces: list[str]) -> None:
    objects = rendered({"watchNamespaces": namespaces, "serviceAccount": {"name": "mine"}})
    assert deployment(objects)["spec"]["serviceAccountName"] == "mine"
    assert ("ServiceAccount", "mine") in objects
    bindings = {key: each for key, each in objects.items() if key[0].endswith("RoleBinding")}
    assert len(bindings) == 1 + (len(namespaces) or 1)
    for (kind, name), each in bindings.items():
        assert each["subjects"] == [{"kind": "ServiceAccount", "name": "mine", "namespace": NAMESPACE}]
        assert (kind.removesuffix("Binding"), name) in objects, "the role that it binds"
        assert each["roleRef"]["name"] == name.rpartition("/")[2]
    cluster_wide = {name for kind, name in objects if kind == "ClusterRole"}
    people = {"drivetrain-operator-drivetrain-system-view", "drivetrain-operator-drivetrain-system-edit"}
    assert cluster_wide == (people if namespaces else {*people, "drivetrain-operator-drivetrain-system"})


def test_with_namespaces_and_without_roles_of_people_nothing_of_it_is_cluster_wide() -> None:
    objects = rendered({"watchNamespaces": ["a"], "aggregatedRoles": {"enabled": False}})
    assert not any(kind.startswith("Cluster") for kind, _ in objects)


@pytest.mark.parametrize("wanted", [True, False])
def test_it_is_a_part_of_another_chart_on_a_condition(tmp_path: Path, wanted: bool) -> None:
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    shutil.copytree(CHART, parent / "charts" / "drivetrain")
    dependency = {"name": "drivetrain", "version": "0.1.0", "condition": "drivetrain.enabled"}
    metadata = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(metadata))
    values = {
        "global": {"imageRegistry": "mirror.example", "of": "another"},
        "tags": {"x": True},
        "drivetrain": {"enabled": wanted, "replicas": 3, "affinity": None, "topologySpreadConstraints": None},
    }
    objects = rendered(values, chart=parent)
    assert (("Deployment", "drivetrain-operator") in objects) is wanted
    if wanted:
        assert objects["Deployment", "drivetrain-operator"]["spec"]["replicas"] == 3
        assert container(objects)["image"].startswith("mirror.example/")
        assert "at '/log': missing property" in refusal({"drivetrain": {"log": {"level": None}}}, chart=parent)


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("namespaces", [[], ["team-a"]])
def test_what_the_notes_say_works_without_a_checkout(tmp_path: Path, namespaces: list[str]) -> None:
    done = helm(
        "install", "mine", str(CHART), "--namespace", "sys", "--dry-run=client", values={"watchNamespaces": namespaces}
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("\nNOTES:\n")[2]
    (script,) = re.findall(r"^kubectl apply .*?^END$", notes, re.MULTILINE | re.DOTALL)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@" > "$0.args"\ncat > "$0.stdin"\n')
    kubectl.chmod(0o755)
    subprocess.run(["bash", "-euc", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    where = namespaces[0] if namespaces else "default"
    assert (tmp_path / "kubectl.args").read_text() == f"apply --namespace {where} -f -\n"
    job = yaml.safe_load((tmp_path / "kubectl.stdin").read_text())
    TrainingJobSpec.model_validate(job["spec"])
    compile(job["spec"]["command"][2], "first", "exec")
    assert (
        f"logs --namespace {where} --selector {LABEL_JOB}={job['metadata']['name']},{LABEL_ROLE}={ROLE_WORKER}" in notes
    )
    for path in re.findall(r"\S+/\S+\.(?:yaml|py|md)", notes):
        pytest.fail(f"the notes name {path}, a file of the checkout")


def test_what_artifact_hub_is_told_is_so() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    said = {name: yaml.safe_load(text) for name, text in metadata["annotations"].items()}
    (crd,) = said["artifacthub.io/crds"]
    (installed,) = [yaml.safe_load(each.read_text()) for each in (CHART / "files").glob("*.yaml")]
    assert (crd["name"], crd["kind"]) == (installed["metadata"]["name"], installed["spec"]["names"]["kind"])
    assert crd["version"] in [each["name"] for each in installed["spec"]["versions"]]
    first = yaml.safe_load((CHART / "files" / "examples" / "first-job.yaml").read_text())
    assert said["artifacthub.io/crdsExamples"] == [first]
    assert [each["image"] for each in said["artifacthub.io/images"]] == [container(rendered())["image"]]


def test_versions_agree() -> None:
    chart: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


def test_people_get_only_verbs_that_the_api_has() -> None:
    """A subresource of one object has no list; and only the operator writes status."""
    objects = rendered()
    found = {
        name.rpartition("-")[2]: {
            resource: set(rule["verbs"]) for rule in each["rules"] for resource in rule["resources"]
        }
        for (kind, name), each in objects.items()
        if kind == "ClusterRole" and name.endswith(("-view", "-edit"))
    }
    look, change = {"get", "list", "watch"}, {"create", "update", "patch", "delete"}
    assert found == {
        "view": {"trainingjobs": look, "trainingjobs/status": {"get"}, "trainingjobs/scale": {"get"}},
        "edit": {"trainingjobs": look | change, "trainingjobs/scale": {"get", "update", "patch"}},
    }
