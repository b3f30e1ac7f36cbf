"""The chart itself: what Helm says of it, what the API server says of what it renders, and what its values do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from cluster.errors import CommandFailed
from cluster.kubectl import get, kubectl
from e2e.cluster.conftest import CHART, SYSTEM, helm
from harness.network_policies import End, passes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
CRD = "trainingjobs.drivetrain.dev"


def rendered(*flags: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What the chart makes with these flags, by kind and name."""
    text = helm("template", "drivetrain", str(CHART), "--namespace", SYSTEM, *flags)
    found = [each for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def test_lint(installed: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_two_replicas_are_ready_and_one_leads(installed: str) -> None:
    deployment = get("deployment", "drivetrain-operator", "--namespace", SYSTEM)
    assert deployment["status"]["readyReplicas"] == 2
    leader = get("lease", "drivetrain-operator", "--namespace", SYSTEM)["spec"]["holderIdentity"].rpartition("_")[0]
    address = get("pod", leader, "--namespace", SYSTEM)["status"]["podIP"]
    slices = get("endpointslices", "drivetrain-reports", "--namespace", SYSTEM)
    assert [each["addresses"] for each in slices["endpoints"]] == [[address]]


def test_the_crd_is_upgraded_with_the_chart_and_kept_without_it(installed: str) -> None:
    annotations = get("crd", CRD)["metadata"]["annotations"]
    assert annotations["helm.sh/resource-policy"] == "keep"
    assert ("CustomResourceDefinition", CRD) not in rendered("--set", "crds.enabled=false")
    gone = rendered("--set", "crds.keep=false")["CustomResourceDefinition", CRD]["metadata"]
    assert "annotations" not in gone


EVERYTHING = (
    "--set", "networkPolicy.enabled=true,templatePolicy.enabled=true,proxy.https=http://p:1,trustedCA.configMap=ca",
    "--set-json", 'extraEnv=[{"name": "A", "value": "true"}]',
    "--set-json", 'extraVolumes=[{"name": "v", "emptyDir": {}}]',
    "--set-json", 'extraVolumeMounts=[{"name": "v", "mountPath": "/v"}]',
    "--set-json", 'tolerations=[{"operator": "Exists"}]',
)  # fmt: skip


@pytest.mark.parametrize(
    "flags", [EVERYTHING, ("--set", "watchNamespaces={default}")], ids=["everything", "namespaced"]
)
def test_the_api_server_takes_what_it_makes(installed: str, flags: tuple[str, ...]) -> None:
    objects = [each for (kind, _), each in rendered(*flags).items() if kind != "CustomResourceDefinition"]
    kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
    )  # fmt: skip


def test_helm_test_passes(installed: str) -> None:
    assert "Succeeded" in helm("test", "drivetrain", "--namespace", SYSTEM)


def test_the_operators_network_policy_lets_in_jobs_and_scrapers(installed: str) -> None:
    operator = End(SYSTEM, rendered()["Deployment", "drivetrain-operator"]["spec"]["template"]["metadata"]["labels"])
    worker = End("team-a", {"drivetrain.dev/role": "worker"})
    stranger, prometheus = End("team-a", {"app": "x"}), End("monitoring", {"app": "prometheus"})
    assert ("NetworkPolicy", "drivetrain-operator") not in rendered()
    on = ("--set", "networkPolicy.enabled=true")
    scrapers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    narrow = (*on, "--set", "watchNamespaces={team-b}", "--set-json", f"networkPolicy.scrapers={json.dumps(scrapers)}")
    for flags, of_team_a, metrics in ((on, True, True), (narrow, False, False)):
        policy = rendered(*flags)["NetworkPolicy", "drivetrain-operator"]
        assert passes([policy], worker, operator, 7443) is of_team_a
        assert not passes([policy], stranger, operator, 7443)
        assert passes([policy], prometheus, operator, 7071)
        assert passes([policy], stranger, operator, 7071) is metrics
        assert passes([policy], operator, stranger, 6443), "it reaches the API server, wherever that is"
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(policy))


def test_a_value_that_is_not_there_is_refused(installed: str) -> None:
    with pytest.raises(AssertionError, match="replica' not allowed"):
        helm("template", str(CHART), "--set", "replica=3")


def test_the_operator_may_do_no_more_than_it_needs(installed: str) -> None:
    who = f"system:serviceaccount:{SYSTEM}:drivetrain-operator"
    allowed = {
        "create secrets": "yes", "get secrets": "no", "create pods": "yes", "create pods/exec": "no",
        "patch pods": "no", "patch trainingjobs/status": "yes", "patch trainingjobs": "no", "delete services": "no",
    }  # fmt: skip
    for question, answer in allowed.items():
        verb, _, resource = question.partition(" ")
        resource, _, part = resource.partition("/")  # kubectl would take what follows the slash for a name
        command = ["auth", "can-i", verb, resource, f"--subresource={part}", "--namespace", "default", "--as", who]
        assert _can_i(command) == answer, question


def _can_i(command: list[str]) -> str:
    try:
        return kubectl(*command).strip()
    except CommandFailed:  # so it says no
        return "no"
