"""Whatever bytes come in, an answer goes out: no traceback, no growth, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from drivetrain_api.crd import custom_resource_definition
from drivetrain_local.apiserver import ApiServer
from drivetrain_local.apiserver.request import MAX_BODY
from drivetrain_local.node.kubelet import KubeletServer
from drivetrain_local.ports import LIMITS
from drivetrain_serving import listener
from drivetrain_serving.connections import GRACE_SECONDS
from harness.meanwhile import Meanwhile, judge, resident
from harness.streams import Port, answered, attack

_PODS = "/api/v1/namespaces/default/pods"
_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    monkeypatch.setattr(listener, "KEEPALIVE_SECONDS", 2.0)
    monkeypatch.setattr("drivetrain_local.apiserver.request.BODY_SECONDS", 2.0)
    async with ApiServer(crds=[custom_resource_definition()]) as server:
        yield server


def _meanwhile(api: ApiServer, http: aiohttp.ClientSession) -> Meanwhile:
    async def ask() -> None:
        async with http.get(_MAPS) as answer:
            assert answer.status == 200, await answer.text()

    return Meanwhile(ask)


@pytest.mark.parametrize("seed", [1, 2])
async def test_two_hundred_streams(api: ApiServer, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    kubelet = KubeletServer("127.0.0.1", api.token, lambda uid, container, previous: None, lambda verb: None)
    await kubelet.start()
    port = int(api.address.rpartition(":")[2])
    ports = [
        Port(port, _MAPS, "POST", token=api.token),
        Port(port, f"{_PODS}/a/status", "PATCH", token=api.token),
        Port(port, "/version"),
        Port(kubelet.port, "/containerLogs/a/b/c?tailLines=x", token=api.token),
    ]
    try:
        async with api.session() as http:
            watch, before = _meanwhile(api, http), resident()
            got = await watch.during(attack(ports, 200, seed, seconds=15))
            judge("plane", got, watch, before, caplog)
    finally:
        await kubelet.stop()


async def test_a_crowd_that_says_nothing_keeps_nobody_out(api: ApiServer) -> None:
    port = int(api.address.rpartition(":")[2])
    crowd = []
    try:
        for _ in range(LIMITS.pending + 100):
            crowd.append(await asyncio.open_connection("127.0.0.1", port))
            crowd[-1][1].write(b"GET /api HTTP/1.1\r\nHost: ")
        await asyncio.sleep(GRACE_SECONDS + 0.1)  # so long a stranger may take before it gives way
        async with api.session() as http, http.get(_MAPS) as answer:
            assert answer.status == 200
    finally:
        for _, writer in crowd:
            writer.transport.abort()


async def _raw(api: ApiServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.address.rpartition(":")[2]))
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 15)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + "ü".encode() + b"\r\n\r\n",
        b"GET /%ff%fe/api HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%F0%9F%98%80/api HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /version HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"OPTIONS /api HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        b"GET /healthz/../api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz/log HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)  # fmt: skip
async def test_strangers_get_a_401_and_no_connection(
    api: ApiServer, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer, _, body = (await _raw(api, head)).partition(b"\r\n\r\n")
    assert answered(answer) == [401]
    assert json.loads(body) == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
        "reason": "Unauthorized", "code": 401,
    }  # fmt: skip
    assert b"Access-Control" not in answer
    assert caplog.records == []


async def test_a_page_in_a_browser_learns_nothing(api: ApiServer) -> None:
    """Neither by a simple request, nor by one under a name of its own that resolves to here."""
    for path in ("/version", "/healthz"):
        request = f"GET {path} HTTP/1.1\r\nHost: rebound.evil\r\nOrigin: http://rebound.evil\r\n\r\n"
        answer = await _raw(api, request.encode())
        assert answered(answer) == [200]
        assert b"Access-Control" not in answer
        assert api.token.encode() not in answer
    simple = b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    assert answered(await _raw(api, simple + b"Content-Length: 2\r\n\r\n{}")) == [401]
    assert api.store.all("configmaps") == []


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_no_other_machine_reaches_it(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        ApiServer(host=host)
    with pytest.raises(ValueError, match="loopback"):
        KubeletServer(host, "t", lambda uid, container, previous: None, lambda verb: None)


@pytest.mark.parametrize(
    ("name", "body", "headers", "codes"),
    [
        ("too much", b"[" + b"1," * MAX_BODY + b"1]", {}, {413}),
        ("a bomb", gzip.compress(b"0" * (50 << 20)), {"Content-Encoding": "gzip"}, {400, 413, 415}),
        ("deep", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {}, {400}),
        ("deeper", b"[" * 500_000, {}, {400}),
        ("no number", b'{"metadata":{"name":"a"},"x":NaN}', {}, {400}),
        ("a number without end", b'{"x":' + b"9" * 100_000 + b"}", {}, {400}),
        ("no text", b'\xff\xfe{"a":1}', {}, {400}),
        ("half a text", b'{"metadata":{"name":"a"},"data":{"k":"\\ud800"}}', {}, {201, 400, 422}),
        ("aliases", b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", {"Content-Type": "application/yaml"}, {400}),
        ("YAML without end", b"- x\n" * 200_000, {"Content-Type": "application/yaml"}, {400}),
        ("a tag", b"!!python/object/apply:os.system [true]", {"Content-Type": "application/yaml"}, {400}),
        ("bytes for another", b"k8s\x00\x0a", {"Content-Type": "application/vnd.kubernetes.protobuf"}, {415}),
    ],
)  # fmt: skip
async def test_bodies(
    api: ApiServer, name: str, body: bytes, headers: dict[str, str], codes: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    before = resident()
    async with api.session() as http:
        try:
            async with http.post(
                _MAPS, data=io.BytesIO(body), headers={"Content-Type": "application/json", **headers}
            ) as answer:
                assert answer.status in codes, await answer.text()
                assert answer.status < 300 or (await answer.json())["kind"] == "Status"
        except aiohttp.ClientConnectionError:
            assert codes == {413}  # the answer came before the body was sent, and the rest was refused
        async with http.get(_MAPS) as answer:
            assert answer.status == 200
    assert resident() - before < 64 << 20
    assert caplog.records == []


async def test_a_body_that_never_ends_is_given_up(api: ApiServer) -> None:
    head = f"POST {_MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\nContent-Length: 50\r\n\r\n{{"
    assert answered(await _raw(api, head.encode())) == [408]
