"""What is special about each built-in kind, by storage key."""

from __future__ import annotations

from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.apiserver.kinds.claims import PersistentVolumeClaims
from drivetrain_local.apiserver.kinds.crds import CustomResourceDefinitions
from drivetrain_local.apiserver.kinds.data import ConfigMaps, Secrets
from drivetrain_local.apiserver.kinds.pods import Pods
from drivetrain_local.apiserver.kinds.services import Services
from drivetrain_local.apiserver.kinds.small import EndpointSlices, Events, Leases, Namespaces

__all__ = ["Kind", "Kinds"]


class Kinds:
    """The built-in kinds of one server."""

    def __init__(self, service_cidr: str) -> None:
        self._by_storage: dict[str, Kind] = {
            "pods": Pods(),
            "services": Services(service_cidr),
            "secrets": Secrets(),
            "configmaps": ConfigMaps(),
            "persistentvolumeclaims": PersistentVolumeClaims(),
            "namespaces": Namespaces(),
            "events": Events(),
            "coordination.k8s.io/leases": Leases(),
            "discovery.k8s.io/endpointslices": EndpointSlices(),
            "apiextensions.k8s.io/customresourcedefinitions": CustomResourceDefinitions(),
        }
        self._plain = Kind()

    def of(self, storage: str) -> Kind:
        return self._by_storage.get(storage, self._plain)
