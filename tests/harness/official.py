"""Can the official Python client decode what a server serves? Its typed API, found by group and kind.

The client refuses a whole list for one field of one object that its models require.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes as _untyped

from drivetrain_local.apiserver.resources import BUILTIN, Resource

kubernetes: Any = _untyped
"""Half of its functions have types, and strict ones: here it is used as its users use it."""

APIS = {
    "": "CoreV1Api",
    "events.k8s.io": "EventsV1Api",
    "coordination.k8s.io": "CoordinationV1Api",
    "discovery.k8s.io": "DiscoveryV1Api",
    "policy": "PolicyV1Api",
    "networking.k8s.io": "NetworkingV1Api",
    "apiextensions.k8s.io": "ApiextensionsV1Api",
    "authorization.k8s.io": "AuthorizationV1Api",
}


class Typed:
    """The client's methods for one kind, in one namespace if it has namespaces."""

    def __init__(self, client: Any, resource: Resource, namespace: str) -> None:
        self._api = getattr(kubernetes.client, APIS[resource.group])(client)
        self._scope = (namespace,) if resource.namespaced else ()
        self._kind = _snake(resource.kind)
        self._namespaced = "namespaced_" if resource.namespaced else ""

    def _method(self, verb: str, suffix: str = "") -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._api, f"{verb}_{self._namespaced}{self._kind}{suffix}")
        return found

    def create(self, body: Any) -> Any:
        return self._method("create")(*self._scope, body)

    def read(self, name: str, suffix: str = "") -> Any:
        return self._method("read", suffix)(name, *self._scope)

    def replace(self, name: str, body: Any, suffix: str = "") -> Any:
        return self._method("replace", suffix)(name, *self._scope, body)

    def patch(self, name: str, body: Any, suffix: str = "") -> Any:
        return self._method("patch", suffix)(name, *self._scope, body)

    def delete(self, name: str) -> Any:
        return self._method("delete")(name, *self._scope)

    def delete_all(self) -> Any:
        return self._method("delete_collection")(*self._scope)

    def list(self) -> Any:
        return self._method("list")(*self._scope)

    def everywhere(self) -> Any:
        """All of the kind, over all namespaces."""
        return getattr(self._api, f"list_{self._kind}_for_all_namespaces")() if self._scope else self.list()

    def first_seen(self) -> Any:
        """The first object that a watch tells."""
        watch = kubernetes.watch.Watch()
        for event in watch.stream(self._method("list"), *self._scope, timeout_seconds=20):
            watch.stop()
            return event["object"]
        raise AssertionError(f"a watch of {self._kind} told nothing")


def connected(kubeconfig: Path) -> Any:
    """A client of the server in a kubeconfig; a context manager."""
    return kubernetes.config.new_client_from_config(str(kubeconfig))


def everything(kubeconfig: Path) -> dict[str, list[Any]]:
    """Every object of every built-in kind, decoded. Raises what the client raises."""
    with connected(kubeconfig) as client:
        return {
            f"{resource.group}/{resource.plural}": Typed(client, resource, "").everywhere().items
            for resource in BUILTIN
            if "list" in resource.verbs
        }


def _snake(kind: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
