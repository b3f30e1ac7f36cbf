"""What the API server's audit log says of a request."""

from __future__ import annotations

import json

from cluster.audit import Request, read

USER = "system:serviceaccount:sys:mine"


def line(**fields: object) -> str:
    return json.dumps({"verb": "get", "user": {"username": USER}, **fields}) + "\n"


def test_a_request_of_each_kind() -> None:
    forbidden = {"annotations": {"authorization.k8s.io/decision": "forbid"}}
    allowed = {"annotations": {"authorization.k8s.io/decision": "allow"}}
    job = {"apiGroup": "drivetrain.dev", "resource": "trainingjobs", "namespace": "a", "name": "j"}
    table = [
        (line(requestURI="/version", responseStatus={"code": 200}), Request(USER, "get", "", "")),
        (
            line(verb="list", objectRef={"resource": "pods"}, responseStatus={"code": 200}),
            Request(USER, "list", "", "pods"),
        ),
        (
            line(verb="patch", objectRef={**job, "subresource": "status"}, responseStatus={"code": 409}, **allowed),
            Request(USER, "patch", "drivetrain.dev", "trainingjobs/status", "a", "j", 409),
        ),
        (
            line(objectRef=job, responseStatus={"code": 403, "message": "no"}, **forbidden),
            Request(USER, "get", "drivetrain.dev", "trainingjobs", "a", "j", 403, True, "no"),
        ),
        (
            line(
                verb="create", objectRef={"resource": "pods", "namespace": "a"}, responseStatus={"code": 403}, **allowed
            ),
            Request(USER, "create", "", "pods", "a", code=403),
        ),
    ]
    assert list(read("".join(text for text, _ in table))) == [wanted for _, wanted in table]


def test_a_line_that_is_still_being_written_is_left_out() -> None:
    whole = line(objectRef={"resource": "pods"}, responseStatus={"code": 200})
    assert len(list(read(whole + whole[:40]))) == 1
