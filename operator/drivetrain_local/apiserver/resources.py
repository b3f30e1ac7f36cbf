"""Which resources are served, and under which names?

A `Resource` is one (group, version, plural). Built-in ones stand in the table below; custom ones come and go with
their CustomResourceDefinition (`kinds/crds.py`). What Kubernetes has and this server has not answers 501, what nobody
knows 404.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from drivetrain_local.objects import Obj

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Scale:
    """Where a custom resource keeps what the scale subresource shows (JSON paths like `.spec.workers`)."""

    spec: str
    status: str
    selector: str = ""


@dataclass(frozen=True)
class Column:
    """An additional printer column of a custom resource."""

    name: str
    type: str
    path: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Resource:
    """One served (group, version, plural)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    singular: str = ""
    status: bool = False
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    storage: str = ""
    """Key in the store; two versions of one resource share it."""
    unconditional_update: bool = True
    """Whether a PUT without resourceVersion is allowed."""
    schema: Obj | None = None
    columns: tuple[Column, ...] = ()
    scale: Scale | None = None
    custom: bool = False

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        return self.storage or (f"{self.group}/{self.plural}" if self.group else self.plural)

    @property
    def base_path(self) -> str:
        return f"/apis/{self.group_version}" if self.group else f"/api/{self.version}"


BUILTIN: tuple[Resource, ...] = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, short_names=("ns",), status=True,
             verbs=tuple(verb for verb in VERBS if verb != "deletecollection")),
    Resource("", "v1", "nodes", "Node", namespaced=False, short_names=("no",), status=True),
    Resource("", "v1", "pods", "Pod", short_names=("po",), categories=("all",), status=True,
             subresources=("log", "binding", "eviction")),
    Resource("", "v1", "services", "Service", short_names=("svc",), categories=("all",), status=True),
    Resource("", "v1", "endpoints", "Endpoints", short_names=("ep",)),
    Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short_names=("pvc",), status=True),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",)),
    Resource("", "v1", "events", "Event", short_names=("ev",)),
    Resource("events.k8s.io", "v1", "events", "Event", short_names=("ev",), storage="events"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", unconditional_update=False),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short_names=("pdb",), status=True,
             unconditional_update=False),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short_names=("netpol",)),
    Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False,
             short_names=("crd", "crds"), categories=("api-extensions",), status=True, unconditional_update=False),
    Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False,
             verbs=("create",)),
)  # fmt: skip

NOT_HERE: dict[str, tuple[str, ...]] = {
    "": ("bindings", "componentstatuses", "limitranges", "persistentvolumes", "podtemplates",
         "replicationcontrollers", "resourcequotas"),
    "admissionregistration.k8s.io": (), "apiregistration.k8s.io": (), "apps": (), "authentication.k8s.io": (),
    "authorization.k8s.io": (), "autoscaling": (), "batch": (), "certificates.k8s.io": (), "metrics.k8s.io": (),
    "networking.k8s.io": (), "node.k8s.io": (), "rbac.authorization.k8s.io": (),
    "resource.k8s.io": (), "scheduling.k8s.io": (), "storage.k8s.io": (), "flowcontrol.apiserver.k8s.io": (),
}  # fmt: skip
"""Groups (and, for the core group, resources) of Kubernetes that answer 501 here."""


@dataclass
class Registry:
    """All resources that are served now."""

    _served: dict[tuple[str, str, str], Resource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add(BUILTIN)

    def add(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            self._served[resource.group, resource.version, resource.plural] = resource

    def discard(self, group: str, plural: str) -> None:
        """Stop serving all versions of a resource."""
        for key in [key for key in self._served if key[0] == group and key[2] == plural]:
            del self._served[key]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def of_kind(self, group: str, kind: str) -> Resource | None:
        """The resource that an owner reference means, in any version."""
        return next((r for r in self._served.values() if r.group == group and r.kind == kind), None)

    def of_storage(self, storage: str) -> Resource:
        """The resource that owns a storage key."""
        return next(resource for resource in self._served.values() if resource.key == storage)

    def all(self) -> list[Resource]:
        return list(self._served.values())

    def groups(self) -> dict[str, list[str]]:
        """Versions by named group, in the order in which they were added."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._served:
            if group and version not in found.setdefault(group, []):
                found[group].append(version)
        return found

    def in_version(self, group: str, version: str) -> list[Resource]:
        return [r for r in self._served.values() if (r.group, r.version) == (group, version)]
