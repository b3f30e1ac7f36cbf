"""The operator's passes, driven by hand: one operator process that a test can kill between any two API calls."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from drivetrain_local.apiserver import ApiServer
from drivetrain_operator.act.executor import Executor
from drivetrain_operator.act.jobs import JobCache, JobKey, Watcher
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.act.patience import Patience
from drivetrain_operator.act.reconciler import Pass, Reconciler
from drivetrain_operator.act.specs import Specs
from drivetrain_operator.act.views import Views
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import TRAININGJOBS, Object, Resource, controller_uid
from drivetrain_operator.listening import Listening
from drivetrain_operator.plan.observe import budget_view, network_policy_view, pod_view, service_view
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Family, Me
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import Authority
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.trust import Trust
from unit.operator_shell.world import NAMESPACE, JumpClock, World

KEY = JobKey(NAMESPACE, "charlm")
ROOT = Trust(Authority.generate(datetime.now(UTC)))
ME = Me("ops/one", ROOT.current.fingerprint, ROOT.roots, oldest=ROOT.oldest)
WRITES = ("create", "update", "patch", "delete")


class Killed(BaseException):
    """SIGKILL: nothing catches it."""


@dataclass
class Death:
    """When an operator dies: around its n-th write, counted from 0."""

    write: int
    side: Literal["before", "after"]


class MortalClient(KubeClient):
    """The real client, until the moment of death. The dead send nothing."""

    def __init__(self, api: ApiServer, clock: JumpClock, death: Death | None) -> None:
        super().__init__(FixedCredentials(api.address, token=api.token), clock, random.Random(1))
        self.death = death
        self.writes: list[str] = []
        self.dead = False

    async def _call(self, verb: str, method: str, resource: Resource, *args: Any, **kwargs: Any) -> Object:
        if self.dead:
            raise Killed
        counts = verb in WRITES and resource.plural != "events"
        number = len(self.writes)
        if counts:
            self.writes.append(f"{verb} {resource.plural}")
        if counts and self.death == Death(number, "before"):
            self.dead = True
            raise Killed
        answer = await super()._call(verb, method, resource, *args, **kwargs)
        if counts and self.death == Death(number, "after"):
            self.dead = True
            raise Killed
        return answer


@dataclass
class Pilot:
    """One life of an operator. Its caches show the API server's state without delay, unless a test holds them back."""

    world: World
    death: Death | None = None
    me: Me = ME
    trust: Trust = ROOT
    started: float = 0.0
    conflicts: int = 0
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock, api = self.world.clock, self.world.api
        self.client = MortalClient(api, clock, self.death)
        self.world.closing.append(self.client.close)
        self.jobs = JobCache(Watcher(lambda *_: None, lambda *_: None))
        listening = Listening(clock)
        self.memory = JobMemory(clock, listening)
        self.book = ReportBook(listening, lambda _: None)
        self.rosters = RosterBoard()
        self.events: list[str] = []
        self.executor = Executor(
            self.client,
            lambda _, event: self.events.append(event.reason),
            self.memory,
            self.trust,
            Platform("drivetrain-operator", "https://127.0.0.1:1"),
            clock,
        )
        self.views = Views(
            self.jobs,
            self.family,
            self.book,
            self.memory,
            clock,
            listening,
            Patience(listening, lambda: ["default"] * len(self.jobs)),
            ComplaintBook(listening, lambda _: None),
            self.me,
            Specs(),
        )
        self.reconciler = Reconciler(
            self.client, self.jobs, self.views, self.memory, self.executor, self.rosters, plan, lambda *_: True
        )
        self.views.serving()

    def family(self, _: str, uid: str) -> Family:
        def mine(plural: str) -> list[Object]:
            return [obj for obj in self.world.all(plural) if controller_uid(obj) == uid]

        pods = tuple(pod_view(pod) for pod in mine("pods"))
        services = [service_view(obj) for obj in mine("services")]
        budgets = [budget_view(obj) for obj in mine("policy/poddisruptionbudgets")]
        policies = tuple(network_policy_view(obj) for obj in mine("networking.k8s.io/networkpolicies"))
        return Family(pods, next(iter(services), None), next(iter(budgets), None), policies)

    async def run_pass(self, key: JobKey = KEY) -> Pass | None:
        """What an event and a worker would do: one pass from fresh caches. None if it failed and is to be retried."""
        page = await self.client.list(TRAININGJOBS)
        self.jobs.replace(page.items, page.resource_version)
        obj = self.jobs.get(key)
        if obj is not None:
            uid = obj["metadata"]["uid"]
            report = self.world.report(self.rosters.current(uid))
            if report is not None:
                self.book.store(report)
        try:
            return await self.reconciler.reconcile(key)
        except KubeError as error:
            self.errors.append(str(error))
            return None
