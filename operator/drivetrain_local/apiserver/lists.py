"""What does a LIST return? A consistent page: later pages come from the same snapshot, however much was written since.

Snapshots are lists of references to objects that never change, so keeping some for open continue tokens costs little.
A token whose snapshot was dropped gets 410, as after an etcd compaction.
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.request import Target
from drivetrain_local.apiserver.resources import Resource
from drivetrain_local.apiserver.selectors import Predicate, both, field_predicate, label_predicate
from drivetrain_local.apiserver.store import Store
from drivetrain_local.objects import Obj

_SNAPSHOTS_KEPT = 64
_GONE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True)
class Page:
    """Items and list metadata."""

    items: list[Obj]
    metadata: Obj


def selection(target: Target) -> Predicate | None:
    """The label and field selectors of a request (and its name, where a single object is watched)."""
    fields = target.query.get("fieldSelector", "")
    if target.name:
        fields = ",".join(filter(None, [fields, f"metadata.name={target.name}"]))
    return both(label_predicate(target.query.get("labelSelector", "")), field_predicate(fields, target.resource.plural))


class Lists:
    """Pages over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshots: OrderedDict[str, tuple[int, list[Obj]]] = OrderedDict()

    def page(self, target: Target) -> Page:
        """One page. Raises 410 on a token that is too old, 504 on a resourceVersion from the future."""
        limit = _integer(target.query.get("limit", "0"), "limit")
        if token := target.query.get("continue"):
            revision, items = self._resume(token)
        else:
            self._check_revision(target.resource, target.query)
            wanted = selection(target)
            items = self._store.all(target.resource.key, target.namespace if target.resource.namespaced else None)
            items = [item for item in items if wanted(item)] if wanted else items
            revision = self._store.revision
        metadata: Obj = {"resourceVersion": str(revision)}
        if limit and len(items) > limit:
            metadata["continue"] = self._keep(revision, items[limit:])
            metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        return Page(items, metadata)

    def forget(self) -> None:
        """Expire all continue tokens: the next page of every open list gets 410."""
        self._snapshots.clear()

    def _keep(self, revision: int, rest: list[Obj]) -> str:
        start = f"{rest[0]['metadata'].get('namespace', '')}/{rest[0]['metadata']['name']}"
        content = {"v": "meta.k8s.io/v1", "rv": revision, "start": start, "n": len(rest), "o": id(rest)}
        token = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        self._snapshots[token] = (revision, rest)
        while len(self._snapshots) > _SNAPSHOTS_KEPT:
            self._snapshots.popitem(last=False)
        return token

    def _resume(self, token: str) -> tuple[int, list[Obj]]:
        found = self._snapshots.get(token)
        if found is None:
            raise errors.expired(_GONE)
        return found

    def _check_revision(self, resource: Resource, query: dict[str, str]) -> None:
        asked = _integer(query.get("resourceVersion", "") or "0", "resourceVersion")
        if asked > self._store.revision:
            message = f"Too large resource version: {asked}, current: {self._store.revision}"
            details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
            raise errors.ApiError(504, "Timeout", message, details=details, retry_after=1)
        if query.get("resourceVersionMatch") == "Exact" and asked < self._store.oldest(resource.key):
            raise errors.expired(f"The resourceVersion for the provided list is too old: {asked}")


def _integer(text: str, field: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise errors.bad_request(f'{field}: Invalid value: "{text}": strconv.ParseUint: invalid syntax') from error
