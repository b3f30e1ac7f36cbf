"""What the chart makes for Prometheus and Grafana, where they are, and of what there is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivetrain_api.constants import LABEL_ROLE, ROLE_COORDINATOR
from drivetrain_operator.render import coordinator
from drivetrain_operator.settings import parse
from harness.helm import CHART, MONITORING, container, deployment, rendered

RULE = {"alert": "OperatorDown", "expr": "absent(up)", "annotations": {"summary": "{{ $labels.job }} is down"}}
BOARD = {"title": "Fleet", "panels": [{"legendFormat": "{{job}}", "expr": 'x{a=~"$b"}'}]}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart that has rules and a dashboard."""
    copy = tmp_path / "drivetrain"
    shutil.copytree(CHART, copy)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(copy / "files" / folder, ignore_errors=True)
        (copy / "files" / folder).mkdir()
    for name in ("jobs", "operator"):
        text = yaml.safe_dump({"groups": [{"name": name, "rules": [RULE]}]})
        (copy / "files" / "rules" / f"{name}.yaml").write_text(text)
    (copy / "files" / "dashboards" / "fleet.json").write_text(json.dumps(BOARD, indent=2))
    return copy


def test_without_the_prometheus_operator_nothing_of_it_is_made(chart: Path) -> None:
    kinds = {kind for kind, _ in rendered(chart=chart)}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert "ConfigMap" in kinds


def test_rules_are_taken_from_their_files_and_not_read_as_templates(chart: Path) -> None:
    values = {"metrics": {"rules": {"labels": {"release": "prometheus"}, "annotations": {"a": "1"}}}}
    rule = rendered(values, *MONITORING, chart=chart)["PrometheusRule", "drivetrain"]
    assert [(each["name"], each["rules"]) for each in rule["spec"]["groups"]] == [
        ("jobs", [RULE]),
        ("operator", [RULE]),
    ]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["metadata"]["annotations"] == {"a": "1"}
    off = rendered({"metrics": {"rules": {"enabled": False}}}, *MONITORING, chart=chart)
    assert ("PrometheusRule", "drivetrain") not in off


def test_our_own_alerts_have_the_addresses_of_their_pages() -> None:
    values = {"metrics": {"rules": {"runbooks": "https://example.com/runbooks/"}}}
    told = rendered(values, *MONITORING)["PrometheusRule", "drivetrain"]["spec"]["groups"]
    plain = rendered({}, *MONITORING)["PrometheusRule", "drivetrain"]["spec"]["groups"]
    alerts = [rule for group in told for rule in group["rules"] if "alert" in rule]
    assert alerts
    for rule in alerts:
        assert rule["annotations"].pop("runbook_url") == f"https://example.com/runbooks/{rule['alert']}.md"
    assert told == plain


def test_a_dashboard_is_a_configmap_for_the_sidecar(chart: Path) -> None:
    board = rendered({"metrics": {"dashboards": {"annotations": {"grafana_folder": "D"}}}}, chart=chart)[
        "ConfigMap", "drivetrain-dashboard-fleet"
    ]
    assert json.loads(board["data"]["fleet.json"]) == BOARD
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["metadata"]["annotations"] == {"grafana_folder": "D"}
    other = rendered({"metrics": {"dashboards": {"labels": {"grafana_dashboard": "yes"}}}}, chart=chart)
    assert other["ConfigMap", "drivetrain-dashboard-fleet"]["metadata"]["labels"]["grafana_dashboard"] == "yes"
    off = rendered({"metrics": {"dashboards": {"enabled": False}}}, chart=chart)
    assert not any(kind == "ConfigMap" for kind, _ in off)


def test_what_has_no_content_is_left_out(chart: Path) -> None:
    shutil.rmtree(chart / "files" / "rules")
    shutil.rmtree(chart / "files" / "dashboards")
    kinds = {kind for kind, _ in rendered({}, *MONITORING, chart=chart)}
    assert "ServiceMonitor" in kinds
    assert not kinds & {"PrometheusRule", "ConfigMap"}


def test_the_monitors_find_what_there_is() -> None:
    objects = rendered({}, *MONITORING)
    monitor = objects["ServiceMonitor", "drivetrain-operator"]["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = {name: each for (kind, name), each in objects.items() if kind == "Service"}
    assert [name for name, each in services.items() if wanted <= each["metadata"]["labels"].items()] == [
        "drivetrain-metrics"
    ]
    ports = objects["Service", "drivetrain-metrics"]["spec"]["ports"]
    assert monitor["endpoints"][0]["port"] in {each["name"] for each in ports}
    pods = objects["PodMonitor", "drivetrain-coordinators"]["spec"]
    assert pods["selector"]["matchLabels"] == {LABEL_ROLE: ROLE_COORDINATOR}
    assert pods["podMetricsEndpoints"][0]["port"] in {
        each["name"] for each in coordinator._DEFAULTS["containers"][0]["ports"]
    }
    assert pods["namespaceSelector"] == {"any": True}


def test_coordinators_are_looked_for_where_jobs_are() -> None:
    found = rendered({"watchNamespaces": ["a", "b"]}, *MONITORING)["PodMonitor", "drivetrain-coordinators"]
    assert found["spec"]["namespaceSelector"] == {"matchNames": ["a", "b"]}


def test_series_keep_the_labels_that_they_have() -> None:
    objects: dict[Any, Any] = rendered({}, *MONITORING)
    monitor, pods = objects["ServiceMonitor", "drivetrain-operator"], objects["PodMonitor", "drivetrain-coordinators"]
    assert monitor["spec"]["endpoints"][0]["honorLabels"] is True
    assert pods["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["targetLabel"] == "job_name"


def test_the_operator_and_who_scrapes_it_agree_on_token_and_tls() -> None:
    values = {
        "metrics": {"tls": {"secretName": "pair", "caKey": "root.crt"}, "token": {"secretName": "word", "key": "t"}}
    }
    objects = rendered(values, *MONITORING)
    operator = container(objects)
    settings = parse(operator["args"], {"POD_IP": "10.0.0.1"})
    mounts = {each["mountPath"]: each["name"] for each in operator["volumeMounts"]}
    volumes = {
        each["name"]: each.get("secret", {}).get("secretName") for each in deployment(objects)["spec"]["volumes"]
    }
    for file, name, of in (
        (settings.metrics_cert_file, "tls.crt", "pair"),
        (settings.metrics_key_file, "tls.key", "pair"),
        (settings.metrics_token_file, "t", "word"),
    ):
        assert file is not None
        assert (file.name, volumes[mounts[str(file.parent)]]) == (name, of)
    endpoint = objects["ServiceMonitor", "drivetrain-operator"]["spec"]["endpoints"][0]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "serverName": "drivetrain-metrics.drivetrain-system.svc",
        "ca": {"secret": {"name": "pair", "key": "root.crt"}},
    }
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": "word", "key": "t"}}
    probes = (operator["livenessProbe"], operator["readinessProbe"])
    assert {each["httpGet"]["scheme"] for each in probes} == {"HTTPS"}
    coordinators = objects["PodMonitor", "drivetrain-coordinators"]["spec"]["podMetricsEndpoints"][0]
    assert not {"scheme", "authorization", "tlsConfig"} & set(coordinators)


def test_without_them_it_is_in_the_open() -> None:
    objects = rendered({}, *MONITORING)
    endpoint = objects["ServiceMonitor", "drivetrain-operator"]["spec"]["endpoints"][0]
    assert not {"scheme", "authorization", "tlsConfig"} & set(endpoint)
    assert container(objects)["livenessProbe"]["httpGet"]["scheme"] == "HTTP"
