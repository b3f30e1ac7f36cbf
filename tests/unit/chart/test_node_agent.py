"""The node agent's part of the chart: off unless it is asked for, and the least that it needs."""

from __future__ import annotations

import pytest

from drivetrain_api.power import CAPS_CONFIGMAPS, REPORTS_CONFIGMAPS
from drivetrain_nodeagent.main import main
from drivetrain_operator.settings import parse
from harness.helm import NAMESPACE, Objects, container, rendered

NAME = "drivetrain-nodeagent"


@pytest.fixture(scope="module")
def objects() -> Objects:
    return rendered({"nodeAgent": {"enabled": True}})


def test_off_there_is_nothing_of_it() -> None:
    assert not [name for kind, name in rendered() if "nodeagent" in name or "power-" in name or kind == "DaemonSet"]


def test_its_rights_are_objects_by_name(objects: Objects) -> None:
    rules = objects["Role", NAME]["rules"]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in rules] == [
        (["configmaps"], [*CAPS_CONFIGMAPS], ["get", "list", "watch"]),
        (["configmaps"], [*REPORTS_CONFIGMAPS], ["patch"]),
    ]
    assert not [name for kind, name in objects if kind.startswith("ClusterRole") and "nodeagent" in name]
    for name in (*CAPS_CONFIGMAPS, *REPORTS_CONFIGMAPS):
        assert "data" not in objects["ConfigMap", name], "an upgrade would take away what stands there"


def test_nobody_else_is_privileged(objects: Objects) -> None:
    pods = {
        key: each["spec"]["template"]["spec"] for key, each in objects.items() if "template" in each.get("spec", {})
    }
    privileged = [
        key for key, pod in pods.items() if any(c["securityContext"].get("privileged") for c in pod["containers"])
    ]
    assert privileged == [("DaemonSet", NAME)]
    assert [key for key, pod in pods.items() if pod.get("hostPID")] == [("DaemonSet", NAME)]


def test_its_journal_is_on_the_node(objects: Objects, capsys: pytest.CaptureFixture[str]) -> None:
    pod = objects["DaemonSet", NAME]["spec"]["template"]["spec"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert "hostPath" in volumes["journal"]
    with pytest.raises(SystemExit):
        main(["--help"], {})
    said = " ".join(capsys.readouterr().out.split())
    assert f"(default: {mounts['journal']}/limits.json)" in said
    assert f"(default: {pod['containers'][0]['ports'][0]['containerPort']})" in said


def test_the_operators_pods_are_not_selected_with_it(objects: Objects) -> None:
    selector = objects["DaemonSet", NAME]["spec"]["selector"]["matchLabels"]
    operator = objects["Deployment", "drivetrain-operator"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= objects["DaemonSet", NAME]["spec"]["template"]["metadata"]["labels"].items()
    assert selector != operator


def test_the_operator_is_told_of_it_and_may_what_it_takes(objects: Objects) -> None:
    environment = {"POD_IP": "10.0.0.1", "POD_NAME": "p", "POD_NAMESPACE": "n"}
    assert parse(container(objects)["args"], environment).node_agents
    assert not parse(container(rendered())["args"], environment).node_agents
    rules = objects["Role", "drivetrain-operator-power"]["rules"]
    assert {(*rule["resources"], *rule["resourceNames"], *rule["verbs"]) for rule in rules} == {
        ("configmaps", *REPORTS_CONFIGMAPS, "get", "patch"),
        ("configmaps", *CAPS_CONFIGMAPS, "get", "patch"),
    }
    bound = objects["RoleBinding", "drivetrain-operator-power"]
    assert [each["name"] for each in bound["subjects"]] == ["drivetrain-operator"]
    without = rendered({"nodeAgent": {"enabled": True}, "rbac": {"create": False}})
    assert not [name for kind, name in without if kind.startswith("Role")]


def test_in_a_namespace_of_its_own_it_talks_to_the_operator_s() -> None:
    """So that the operator's may enforce restricted Pod Security."""
    objects = rendered({"nodeAgent": {"enabled": True, "namespace": "agents"}})
    pods = objects["DaemonSet", f"agents/{NAME}"]["spec"]["template"]["spec"]
    assert pods["containers"][0]["args"] == [f"--namespace={NAMESPACE}"]
    assert objects["ServiceAccount", f"agents/{NAME}"]
    assert objects["RoleBinding", NAME]["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": "agents"}]
    for name in (*CAPS_CONFIGMAPS, *REPORTS_CONFIGMAPS):
        assert ("ConfigMap", name) in objects, "in the operator's"
