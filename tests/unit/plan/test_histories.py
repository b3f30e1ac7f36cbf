"""Whatever happens to a job, in whatever order, as late as the operator may hear of it: what always holds.

Hypothesis plays the environment: pods fail, vanish, are preempted; users scale, suspend and delete; the operator is
killed between two writes and sees pods as they were some changes ago. After every move the invariants hold, and once
the faults stop, the job is what its user wants and nothing is left to do.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.status import ConditionType, Phase, TrainingJobStatus
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from unit.plan.builders import spec
from unit.plan.world import World

CHARGED = (1, 70, 137, ExitCode.REFUSED)
FREE = (ExitCode.LEFT, ExitCode.FENCED, ExitCode.STOPPED)


class Histories(RuleBasedStateMachine):
    """One job's life."""

    @initialize(
        workers=st.integers(1, 4),
        minimum=st.none() | st.integers(1, 4),
        budget=st.sampled_from([0, 2, 1000]),
        deadline=st.sampled_from([None, 300]),
        warm=st.sampled_from([True, True, False]),
    )
    def begin(self, workers: int, minimum: int | None, budget: int, deadline: int | None, warm: bool) -> None:
        fields: dict[str, object] = {
            "workers": workers,
            "recovery": {"maxRestarts": budget},
            "training": {"steps": 10**6},
        }
        if minimum is not None:
            fields["elastic"] = {"minWorkers": minimum, "maxWorkers": max(minimum, 4)}
        if deadline is not None:
            fields["activeDeadlineSeconds"] = deadline
        self.world = World(spec(**fields))
        if warm:  # most of what can happen happens to a job that runs
            self.world.settle(4)
        self.end: TrainingJobStatus | None = None
        self.restarts = 0

    # --- the operator ---------------------------------------------------------------------------------------------

    @rule(lag=st.integers(0, 6), die_after=st.none() | st.integers(0, 4))
    def reconcile(self, lag: int, die_after: int | None) -> None:
        self.world.reconcile(lag, die_after)

    @rule(lag=st.integers(0, 3))
    def two_leaders(self, lag: int) -> None:
        """Both plan from the same job; the second to write finds that its resourceVersion no longer holds."""
        first, second = self.world.view(), self.world.view(lag)
        plans = plan(first), plan(second)
        self.world.apply(first, plans[0])
        self.world.apply(second, plans[1])

    @rule()
    def new_leader(self) -> None:
        self.world.leading_since = self.world.now
        self.world.secrets = frozenset()

    # --- the cluster ----------------------------------------------------------------------------------------------

    def _pod(self, data: st.DataObject, role: str | None = None) -> str | None:
        names = sorted(n for n, p in self.world.pods.items() if role in (None, p.role))
        return data.draw(st.sampled_from(names)) if names else None

    @rule()
    def kubelets(self) -> None:
        self.world.kubelets()

    @rule(data=st.data())
    def starts(self, data: st.DataObject) -> None:
        if (name := self._pod(data)) is not None:
            self.world.start(name)

    @rule(data=st.data(), code=st.sampled_from([*CHARGED, *FREE]))
    def worker_ends(self, data: st.DataObject, code: int) -> None:
        name = self._pod(data, ROLE_WORKER)
        if name is not None and not self.world.pods[name].over:
            self.world.incidents += code in CHARGED
            self.world.end(name, code)

    @rule(data=st.data())
    def preempted(self, data: st.DataObject) -> None:
        if (name := self._pod(data, ROLE_WORKER)) is not None:
            self.world.end(name, 137, disruption="PreemptionByScheduler")

    @rule(data=st.data())
    def coordinator_ends(self, data: st.DataObject) -> None:
        if (name := self._pod(data, ROLE_COORDINATOR)) is not None:
            self.world.end(name, 1)

    @rule(data=st.data())
    def deleted(self, data: st.DataObject) -> None:
        """By a person, a drain, or the taint of a lost node: then it hangs until `kubelets`."""
        if (name := self._pod(data)) is not None:
            self.world.delete(name)

    @rule(data=st.data())
    def force_deleted(self, data: st.DataObject) -> None:
        if (name := self._pod(data)) is not None:
            self.world.remove(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 20.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    # --- the job and its user -------------------------------------------------------------------------------------

    @rule(steps=st.integers(0, 1000))
    def trains(self, steps: int) -> None:
        self.world.coordinate(steps)

    @rule(data=st.data(), again=st.booleans())
    def process_fails(self, data: st.DataObject, again: bool) -> None:
        workers = self.world.running(ROLE_WORKER)
        if workers and self.world.running(ROLE_COORDINATOR):
            self.world.fail_process(data.draw(st.sampled_from(workers)), again)
            self.world.coordinate(0)

    @rule(workers=st.integers(1, 5))
    def scaled(self, workers: int) -> None:
        self._edit(workers=workers)

    @rule(suspend=st.booleans())
    def suspended(self, suspend: bool) -> None:
        self._edit(suspend=suspend)

    def _edit(self, **fields: object) -> None:
        self.world.spec = self.world.spec.model_copy(update=fields)
        self.world.generation += 1
        self.world.version += 1

    @rule(sure=st.sampled_from([False] * 9 + [True]))
    def deleted_by_user(self, sure: bool) -> None:
        if sure and not self.world.deleting:  # rarely: little can happen afterwards
            self.world.deleting = True
            self.world.version += 1

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def one_pod_a_slot(self) -> None:
        """Never two pods with one name in a slot's current place, and none beyond what status reserved."""
        for pod in self.world.pods.values():
            if pod.role == ROLE_WORKER:
                assert pod.incarnation <= self.world.status.incarnations.get(pod.index, 0)
            else:
                assert pod.term <= self.world.status.membership.term

    @invariant()
    def one_coordinator_a_term(self) -> None:
        assert len(set(self.world.terms)) == len(self.world.terms)

    @invariant()
    def budget(self) -> None:
        """No incident costs twice, no disruption costs anything, and counters never fall."""
        assert self.world.status.restarts <= self.world.incidents
        assert self.world.status.restarts >= self.restarts
        self.restarts = self.world.status.restarts
        if self.world.status.budget.used > self.world.spec.recovery.max_restarts:
            assert self.world.status.finished

    @invariant()
    def the_end_is_the_end(self) -> None:
        if self.end is not None:
            assert self.world.status == self.end
        elif self.world.status.finished:
            self.end = self.world.status
        assert self.world.creates_after_end == 0

    @invariant()
    def settled_twice_is_settled_once(self) -> None:
        """Planning again from what a plan wrote changes nothing more."""
        view = self.world.view()
        first = plan(view)
        assert TrainingJobStatus.model_validate(status_json(first.status)) == first.status
        if first.status == view.job.status:
            assert not any(isinstance(e, RecordEvent) for e in first.effects)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.settle()
        if world.status.finished or plan(world.view()).status != world.status:
            world.settle()  # the job's deadline may have passed a moment ago, and what follows takes its time, too
        before = world.status
        final = plan(world.view())
        assert final.status == before, "something is still to be written"
        assert final.effects == (), "something is still to be done"
        if world.deleting:
            return
        live = [p for p in world.pods.values() if p.role == ROLE_WORKER and p.live]
        if world.status.finished:
            assert not live
            assert not world.running(ROLE_COORDINATOR)
            assert world.status.phase in (Phase.SUCCEEDED, Phase.FAILED)
        elif world.spec.suspend:
            assert not live
            assert world.status.phase is Phase.SUSPENDED
            assert world.status.start_time is None
        else:
            assert {p.index for p in live} == slots.parse(world.status.workers.indices)
            assert len(live) == world.status.workers.target
            assert [p.term for p in world.running(ROLE_COORDINATOR)] == [world.status.membership.term]
            assert world.status.is_true(ConditionType.READY)
            assert world.status.phase is Phase.RUNNING


def test_what_a_leader_of_old_creates_after_the_end_goes() -> None:
    """Found by `--hypothesis-profile=explore`: the second of two leaders sees pods as they were before the job failed,
    and has nothing to write to its status, so nothing stops it from creating a worker."""
    state = Histories()
    state.begin(workers=2, minimum=None, budget=0, deadline=None, warm=True)
    world = state.world
    first, *_ = sorted(name for name, pod in world.pods.items() if pod.role == ROLE_WORKER)
    world.delete(first)
    world.kubelets()
    state.two_leaders(lag=0)
    world.incidents += 1
    world.end(first, 1)
    state.two_leaders(lag=2)
    state.the_end_is_the_end()
    assert world.status.phase is Phase.FAILED
    state.teardown()


Histories.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistories = Histories.TestCase
