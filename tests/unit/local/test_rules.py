"""Does the plane refuse what a cluster refuses? Every rule and every bound of a TrainingJob, by every kind of write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from drivetrain_api.constants import API_VERSION, GROUP, KIND, PLURAL
from drivetrain_api.crd import custom_resource_definition
from drivetrain_api.rule import Rule
from drivetrain_api.rules import RULES
from drivetrain_local.apiserver import ApiServer
from unit.api.bounds import BOUNDS, MUTABLE, with_value
from unit.api.cases import RULE_CASES, STARTED, RuleCase, job

Obj = dict[str, Any]
_JOBS = f"/apis/{API_VERSION}/namespaces/default/{PLURAL}"
_CRD = custom_resource_definition()  # made once: it takes as long as a server's start
_RULES = {rule.name: rule for rule in RULES}
_MERGE, _JSON = "application/merge-patch+json", "application/json-patch+json"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with ApiServer(crds=[_CRD]) as api, api.session() as session:
        yield session


async def _send(http: aiohttp.ClientSession, method: str, path: str, body: Any, kind: str = "") -> tuple[int, Obj]:
    headers = {"Content-Type": kind or "application/json"}
    async with http.request(method, _JOBS + path, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def _stored(http: aiohttp.ClientSession, given: Obj) -> Obj:
    """A job that is there, with the status that it is given."""
    code, made = await _send(http, "POST", "", {k: v for k, v in given.items() if k != "status"})
    assert code == 201, made
    if "status" in given:
        for condition in given["status"].get("conditions", ()):
            # The twins do not need them, a status must have them.
            condition |= {"reason": "Suspended", "message": "", "lastTransitionTime": "2026-11-21T12:00:00Z"}
        code, made = await _send(http, "PUT", f"/{made['metadata']['name']}/status", made | {"status": given["status"]})
        assert code == 200, made
    return made


async def _update(http: aiohttp.ClientSession, by: str, stored: Obj, spec: Obj) -> tuple[int, Obj]:
    """Give a stored job another spec."""
    path = f"/{stored['metadata']['name']}"
    match by:
        case "put":
            return await _send(http, "PUT", path, stored | {"spec": spec})
        case "merge patch":
            return await _send(http, "PATCH", path, {"spec": _difference(stored["spec"], spec)}, _MERGE)
        case _:
            return await _send(http, "PATCH", path, [{"op": "replace", "path": "/spec", "value": spec}], _JSON)


def _difference(old: Any, new: Any) -> Any:
    """The merge patch that makes `new` of `old`."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {key: None for key in old if key not in new} | {k: _difference(old.get(k), v) for k, v in new.items()}


def _decided_by(rule: Rule, code: int, answer: Obj) -> bool:
    """Whether the rule accepted the write; a refusal must be a real server's, to the letter."""
    cause = {
        "reason": "FieldValueInvalid",
        "message": f"Invalid value: {rule.message}",
        "field": rule.path or "<nil>",
    }
    if code in (200, 201):
        return True
    assert (code, answer["reason"], answer["code"], answer["status"]) == (422, "Invalid", 422, "Failure"), answer
    assert (answer["details"]["group"], answer["details"]["kind"]) == (GROUP, KIND)
    assert answer["message"].startswith(f'{KIND}.{GROUP} "{answer["details"]["name"]}" is invalid: ')
    assert f"{cause['field']}: {cause['message']}" in answer["message"]
    assert cause in answer["details"]["causes"], answer
    return False


@pytest.mark.parametrize("case", [c for c in RULE_CASES if c.old is None], ids=lambda c: f"{c.rule}: {c.name}")
async def test_a_job_is_created_by_the_rules(http: aiohttp.ClientSession, case: RuleCase) -> None:
    code, answer = await _send(http, "POST", "", case.job)
    assert _decided_by(_RULES[case.rule], code, answer) is case.accepted


@pytest.mark.parametrize("by", ["put", "merge patch", "JSON patch"])
@pytest.mark.parametrize("case", [c for c in RULE_CASES if c.rule != "name"], ids=lambda c: f"{c.rule}: {c.name}")
async def test_a_job_is_changed_by_the_rules(http: aiohttp.ClientSession, case: RuleCase, by: str) -> None:
    stored = await _stored(http, case.old or job())
    code, answer = await _update(http, by, stored, case.job["spec"])
    assert _decided_by(_RULES[case.rule], code, answer) is case.accepted
    _, after = await _send(http, "GET", f"/{stored['metadata']['name']}", None)
    assert (after["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]) or case.accepted


@pytest.mark.parametrize(("field", "before", "after"), MUTABLE, ids=lambda v: v if isinstance(v, str) else "")
async def test_a_started_job_may_change(http: aiohttp.ClientSession, field: str, before: Obj, after: Obj) -> None:
    stored = await _stored(http, job("lm", STARTED, **before))
    code, answer = await _update(http, "put", stored, job(**after)["spec"])
    assert code == 200, answer


@pytest.mark.parametrize("path", BOUNDS)
async def test_a_field_has_its_bounds(http: aiohttp.ClientSession, path: str) -> None:
    good, bad = BOUNDS[path]
    for value in good:
        code, answer = await _send(http, "POST", "", with_value(path, value))
        assert code == 201, answer
        await _send(http, "DELETE", f"/{answer['metadata']['name']}", None)
    for value in bad:
        code, answer = await _send(http, "POST", "", with_value(path, value))
        assert (code, answer["reason"]) == (422, "Invalid"), value
        fields = {cause["field"].partition("[")[0] for cause in answer["details"]["causes"]}
        assert f"spec.{path.partition('[]')[0]}" in fields, answer


async def test_rules_wait_until_the_bounds_are_kept(http: aiohttp.ClientSession) -> None:
    """An expression is not to be asked about an object of the wrong shape."""
    code, answer = await _send(http, "POST", "", job(elastic={"minWorkers": "3", "maxWorkers": 2}))
    assert code == 422
    assert {cause["field"] for cause in answer["details"]["causes"]} == {"spec.elastic.minWorkers", "<nil>"}
    assert "some validation rules were not checked" in answer["message"]


@pytest.mark.parametrize(("replicas", "field"), [(1, "spec"), (4097, "spec.workers")])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_scaling_keeps_the_rules(http: aiohttp.ClientSession, method: str, replicas: int, field: str) -> None:
    await _stored(http, job(workers=4, training={"parallel": {"tensor": 4}}))
    scale = {"spec": {"replicas": replicas}}
    code, answer = await _send(http, method, "/lm/scale", scale, _MERGE if method == "PATCH" else "")
    assert (code, answer["reason"]) == (422, "Invalid")
    assert field in {cause["field"] for cause in answer["details"]["causes"]}
    assert (await _send(http, "GET", "/lm", None))[1]["spec"]["workers"] == 4


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"phase": "Sleeping"}, "status.phase"),
        ({"restarts": -1}, "status.restarts"),
        ({"restarts": "1"}, "status.restarts"),
        ({"startTime": "yesterday"}, "status.startTime"),
    ],
)
async def test_a_status_has_its_bounds_too(http: aiohttp.ClientSession, status: Obj, field: str) -> None:
    await _stored(http, job())
    code, answer = await _send(http, "PATCH", "/lm/status", {"status": status}, _MERGE)
    assert (code, answer["reason"]) == (422, "Invalid")
    assert field in {cause["field"] for cause in answer["details"]["causes"]}


async def test_apply_finds_no_way_around_the_rules(http: aiohttp.ClientSession) -> None:
    """Server-side apply is not there at all, and says so."""
    await _stored(http, job("lm", STARTED))
    for name in ("lm", "other"):
        code, answer = await _send(http, "PATCH", f"/{name}", job(image="b"), "application/apply-patch+yaml")
        assert (code, "`make cluster`" in answer["message"]) == (501, True)
    assert (await _send(http, "GET", "/lm", None))[1]["spec"]["image"] == "train"
