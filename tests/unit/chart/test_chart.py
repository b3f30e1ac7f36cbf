"""The chart says what the code says: permissions, ports, names, the CRD. What Helm makes of it is an e2e test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivetrain_api.constants import LABEL_ROLE, METRICS_PORT, REPORTS_PORT, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_operator import rbac
from drivetrain_operator.render.common import USER
from drivetrain_operator.settings import REPORTS_SERVICE, parse

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "drivetrain"


def rules(name: str) -> set[tuple[str, str, frozenset[str], frozenset[str]]]:
    """One list of rules of the chart: (group, resource, verbs, names)."""
    text = (CHART / "templates" / "_rules.tpl").read_text()
    body = re.search(rf'define "drivetrain\.rules\.{name}" -}}}}\n(.*?){{{{- end }}}}', text, re.DOTALL)
    assert body is not None
    found = set()
    for rule in yaml.safe_load(body[1]):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                key = (group, resource, frozenset(rule["verbs"]), frozenset(rule.get("resourceNames", ())))
                assert key not in found, f"{key} stands twice"
                found.add(key)
    return found


@pytest.mark.parametrize(("name", "used"), [("jobs", rbac.JOBS), ("own", rbac.OWN)])
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
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, part in schema["properties"].items():
        if part.get("type") == "object" and "properties" in part:
            assert part["additionalProperties"] is False, name
            assert set(part["properties"]) == set(values[name]), name


def test_the_deployment_names_what_the_code_listens_on() -> None:
    text = (CHART / "templates" / "deployment.yaml").read_text()
    assert re.findall(r"containerPort: (\d+)", text) == [str(REPORTS_PORT), str(METRICS_PORT)]
    assert f"runAsUser: {USER}\n" in text
    services = (CHART / "templates" / "services.yaml").read_text()
    assert f"name: {REPORTS_SERVICE}\n" in services
    assert re.findall(r"  port: (\d+)", services) == [str(REPORTS_PORT), str(METRICS_PORT)]


def test_the_operator_takes_the_flags_that_the_deployment_gives() -> None:
    text = (CHART / "templates" / "deployment.yaml").read_text()
    flags = [re.sub(r"{{.*?}}", "text" if "format" in flag else "info", flag) for flag in _flags(text)]
    environment = dict.fromkeys(re.findall(r"- name: (POD_\w+)", text), "10.0.0.1")
    settings = parse(flags, environment)
    assert settings.reports_service == REPORTS_SERVICE
    assert settings.pod_ip == settings.reports_host == settings.metrics_host == "10.0.0.1"
    assert settings.leader_election


def test_the_network_policy_names_whom_the_code_talks_to() -> None:
    text = (CHART / "templates" / "networkpolicy.yaml").read_text()
    assert re.findall(r"- port: (\d+)", text) == [str(REPORTS_PORT), str(METRICS_PORT)]
    assert f"key: {LABEL_ROLE}\n" in text
    assert f"values: [{ROLE_COORDINATOR}, {ROLE_WORKER}]" in text


def test_versions_agree() -> None:
    chart: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


def _flags(text: str) -> list[str]:
    return re.findall(r"^ +- (--\S+?=.*)$", text, re.MULTILINE)
