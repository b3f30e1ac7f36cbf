"""The chart with everything turned on, in namespaces that enforce `restricted`: it works, the API server refuses the
operator nothing, and grants it nothing that it never asks for. Judged by the API server's own audit log."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster import audit
from cluster.binaries import binary
from cluster.command import run
from cluster.kubectl import environment, get, kubectl
from cluster.layout import kubeconfig
from contract.kit import access
from e2e.cluster.conftest import SYSTEM, helm
from e2e.cluster.everything import HEADER, SERVER_NAME, TOKEN, Release, everything_on
from e2e.cluster.job import NO_SPARES, QUICK, Job, strike, wait_until
from harness.grants import Grant, granted, in_vain, of_role
from harness.often import often

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
Json = dict[str, Any]
OPERATOR: Final = f"system:serviceaccount:{SYSTEM}:drivetrain-operator"
JOBS: Final = "/apis/drivetrain.dev/v1alpha1/namespaces/{namespace}/trainingjobs"
SCOPES: Final = ("all namespaces", "named namespaces")[: often(2, 1)]
"""Of watchNamespaces. The rules are the same, in one ClusterRole or in Roles."""
NO_REQUEST: Final = {
    (
        "drivetrain.dev",
        "trainingjobs/finalizers",
        "update",
    ): "asked by OwnerReferencesPermissionEnforcement, which is on "
    "in this cluster: without it no child of a job could be made",
}
"""Permissions that show in no request, and why they are needed all the same."""


@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_is_refused_and_nothing_granted_in_vain(
    scope: str, namespace: str, claim: str, start: Callable[..., Job], tmp_path: Path
) -> None:
    authorities = {"ca-certificates.crt": Path("/etc/ssl/certs/ca-certificates.crt").read_text()}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authorities"}, "data": authorities}
    kubectl("create", "--namespace", namespace, "-f", "-", stdin=json.dumps(body))
    with everything_on([namespace] if scope == "named namespaces" else [], tmp_path) as release:
        objects = [each for each in yaml.safe_load_all(helm("get", "manifest", "drivetrain", "-n", SYSTEM)) if each]
        assert "Succeeded" in helm("test", "drivetrain", "--namespace", SYSTEM)
        job = start("all", workers=2, steps=4000, **_features(claim))
        _monitors_find_what_they_name(release, job)
        _lives_through_it(job)
        _is_gone_in_time(start)
        wait_until(60, "its trace", lambda: len(release.traced) > 0)
        people = _people_do_what_they_may(objects, namespace, tmp_path)
        asked = audit.requests(release.since)
    assert set(release.traced) == {("/v1/traces", HEADER.partition("=")[2])}
    of_operator = [each for each in asked if each.user == OPERATOR]
    refused = [each for each in of_operator if each.denied or each.code == 403]
    assert refused == []
    grants = {each for each in granted(objects) if (each.group, each.resource, each.verb) not in NO_REQUEST}
    assert grants, "the chart grants nothing at all"
    unused = in_vain(grants | people, asked)
    assert [str(each) for each in unused] == []
    # Pods of jobs have no token.
    others = {each.user for each in asked if each.namespace == namespace} - {each.user for each in people}
    assert others == {OPERATOR}
    print(f"\n{len(of_operator)} requests of the operator, none refused; {len(grants | people)} permissions, all used")


def _features(claim: str) -> Json:
    return {
        "elastic": {"minWorkers": 1, "maxWorkers": 3},
        "recovery": NO_SPARES,
        "network": {"ingress": "job", "egress": "job"},
        "snapshots": {"storage": {"persistentVolumeClaim": claim}, "commitSeconds": 1, "baseEverySteps": 40},
    }


def _lives_through_it(job: Job) -> None:
    """Whatever makes the operator ask for something else."""
    members = job.settled(2, spares=0)
    strike(members[1])
    job.settled(2, spares=0)
    for kind in ("service", "poddisruptionbudget", "networkpolicy"):  # it loses sight of them, finds and mends them
        (first, *_) = _children(job, kind)
        kubectl("label", kind, first, "drivetrain.dev/job-uid-", "-n", job.namespace)
        wait_until(60, f"the {kind} is mended", lambda kind=kind, first=first: first in _children(job, kind))  # type: ignore[misc]
    leader = get("lease", "drivetrain-operator", "-n", SYSTEM)["spec"]["holderIdentity"].rpartition("_")[0]
    kubectl("delete", "pod", leader, "-n", SYSTEM, "--wait=false")
    pod = job.pods()[0]["metadata"]["name"]
    kubectl("delete", "pod", pod, "-n", job.namespace, "--grace-period=0", "--force")
    job.until("its successor", lambda status: bool(status.get("incarnations")), 60)
    job.settled(2, spares=0)
    for size in (3, 2):
        kubectl("scale", "trainingjob", job.name, "-n", job.namespace, f"--replicas={size}")
        job.until(f"{size} workers", lambda status, size=size: status["workers"]["world"] == size, 90)  # type: ignore[misc]
    _patched(job, {"network": {"egress": "any"}})
    _patched(job, {"network": None})
    wait_until(60, "no NetworkPolicy", lambda: not _children(job, "networkpolicy"))
    _patched(job, {"suspend": True})
    job.until("it rests", lambda status: status["phase"] == "Suspended", 60)
    _patched(job, {"suspend": False})
    job.settled(2, spares=0)
    kubectl("delete", "trainingjob", job.name, "-n", job.namespace, timeout=90)


def _is_gone_in_time(start: Callable[..., Job]) -> None:
    """A job that goes by itself when it has ended, and that somebody else writes all the time."""
    job = start("brief", script=False, workers=1, command=QUICK, steps=30, ttlSecondsAfterFinished=1)
    with _touched(job):
        wait_until(120, "it is gone", lambda: job.name not in _names(job.namespace, "trainingjobs"))
    told = get("events", "-n", job.namespace, "--field-selector", f"involvedObject.name={job.name}")["items"]
    assert "Completed" in [each["reason"] for each in told]


@contextmanager
def _touched(job: Job) -> Iterator[None]:
    """So that a write of the operator's meets another, and it has to look what the job is now."""
    found, over = access(kubeconfig()), threading.Event()
    assert isinstance(found.tls, ssl.SSLContext)
    address = found.address.removeprefix("https://")
    path = f"{JOBS.format(namespace=job.namespace)}/{job.name}"

    def touch() -> None:
        connection = http.client.HTTPSConnection(address, context=found.tls, timeout=10)  # type: ignore[arg-type]
        while not over.wait(0.005):
            body = json.dumps({"metadata": {"annotations": {"touched": str(time.monotonic())}}})
            connection.request("PATCH", path, body, {"Content-Type": "application/merge-patch+json"})
            if connection.getresponse().read() and over.is_set():
                break
        connection.close()

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


def _monitors_find_what_they_name(release: Release, job: Job) -> None:
    """What is made for others: they are asked for as those would ask for them."""
    made = "servicemonitors,podmonitors,prometheusrules,networkpolicies,poddisruptionbudgets,configmaps"
    names = set(_names(SYSTEM, made))
    assert names >= {"drivetrain-operator", "drivetrain-coordinators", "drivetrain"}
    boards = get("configmaps", "-n", SYSTEM, "--selector", "grafana_dashboard=1")["items"]
    assert len(boards) == len({name for name in names if name.startswith("drivetrain-dashboard-")}) == 4
    (endpoint,) = get("servicemonitor", "drivetrain-operator", "-n", SYSTEM)["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == ("https", SERVER_NAME)
    operators = get("pods", "-n", SYSTEM, "--selector", "app.kubernetes.io/component=operator")["items"]
    trust = ssl.create_default_context(cafile=str(release.authority))
    for pod in operators:
        told = [
            _answer(pod["status"]["podIP"], 7071, headers, trust)
            for headers in ({}, {"Authorization": f"Bearer {TOKEN}"})
        ]
        assert (told[0][0], told[1][0]) == (401, 200), told
        assert "# TYPE drivetrain_" in told[1][1]
    job.settled(2, spares=0)
    status, text = _answer(job.coordinator()["status"]["podIP"], 7071, {}, None)
    assert status == 200
    assert "# TYPE drivetrain_" in text


def _answer(host: str, port: int, headers: dict[str, str], trust: ssl.SSLContext | None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    if trust is not None:
        connection.sock = trust.wrap_socket(socket.create_connection((host, port), 10), server_hostname=SERVER_NAME)
    connection.request("GET", "/metrics", headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def _people_do_what_they_may(objects: list[Json], namespace: str, folder: Path) -> set[Grant]:
    """What the chart adds to Kubernetes' roles view and edit, done in the name of somebody who has one; returns it."""
    grants: set[Grant] = set()
    jobs = JOBS.format(namespace=namespace)
    for role in ("view", "edit"):
        (mine,) = [each for each in objects if each["metadata"]["name"] == f"drivetrain-operator-{SYSTEM}-{role}"]
        grants |= of_role(mine, f"system:serviceaccount:{namespace}:{role}", namespace)
        kubectl("create", "serviceaccount", role, "-n", namespace)
        kubectl(
            "create",
            "rolebinding",
            role,
            "-n",
            namespace,
            f"--clusterrole={role}",
            f"--serviceaccount={namespace}:{role}",
        )
    editor, viewer = _person("edit", namespace, folder), _person("view", namespace, folder)
    spec = {"image": "drivetrain-worker", "command": ["true"], "workers": 1, "suspend": True}
    body = {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "hers"}, "spec": spec}
    editor("create", "-f", "-", stdin=json.dumps(body))
    for person in (editor, viewer):
        person("get", "trainingjob", "hers")
        person("get", "trainingjobs")
        person("get", "--raw", f"{jobs}?watch=true&timeoutSeconds=1")
        person("get", "--raw", f"{jobs}/hers/scale")
    viewer("get", "--raw", f"{jobs}/hers/status")
    editor("replace", "-f", "-", stdin=editor("get", "trainingjob", "hers", "-o", "json"))
    editor("label", "trainingjob", "hers", "a=b")
    editor("scale", "trainingjob", "hers", "--replicas=2")
    editor("replace", "--raw", f"{jobs}/hers/scale", "-f", "-", stdin=editor("get", "--raw", f"{jobs}/hers/scale"))
    editor("delete", "trainingjob", "hers")
    return grants


def _person(name: str, namespace: str, folder: Path) -> Callable[..., str]:
    """kubectl with that service account's token, and no certificate."""
    config = json.loads(kubeconfig().read_text())
    token = kubectl("create", "token", name, "-n", namespace).strip()
    config["users"] = [{"name": name, "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": name, "namespace": namespace}
    path = folder / f"{name}.kubeconfig"
    path.write_text(json.dumps(config))

    def asks(*words: str, stdin: str | None = None) -> str:
        return run(
            [str(binary("kubectl")), *words], stdin=stdin, env=environment() | {"KUBECONFIG": str(path)}, timeout=60
        )

    return asks


def _patched(job: Job, spec: Json) -> None:
    kubectl("patch", "trainingjob", job.name, "-n", job.namespace, "--type=merge", "-p", json.dumps({"spec": spec}))


def _children(job: Job, kind: str) -> list[str]:
    return _names(job.namespace, kind, "--selector", f"drivetrain.dev/job-uid={job.uid}")


def _names(namespace: str, *words: str) -> list[str]:
    return [each["metadata"]["name"] for each in get(*words, "--namespace", namespace)["items"]]
