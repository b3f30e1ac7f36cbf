"""The API client: what is asked, what is repeated, what is raised. Against real servers on loopback."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from drivetrain_local.apiserver import ApiServer, Fault
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube import errors
from drivetrain_operator.kube.auth import Access, FixedCredentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.resources import CONFIGMAPS, LEASES, NODES, PODS, TRAININGJOBS, Resource
from drivetrain_operator.kube.transport import Timeouts
from harness.activity import Stillness
from unit.operator.wire_server import (
    Answer,
    WireServer,
    hang_up,
    ok,
    pod,
    pod_list,
    serving,
    silent,
    status,
    stream,
    text,
    until,
)

QUICK = Backoff(base=0.001, cap=0.01)
SHORT = Timeouts(connect=1.0, attempt=0.2, list_page=0.2, total=2.0)


def client_of(url: str, token: str = "t", **options: Any) -> KubeClient:
    given: dict[str, Any] = {"backoff": QUICK, "timeouts": SHORT} | options
    return KubeClient(FixedCredentials(url, token=token), SystemClock(), random.Random(1), **given)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def client(api: ApiServer) -> AsyncIterator[KubeClient]:
    async with client_of(api.address, api.token, timeouts=Timeouts()) as client:
        yield client


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "x"}}, "data": data}


PATHS: list[tuple[Resource, tuple[str | None, ...], str]] = [
    (PODS, ("default", "a", None), "/api/v1/namespaces/default/pods/a"),
    (PODS, (None, None, None), "/api/v1/pods"),
    (NODES, (None, "n", None), "/api/v1/nodes/n"),
    (LEASES, ("x", "l", None), "/apis/coordination.k8s.io/v1/namespaces/x/leases/l"),
    (TRAININGJOBS, ("x", "j", "status"), "/apis/drivetrain.dev/v1alpha1/namespaces/x/trainingjobs/j/status"),
    (PODS, ("a/b", "../c", None), "/api/v1/namespaces/a%2Fb/pods/..%2Fc"),
]


@pytest.mark.parametrize(("resource", "where", "path"), PATHS)
def test_paths(resource: Resource, where: tuple[str | None, ...], path: str) -> None:
    assert resource.path(*where) == path


@pytest.mark.parametrize(("resource", "where"), [(NODES, ("ns", "n")), (PODS, (None, "p"))])
def test_a_path_that_cannot_be_is_refused(resource: Resource, where: tuple[str | None, str]) -> None:
    with pytest.raises(ValueError, match="namespace"):
        resource.path(*where)


async def test_create_get_patch_replace_delete(client: KubeClient) -> None:
    made = await client.create(CONFIGMAPS, config("c", a="1"), "default")
    assert made["metadata"]["uid"]
    patched = await client.merge_patch(CONFIGMAPS, "c", {"data": {"b": "2", "a": None}}, "default")
    assert patched["data"] == {"b": "2"}
    replaced = await client.replace(CONFIGMAPS, {**patched, "data": {"z": "9"}}, "default")
    assert (await client.get(CONFIGMAPS, "c", "default"))["data"] == replaced["data"] == {"z": "9"}
    assert await client.delete(CONFIGMAPS, "c", "default", uid=made["metadata"]["uid"])
    assert not await client.delete(CONFIGMAPS, "c", "default")
    with pytest.raises(errors.NotFound):
        await client.get(CONFIGMAPS, "c", "default")


async def test_a_dry_run_stores_nothing(client: KubeClient) -> None:
    await client.create(CONFIGMAPS, config("c"), "default", dry_run=True)
    with pytest.raises(errors.NotFound):
        await client.get(CONFIGMAPS, "c", "default")


async def test_preconditions_hold_or_conflict(client: KubeClient) -> None:
    first = await client.create(CONFIGMAPS, config("c"), "default")
    version = first["metadata"]["resourceVersion"]
    await client.merge_patch(CONFIGMAPS, "c", {"data": {"a": "1"}}, "default", resource_version=version)
    with pytest.raises(errors.Conflict):
        await client.merge_patch(CONFIGMAPS, "c", {"data": {"a": "2"}}, "default", resource_version=version)
    with pytest.raises(errors.Conflict):
        await client.merge_patch(CONFIGMAPS, "c", {"data": {"a": "3"}}, "default", uid="another")
    with pytest.raises(errors.Conflict):
        await client.delete(CONFIGMAPS, "c", "default", uid="another")
    with pytest.raises(errors.AlreadyExists):
        await client.create(CONFIGMAPS, config("c"), "default")
    assert (await client.get(CONFIGMAPS, "c", "default"))["data"] == {"a": "1"}


async def test_the_preconditions_of_a_patch_do_not_change_the_callers_dict(client: KubeClient) -> None:
    made = await client.create(CONFIGMAPS, config("c"), "default")
    patch: dict[str, Any] = {"metadata": {"labels": {"x": "y"}}}
    await client.merge_patch(CONFIGMAPS, "c", patch, "default", uid=made["metadata"]["uid"])
    assert patch == {"metadata": {"labels": {"x": "y"}}}


async def test_a_list_is_complete_whatever_the_page_size(client: KubeClient) -> None:
    names = {f"c-{n:02}" for n in range(25)}
    for name in names:
        await client.create(CONFIGMAPS, config(name), "default")
    for limit in (1, 7, 25, 500):
        page = await client.list(CONFIGMAPS, "default", label_selector="app=x", limit=limit)
        assert {item["metadata"]["name"] for item in page.items} == names
        assert {(item["kind"], item["apiVersion"]) for item in page.items} == {("ConfigMap", "v1")}
        assert page.resource_version.isdecimal()
    assert not (await client.list(CONFIGMAPS, "default", label_selector="app=y")).items


async def test_a_list_that_expires_between_its_pages_starts_again() -> None:
    first, last = pod_list(1, pod("a", 1), more="token"), pod_list(9, pod("b", 9))
    async with (
        serving(ok(first), status(410, "Expired"), ok(first), ok(pod_list(9, pod("b", 2)))) as server,
        client_of(server.url) as client,
    ):
        page = await client.list(PODS)
    assert [item["metadata"]["name"] for item in page.items] == ["a", "b"]
    assert page.resource_version == last["metadata"]["resourceVersion"]


ERRORS: dict[str, tuple[Answer, type[errors.KubeError], str]] = {
    "400": (status(400, "BadRequest"), errors.BadRequest, "no"),
    "401": (status(401, "Unauthorized"), errors.Unauthorized, "no"),
    "403": (status(403, "Forbidden", "pods is forbidden"), errors.Forbidden, "pods is forbidden"),
    "quota": (
        status(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        errors.QuotaExceeded,
        "limited: pods=2",
    ),
    "404": (status(404, "NotFound"), errors.NotFound, "no"),
    "409": (status(409, "Conflict"), errors.Conflict, "no"),
    "409 exists": (status(409, "AlreadyExists"), errors.AlreadyExists, "no"),
    "410": (status(410, "Expired"), errors.Gone, "no"),
    "422": (status(422, "Invalid"), errors.Invalid, "no"),
    "429": (status(429, "TooManyRequests"), errors.TooManyRequests, "no"),
    "500": (status(500, "InternalError"), errors.ServerError, "no"),
    "418": (text(418, "teapot"), errors.ApiError, "teapot"),
    "a proxy speaks": (text(503, "<html>down</html>"), errors.ServerError, "<html>down</html>"),
    "a redirect": (status(302, Location="https://elsewhere"), errors.ApiError, ""),
    "not JSON": (text(200, "<html>hello</html>"), errors.Unreachable, "is 127.0.0.1 an API server"),
    "hangs up": (hang_up, errors.Unreachable, "get /api/v1/namespaces/default/pods/a"),
    "silent": (silent, errors.Unreachable, "no answer within"),
}


@pytest.mark.parametrize(("answer", "kind", "words"), ERRORS.values(), ids=ERRORS.keys())
async def test_errors(answer: Answer, kind: type[errors.KubeError], words: str) -> None:
    async with serving(answer) as server, client_of(server.url, attempts=2) as client:
        with pytest.raises(errors.KubeError) as raised:
            await client.get(PODS, "a", "default")
    assert type(raised.value) is kind
    assert words in str(raised.value)


async def test_the_fields_of_an_invalid_object_are_named(client: KubeClient) -> None:
    error = errors.error_from_status(
        422,
        {
            "reason": "Invalid",
            "message": "Pod is invalid",
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": "bad", "field": "spec.containers[0]"}]},
        },
    )
    assert error.causes == (errors.Cause("FieldValueInvalid", "bad", "spec.containers[0]"),)


def test_a_namespace_that_is_being_deleted_is_told_apart() -> None:
    body = {"reason": "Forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    assert type(errors.error_from_status(403, body)) is errors.NamespaceTerminating


async def test_a_closed_port_is_unreachable() -> None:
    async with serving(ok({})) as server:
        url = server.url
    async with client_of(url, attempts=2) as client:
        with pytest.raises(errors.Unreachable, match="/version"):
            await client.version()


async def call(client: KubeClient, verb: str) -> Any:
    match verb:
        case "get":
            return await client.get(CONFIGMAPS, "c", "default")
        case "list":
            return await client.list(CONFIGMAPS, "default")
        case "patch":
            return await client.merge_patch(CONFIGMAPS, "c", {"data": {"a": "1"}}, "default")
        case "delete":
            return await client.delete(CONFIGMAPS, "c", "default")
        case _:
            return await client.create(CONFIGMAPS, config("c"), "default")


def requests(server: WireServer) -> int:
    return len(server.seen)


@pytest.mark.parametrize("verb", ["get", "list", "patch", "delete"])
@pytest.mark.parametrize(
    "fault", [status(500), status(503), status(429), hang_up, silent], ids=["500", "503", "429", "hang up", "silent"]
)
async def test_what_can_be_repeated_is_repeated(verb: str, fault: Answer) -> None:
    async with serving(fault, fault, ok(pod_list(1))) as server, client_of(server.url) as client:
        await call(client, verb)
    assert requests(server) == 3


@pytest.mark.parametrize("fault", [status(500), status(503), hang_up, silent], ids=["500", "503", "hang up", "silent"])
async def test_a_create_is_not_repeated_after_a_lost_answer(fault: Answer) -> None:
    async with serving(fault, ok({})) as server, client_of(server.url) as client:
        with pytest.raises((errors.Unreachable, errors.ServerError)):
            await call(client, "create")
    assert requests(server) == 1


async def test_a_create_that_was_refused_unprocessed_is_repeated() -> None:
    async with serving(status(429), ok({})) as server, client_of(server.url) as client:
        await call(client, "create")
    assert requests(server) == 2


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 422])
async def test_a_decision_of_the_server_is_not_asked_for_again(code: int) -> None:
    async with serving(status(code), ok({})) as server, client_of(server.url) as client:
        with pytest.raises(errors.ApiError):
            await call(client, "get")
    assert requests(server) == 1


async def test_tries_are_bounded_in_number() -> None:
    async with serving(status(503)) as server, client_of(server.url, attempts=4) as client:
        with pytest.raises(errors.ServerError):
            await call(client, "get")
    assert requests(server) == 4


async def test_a_call_is_bounded_in_time_with_all_its_tries() -> None:
    async with serving(silent) as server, client_of(server.url, attempts=100) as client:
        still = Stillness()
        with pytest.raises(errors.Unreachable):
            await client.get(PODS, "a", "default", timeout=0.5)
    assert still.seconds() < 1.5
    assert 1 <= requests(server) <= 4


async def test_retry_after_is_honoured_when_there_is_time_and_handed_on_when_not() -> None:
    async with serving(status(429, Retry_After="1"), ok({})) as server, client_of(server.url) as client:
        started = time.monotonic()
        await call(client, "get")
        assert time.monotonic() - started >= 1.0
    async with serving(status(429, Retry_After="60"), ok({})) as server, client_of(server.url) as client:
        with pytest.raises(errors.TooManyRequests) as raised:
            await call(client, "get")
        assert raised.value.retry_after == 60.0
        assert requests(server) == 1


class Rotating:
    """Credentials whose token is replaced at each refresh."""

    def __init__(self, url: str) -> None:
        self.url, self.generation = url, 0

    async def access(self) -> Access:
        return Access(self.url, f"Bearer token-{self.generation}")

    async def refresh(self, stale: Access) -> Access:
        self.generation += 1
        return await self.access()


async def test_a_401_reads_the_credentials_again_once_also_for_a_create() -> None:
    async with serving(status(401), ok({})) as server, KubeClient(Rotating(server.url), backoff=QUICK) as client:
        await call(client, "create")
    assert [h["Authorization"] for h in server.headers] == ["Bearer token-0", "Bearer token-1"]


async def test_what_was_lost_after_it_took_effect_is_seen_on_looking(api: ApiServer, client: KubeClient) -> None:
    api.faults.add(Fault(verb="create", resource="configmaps", when="after", drop=True))
    with pytest.raises(errors.Unreachable):
        await client.create(CONFIGMAPS, config("c"), "default")
    assert await client.get(CONFIGMAPS, "c", "default")
    api.faults.add(Fault(verb="delete", resource="configmaps", when="after", drop=True))
    assert await client.delete(CONFIGMAPS, "c", "default") is False, "repeated: already gone"


async def test_every_exchange_is_observed() -> None:
    seen: list[tuple[str, ...]] = []

    class Observer:
        def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
            assert 0 <= seconds < 5
            seen.append((verb, resource, code))

        def retry(self, verb: str, resource: str, code: str) -> None:
            seen.append(("retry", verb, resource, code))

    async with serving(status(503), hang_up, ok({})) as server, client_of(server.url, observer=Observer()) as client:
        await client.merge_patch(PODS, "a", {}, "default", subresource="status")
    assert seen == [
        ("patch", "pods/status", "503"),
        ("retry", "patch", "pods/status", "503"),
        ("patch", "pods/status", "unreachable"),
        ("retry", "patch", "pods/status", "unreachable"),
        ("patch", "pods/status", "200"),
    ]


async def test_a_watch_that_does_not_even_begin_is_bounded() -> None:
    async with serving(silent) as server, client_of(server.url) as client:
        with pytest.raises(errors.Unreachable, match="watch"):
            async with client.watch(PODS, resource_version="1"):
                pass


async def test_the_readers_own_errors_are_not_taken_for_the_servers() -> None:
    async with serving(stream(then="silence")) as server, client_of(server.url) as client:
        with pytest.raises(ValueError, match="mine"):
            async with client.watch(PODS, resource_version="1"):
                raise ValueError("mine")


async def test_a_cancelled_call_leaves_no_task_behind() -> None:
    async with serving(silent) as server, client_of(server.url, timeouts=Timeouts()) as client:
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(client.get(PODS, "a", "default"))
        await until(lambda: server.seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.close()
        leftover = [t for t in asyncio.all_tasks() - before if "handle" not in repr(t.get_coro())]
        assert len(leftover) <= 1, "the server's own connection task"
