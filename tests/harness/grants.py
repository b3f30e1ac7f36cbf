"""What do roles allow to whom, verb by verb, and which of that was ever asked for?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cluster.audit import Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One verb on one resource."""

    user: str
    """As the API server calls the service account."""
    where: str
    """Namespace; empty: all."""
    group: str
    resource: str
    verb: str
    names: tuple[str, ...] = ()
    """Of objects; empty: all."""

    def allows(self, request: Request) -> bool:
        """Whether it is what the request needs."""
        asked = (request.user, request.group, request.resource, request.verb)
        return (
            asked == (self.user, self.group, self.resource, self.verb)
            and self.where in ("", request.namespace)
            and (not self.names or request.name in self.names)
        )

    def __str__(self) -> str:
        where = f" in {self.where}" if self.where else ""
        names = f" ({', '.join(self.names)})" if self.names else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{names}{where}"


def granted(objects: Iterable[Json]) -> set[Grant]:
    """What the bindings among these objects give to service accounts, by roles among them."""
    every = list(objects)
    roles = {_key(each): each for each in every if each["kind"] in ("Role", "ClusterRole")}
    found = set()
    for binding in every:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        where = binding["metadata"].get("namespace", "")
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        role = roles[kind, where if kind == "Role" else "", name]
        for subject in binding["subjects"]:
            user = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
            found |= of_role(role, user, where)
    return found


def of_role(role: Json, user: str, where: str = "") -> set[Grant]:
    """What one role gives to who is bound to it."""
    return {
        Grant(user, where, group, resource, verb, tuple(rule.get("resourceNames", ())))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def in_vain(grants: Iterable[Grant], requests: Iterable[Request]) -> list[Grant]:
    """Those that no request needed."""
    every = [each for each in requests if not each.denied]
    return sorted(grant for grant in grants if not any(grant.allows(each) for each in every))


def _key(role: Json) -> tuple[str, str, str]:
    metadata = role["metadata"]
    return role["kind"], metadata.get("namespace", "") if role["kind"] == "Role" else "", metadata["name"]
