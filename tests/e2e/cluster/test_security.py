"""What keeps users apart, as the real API server sees it: templates, namespaces, roles, and who reaches whose pods.

NetworkPolicies are judged here, for the pods that are there; test_enforced.py tries them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.errors import CommandFailed
from cluster.kubectl import get, kubectl
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import QUICK, Job, wait_until
from harness.network_policies import End, passes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
Json = dict[str, Any]
POLICY = f"drivetrain-operator-{SYSTEM}-templates"


def a_job(namespace: str, template: Json | None = None, name: str = "tried", **spec: Any) -> Json:
    given = {"image": "drivetrain-worker", "command": QUICK, "podTemplate": template or {}, **spec}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "TrainingJob", "metadata": metadata, "spec": given}


def refusal(body: Json, *flags: str) -> str:
    """Why the API server would not have it; empty: it would. `apply` would leave out nulls."""
    try:
        kubectl("create", "--dry-run=server", *flags, "-f", "-", stdin=json.dumps(body))
    except CommandFailed as error:
        return str(error)
    return ""


@pytest.fixture
def limited(namespace: str) -> Iterator[str]:
    """A namespace in which the chart's policy for templates holds, and a job that was there before it."""
    before = a_job(namespace, {"spec": {"hostNetwork": True}}, "before", suspend=True)
    kubectl("create", "-f", "-", stdin=json.dumps(before))
    only = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    flags = (
        "--set",
        "templatePolicy.enabled=true",
        "--set-json",
        f"templatePolicy.namespaceSelector={json.dumps(only)}",
    )
    text = helm("template", "drivetrain", str(CHART), "-n", SYSTEM, "-s", "templates/templatepolicy.yaml", *flags)
    kubectl("apply", "-f", "-", stdin=text)
    try:
        wait_until(30, "the policy holds", lambda: bool(refusal(a_job(namespace, {"spec": {"hostPID": True}}))))
        yield namespace
    finally:
        kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
        kubectl("delete", kinds, POLICY)


def worker(**fields: Any) -> Json:
    return {"spec": {"containers": [{"name": "worker", **fields}]}}


OTHERS = "lm-2-worker-22222222"
BEYOND: dict[str, tuple[Json, str]] = {
    "privileges": (worker(securityContext={"privileged": True}), "a securityContext has only"),
    "escalation by null": (worker(securityContext={"allowPrivilegeEscalation": None}), "a securityContext has only"),
    "another job's Secret": (
        {"spec": {"volumes": [{"name": "v", "secret": {"secretName": OTHERS}}]}},
        "Secrets in templatePolicy.secrets",
    ),
    "another job's Secret, as variables": (worker(envFrom=[{"secretRef": {"name": OTHERS}}]), "env and envFrom"),
    "the node's files": ({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "a volume is"),
    "an account": ({"spec": {"serviceAccountName": "admin"}}, "service accounts of pods"),
    "its token": ({"spec": {"automountServiceAccountToken": True}}, "service accounts of pods"),
    "a field of tomorrow": ({"spec": {"newPower": True}}, "a pod template's spec has only"),
    "a list of the wrong things": ({"spec": {"containers": ["worker"]}}, "expected iterable type"),
}


def test_templates_that_reach_beyond_their_job_are_refused(limited: str) -> None:
    told = {name: refusal(a_job(limited, template)) for name, (template, _) in BEYOND.items()}
    assert {name: BEYOND[name][1] in why for name, why in told.items()} == dict.fromkeys(BEYOND, True), told
    assert refusal(a_job(limited, coordinator={"podTemplate": worker(volumeDevices=[])}))
    assert refusal(a_job(limited)) == ""
    plain = worker(resources={"limits": {"memory": "1Gi"}}, env=[{"name": "A", "value": "1"}])
    assert refusal(a_job(limited, plain)) == ""


def test_a_large_template_costs_less_than_the_api_server_grants(limited: str) -> None:
    variables = [{"name": f"V{i}", "value": "1"} for i in range(100)]
    many = [{"name": f"c{i}", "image": "x", "env": variables} for i in range(30)]
    assert refusal(a_job(limited, {"spec": {"containers": many}})) == ""


def test_the_policy_is_of_one_type_with_the_crd(limited: str) -> None:
    def checked() -> bool:
        status = get("validatingadmissionpolicy", POLICY).get("status", {})
        return bool(status.get("observedGeneration") == 1)

    wait_until(20, "its types are checked", checked)
    found = get("validatingadmissionpolicy", POLICY)["status"].get("typeChecking", {})
    assert found.get("expressionWarnings", []) == []


def test_a_job_that_was_there_before_the_policy_can_be_managed(limited: str) -> None:
    kubectl("patch", "trainingjob", "before", "-n", limited, "--type=merge", "-p", '{"spec":{"workers":3}}')
    kubectl("label", "trainingjob", "before", "-n", limited, "a=b")
    worse = '{"spec":{"podTemplate":{"spec":{"hostPID":true}}}}'
    with pytest.raises(CommandFailed, match="spec has only"):
        kubectl("patch", "trainingjob", "before", "-n", limited, "--type=merge", "-p", worse)
    kubectl("delete", "trainingjob", "before", "-n", limited, "--cascade=foreground", timeout=30)


def test_a_job_in_the_operators_namespace_fails(installed: str) -> None:
    name = f"own-{time.time_ns() % 10**6}"
    kubectl("create", "-f", "-", stdin=json.dumps(a_job(SYSTEM, name=name, workers=1)))
    try:
        kubectl("wait", "--for=condition=Failed", f"trainingjob/{name}", "-n", SYSTEM, "--timeout=1h", timeout=30)
        status = get("trainingjob", name, "-n", SYSTEM)["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "OwnNamespace")
        assert "allowOwnNamespace" in status["message"]
        assert get("pods", "-n", SYSTEM, "--selector", f"drivetrain.dev/job={name}")["items"] == []
    finally:
        kubectl("delete", "trainingjob", name, "-n", SYSTEM)


def test_a_job_that_shuts_strangers_off(start: Callable[..., Job]) -> None:
    """Judged for the labels and ports of what runs; and it trains, with policies that nobody mends again and again."""
    shut = {"ingress": "job", "egress": "job"}
    job = start("shut", script=False, workers=2, command=QUICK, network=shut)
    wait_until(60, "its pods", lambda: len(job.pods()) == 2 and len(job.pods("coordinator")) == 1)
    policies = get("networkpolicies", "--namespace", job.namespace)["items"]
    first, second = (End.of(pod) for pod in job.pods())
    (leading,) = job.pods("coordinator")
    leader = End.of(leading)
    stranger = End(job.namespace, {"app": "stranger"})
    operator = End.of(get("pods", "-n", SYSTEM, "--selector", "app.kubernetes.io/component=operator")["items"][0])
    (service,) = get("services", "-n", job.namespace)["items"]
    channel = service["spec"]["ports"][0]["targetPort"]
    opened = {port["name"]: port["containerPort"] for port in leading["spec"]["containers"][0]["ports"]}
    assert channel == opened["channel"]
    assert service["spec"]["selector"].items() <= leader.labels.items()
    judged = {
        "a worker and its coordinator": passes(policies, first, leader, channel),
        "two workers": passes(policies, first, second, 40_000),
        "the coordinator and the operator": passes(policies, leader, operator, 7443),
        "Prometheus": passes(policies, stranger, leader, opened["metrics"]),
    }
    assert judged == dict.fromkeys(judged, True)
    judged = {
        "a stranger and a worker": passes(policies, stranger, first, 40_000),
        "a stranger and the coordinator": passes(policies, stranger, leader, channel),
        "the same labels elsewhere": passes(policies, End("default", dict(first.labels)), leader, channel),
        "another job": passes(policies, End(job.namespace, first.labels | {"drivetrain.dev/job-uid": "x"}), first, 1),
        "a worker and the API server": passes(policies, first, End("default", {}), 6443),
    }
    assert judged == dict.fromkeys(judged, False)
    job.completes()
    after = get("networkpolicies", "--namespace", job.namespace)["items"]
    assert [each["metadata"]["generation"] for each in after] == [1, 1]
    assert {each["metadata"]["ownerReferences"][0]["uid"] for each in after} == {job.uid}


def test_who_may_only_create_jobs_reaches_nothing_else(namespace: str, start: Callable[..., Job]) -> None:
    """Each is tried, in the name of a service account that may do everything with TrainingJobs of its namespace."""
    theirs = start("theirs", script=False, workers=1, command=["python", "-c", "import time; time.sleep(99)"])
    wait_until(60, "its pods", lambda: len(theirs.pods()) == 1)
    (pod,) = theirs.pods()
    volumes = pod["spec"]["volumes"]
    secret = next(each["secret"]["secretName"] for each in volumes if "secret" in each)
    kubectl("create", "serviceaccount", "narrow", "-n", namespace)
    kubectl("create", "role", "narrow", "-n", namespace, "--verb=*", "--resource=trainingjobs.drivetrain.dev")
    kubectl("create", "rolebinding", "narrow", "-n", namespace, "--role=narrow", f"--serviceaccount={namespace}:narrow")
    who = f"--as=system:serviceaccount:{namespace}:narrow"
    assert refusal(a_job(namespace), who) == ""
    kubectl("get", "trainingjobs", "-n", namespace, who)
    merged = ["--subresource=status", "--type=merge", "-p", '{"status":{"keeper":null}}']
    tried: dict[str, list[str]] = {
        "the job's Secret": ["get", "secret", secret, "-n", namespace],
        "Secrets of its namespace": ["get", "secrets", "-n", namespace],
        "the root of trust": ["get", "secret", "drivetrain-root", "-n", SYSTEM],
        "Secrets of all": ["get", "secrets", "-A"],
        "jobs of all": ["get", "trainingjobs", "-A"],
        "jobs of the operator's namespace": ["get", "trainingjobs", "-n", SYSTEM],
        "jobs of another namespace": ["get", "trainingjobs", "-n", "default"],
        "a status": ["patch", "trainingjob", "theirs", "-n", namespace, *merged],
        "a pod's end": ["delete", "pod", pod["metadata"]["name"], "-n", namespace],
        "a command in a pod": ["exec", pod["metadata"]["name"], "-n", namespace, "--", "true"],
        "policies": ["get", "networkpolicies", "-n", namespace],
        "a token of the operator": ["create", "token", "drivetrain-operator", "-n", SYSTEM],
        "a wider role": ["create", "role", "wide", "-n", namespace, "--verb=*", "--resource=secrets"],
    }  # fmt: skip
    answers = {name: _answer(who, words) for name, words in tried.items()}
    assert {name: "forbidden" in answer.lower() for name, answer in answers.items()} == dict.fromkeys(tried, True), (
        answers
    )
    for elsewhere in ("default", SYSTEM):
        assert "forbidden" in refusal(a_job(elsewhere), who)


def _answer(who: str, command: list[str]) -> str:
    try:
        return kubectl(who, *command)
    except CommandFailed as error:
        return str(error)
