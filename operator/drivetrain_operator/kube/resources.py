"""Which kinds of object the operator touches, and where the API server keeps them.

An object is a plain dict, as JSON has it: the official client's models cost a millisecond a pod and drop fields that
they do not know.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from drivetrain_api import constants

Object: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type of the Kubernetes API; `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    namespaced: bool
    kind: str

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, or of one object. Without `namespace`, all namespaces."""
        if namespace is not None and not self.namespaced:
            raise ValueError(f"{self.kind} is not namespaced, but namespace {namespace!r} was given")
        if name is not None and self.namespaced and namespace is None:
            raise ValueError(f"{self.kind} {name!r} needs a namespace")
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace is not None:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        parts.extend(quote(part, safe="") for part in (name, subresource) if part is not None)
        return "/".join(parts)


PODS: Final = Resource("", "v1", "pods", True, "Pod")
SERVICES: Final = Resource("", "v1", "services", True, "Service")
SECRETS: Final = Resource("", "v1", "secrets", True, "Secret")
CONFIGMAPS: Final = Resource("", "v1", "configmaps", True, "ConfigMap")
EVENTS: Final = Resource("", "v1", "events", True, "Event")
NODES: Final = Resource("", "v1", "nodes", False, "Node")
BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", True, "PodDisruptionBudget")
NETWORK_POLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", True, "NetworkPolicy")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", True, "Lease")
ENDPOINTSLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", True, "EndpointSlice")
TRAININGJOBS: Final = Resource(constants.GROUP, constants.VERSION, constants.PLURAL, True, constants.KIND)


def controller_uid(obj: Object) -> str | None:
    """The uid of the object's controlling owner, by which children are indexed."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            uid: str = owner["uid"]
            return uid
    return None
