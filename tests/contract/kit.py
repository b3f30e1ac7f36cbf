"""What a contract test holds in its hand: one server, one fresh namespace, and requests in plain aiohttp.

The same tests run against the embedded plane and, where DRIVETRAIN_CONTRACT_KUBECONFIG names one, a real cluster.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import yaml

from drivetrain_local.cluster import LocalCluster
from harness.patience import patiently

Obj = dict[str, Any]

GROUP = "contract.drivetrain.dev"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.02

_WIDGET_SPEC: Obj = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "minLength": 1, "maxLength": 20},
        "workers": {"type": "integer", "minimum": 1, "maximum": 64, "default": 1},
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$"}},
        "port": {"x-kubernetes-int-or-string": True},
        "nested": {
            "type": "object",
            "default": {},
            "properties": {"spares": {"type": "integer", "default": 1}, "note": {"type": "string"}},
        },
        "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
        "low": {"type": "integer"},
        "high": {"type": "integer"},
        "fixed": {
            "type": "string",
            "maxLength": 20,
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is fixed"}],
        },
    },
    "x-kubernetes-validations": [
        {"rule": "!has(self.low) || !has(self.high) || self.low <= self.high", "message": "low must not exceed high"},
        {"rule": "self.workers < 60 || (has(self.mode) && self.mode == 'slow')", "message": "so many must be slow"},
    ],
}
_WIDGET_RULES: list[Obj] = [
    {"rule": "!self.metadata.name.matches('^never')", "message": "no such name"},
    {
        "rule": "!(has(oldSelf.status) && has(oldSelf.status.started)) || self.spec.image == oldSelf.spec.image",
        "message": "a started widget keeps its image",
    },
]
WIDGET_CRD: Obj = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                  "shortNames": ["wd"]},
        "versions": [{
            "name": "v1", "served": True, "storage": True,
            "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.workers", "statusReplicasPath": ".status.ready",
                "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [
                {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                {"name": "Workers", "type": "integer", "jsonPath": ".spec.workers"},
                {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "priority": 1},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            "schema": {"openAPIV3Schema": {
                "type": "object", "required": ["spec"], "x-kubernetes-validations": _WIDGET_RULES, "properties": {
                    "spec": _WIDGET_SPEC,
                    "status": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": True,
                        "properties": {
                            "ready": {"type": "integer"}, "level": {"type": "integer"}, "started": {"type": "boolean"}},
                        "x-kubernetes-validations": [
                            {"rule": "!has(self.level) || self.level >= 0", "message": "level must not be negative"}],
                    }}}},
        }],
    },
}  # fmt: skip
"""A resource with everything that TrainingJob uses of the API machinery, and nothing that TrainingJob means."""


@dataclass
class Server:
    """One API server and a namespace that only this test uses."""

    http: aiohttp.ClientSession
    address: str
    kubeconfig: Path
    namespace: str
    image: str
    embedded: LocalCluster | None = None

    async def call(
        self, method: str, path: str, body: Any = None, *, status: int | tuple[int, ...] = (200, 201, 202),
        content_type: str = "application/json", accept: str = "application/json", query: dict[str, str] | None = None,
    ) -> Obj:  # fmt: skip
        """A request whose status code must be the given one. Returns the body."""
        wanted = (status,) if isinstance(status, int) else status
        headers = {"Content-Type": content_type, "Accept": accept}
        data = None if body is None else json.dumps(body)
        async with self.http.request(method, self.address + path, data=data, headers=headers, params=query) as answer:
            content = await _content_of(answer)
            assert answer.status in wanted, f"{method} {path}: {answer.status}, want {wanted}: {content}"
            return content

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        """The path of a resource in this test's namespace."""
        base = {
            "widgets": f"/apis/{GROUP}/v1",
            "leases": "/apis/coordination.k8s.io/v1",
            "endpointslices": "/apis/discovery.k8s.io/v1",
            "poddisruptionbudgets": "/apis/policy/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
        }.get(plural, "/api/v1")
        return "/".join(filter(None, [f"{base}/namespaces/{self.namespace}/{plural}", name, sub]))

    async def create(self, plural: str, obj: Obj, **options: Any) -> Obj:
        return await self.call("POST", self.path(plural), obj, **options)

    async def get(self, plural: str, name: str = "", **options: Any) -> Obj:
        return await self.call("GET", self.path(plural, name), **options)

    async def patch(self, plural: str, name: str, body: Any, sub: str = "", **options: Any) -> Obj:
        options.setdefault("content_type", MERGE)
        return await self.call("PATCH", self.path(plural, name, sub), body, **options)

    async def put(self, plural: str, name: str, body: Any, sub: str = "", **options: Any) -> Obj:
        return await self.call("PUT", self.path(plural, name, sub), body, **options)

    async def delete(self, plural: str, name: str, body: Any = None, **options: Any) -> Obj:
        return await self.call("DELETE", self.path(plural, name), body, **options)

    async def names(self, plural: str, **query: str) -> list[str]:
        listed = await self.get(plural, query=query)
        return sorted(item["metadata"]["name"] for item in listed["items"])

    async def until(self, plural: str, name: str, reached: Callable[[Obj], bool]) -> Obj:
        """The object, once it is as wanted."""
        last: Obj = {}
        try:
            async with patiently(_WAIT_SECONDS):
                while True:
                    last = await self.get(plural, name, status=(200, 404))
                    if last["kind"] != "Status" and reached(last):
                        return last
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{plural}/{name} did not get there; it is {json.dumps(last)}") from None

    async def until_gone(self, plural: str, name: str) -> None:
        async with patiently(_WAIT_SECONDS):
            while True:
                if (await self.get(plural, name, status=(200, 404)))["kind"] == "Status":
                    return
                await asyncio.sleep(_POLL_SECONDS)

    async def watch(self, plural: str, **query: str) -> AsyncIterator[Obj]:
        """The events of a watch until the server ends it."""
        params = {"watch": "true", "timeoutSeconds": "20", **query}
        async with self.http.get(self.address + self.path(plural), params=params) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                yield json.loads(line)

    async def events(self, plural: str, count: int, **query: str) -> list[Obj]:
        """The first events of a watch."""
        found: list[Obj] = []
        stream = self.watch(plural, **query)
        async with patiently(_WAIT_SECONDS):
            async for event in stream:
                found.append(event)
                if len(found) == count:
                    break
        await stream.aclose()  # type: ignore[attr-defined]
        return found


async def _content_of(answer: aiohttp.ClientResponse) -> Obj:
    """The JSON body; what is not served at all is answered in plain text by a real server."""
    if answer.content_type == "application/json":
        content: Obj = await answer.json()
        return content
    return {"kind": "Status", "status": "Failure", "code": answer.status, "message": await answer.text()}


def widget(name: str, **spec: Any) -> Obj:
    """A valid Widget; keyword arguments go into its spec."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"image": "img", **spec},
    }


def config_map(name: str, labels: Mapping[str, str] | None = None, /, **data: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "data": data,
    }


def owned_by(owner: Obj, child: Obj, **more: Any) -> Obj:
    """`child` with a controller reference to `owner`."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        **more,
    }
    child["metadata"]["ownerReferences"] = [reference]
    return child


def pod(name: str, image: str, *command: str, **spec: Any) -> Obj:
    """A pod that runs once; keyword arguments go into its spec."""
    container: Obj = {"name": "worker", "image": image, "imagePullPolicy": "IfNotPresent"}
    if command:
        container["command"] = list(command)
    container |= spec.pop("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container], **spec},
    }


def causes(status: Obj) -> set[tuple[str, str]]:
    """(field, reason) of each finding of a 422."""
    return {(cause["field"], cause["reason"]) for cause in status["details"]["causes"]}


@dataclass(frozen=True)
class Access:
    """How to reach the real server of a kubeconfig: address, headers, TLS."""

    address: str
    headers: dict[str, str]
    tls: ssl.SSLContext | bool


def access(kubeconfig: Path) -> Access:
    """Read a kubeconfig with embedded certificates or a token."""
    config = yaml.safe_load(kubeconfig.read_text())
    contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
    context = contexts[config["current-context"]]
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    if not cluster["server"].startswith("https"):
        return Access(cluster["server"], headers, True)
    tls = ssl.create_default_context(cadata=_content(cluster, "certificate-authority").decode())
    if "client-certificate" in user or "client-certificate-data" in user:
        with TemporaryDirectory() as directory:
            certificate, key = Path(directory) / "crt", Path(directory) / "key"
            certificate.write_bytes(_content(user, "client-certificate"))
            key.write_bytes(_content(user, "client-key"))
            tls.load_cert_chain(certificate, key)
    return Access(cluster["server"], headers, tls)


def _content(entry: Obj, field: str) -> bytes:
    if f"{field}-data" in entry:
        return b64decode(entry[f"{field}-data"])
    return Path(entry[field]).read_bytes()
