"""An informer that runs, and what it says of what it sees."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.informer import Informer
from drivetrain_operator.kube.resources import PODS, Object, Resource

QUICK = Backoff(base=0.002, cap=0.02)


@dataclass(frozen=True)
class Seen:
    """The projection: name, uid and one datum."""

    name: str
    uid: str
    value: str


def project(obj: Object) -> Seen:
    data = obj.get("data") or {}
    return Seen(obj["metadata"]["name"], obj["metadata"]["uid"], data.get("value", ""))


@dataclass
class Log:
    """Handler and observer: what was told, and what it adds up to."""

    changes: list[tuple[Seen | None, Seen | None]] = field(default_factory=list)
    state: dict[str, Seen] = field(default_factory=dict)
    lists: list[str] = field(default_factory=list)
    interruptions: list[str] = field(default_factory=list)

    def __call__(self, old: Seen | None, new: Seen | None) -> None:
        self.changes.append((old, new))
        if old is not None:
            assert self.state.pop(old.name) == old, "what changes is what was told before"
        if new is not None:
            assert new.name not in self.state, "a beginning follows an end"
            self.state[new.name] = new
        if old is not None and new is not None:
            assert old.uid == new.uid, "another uid is another object"

    @property
    def short(self) -> list[str]:
        return [f"{'-' if n is None else '+' if o is None else '~'}{(n or o).name}" for o, n in self.changes]  # type: ignore[union-attr]

    def event(self, resource: str, kind: str) -> None: ...

    def listed(self, resource: str, reason: str) -> None:
        self.lists.append(reason)

    def interrupted(self, resource: str, reason: str) -> None:
        self.interruptions.append(reason)


@contextlib.asynccontextmanager
async def informing(
    url: str, token: str = "t", resource: Resource = PODS, log: Log | None = None, **options: Any
) -> AsyncIterator[tuple[Informer[Seen], Log]]:
    log = log if log is not None else Log()
    clock, rng = SystemClock(), random.Random(1)
    async with KubeClient(FixedCredentials(url, token=token), clock, rng, backoff=QUICK, attempts=1) as client:
        given: dict[str, Any] = {"handler": log, "observer": log, "backoff": QUICK, "project": project} | options
        informer: Informer[Seen] = Informer(client, resource, clock=clock, rng=rng, **given)
        task = asyncio.ensure_future(informer.run())
        try:
            yield informer, log
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def config(name: str, value: str, owner: str = "job-1") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "x"}, "annotations": {"owner": owner}},
        "data": {"value": value},
    }
