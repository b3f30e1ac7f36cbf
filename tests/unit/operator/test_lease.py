"""Leader election: never two, always one again, and no trust in anybody's time of day."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_operator.kube.lease import Terms
from unit.operator.lease_world import World


@pytest.fixture
async def world() -> World:
    return World(2)


async def test_one_of_two_leads_and_keeps_leading(world: World) -> None:
    world.start_all()
    await world.clock.advance(300)
    assert len(world.leaders) == 1
    assert world.store.lease is not None
    assert world.store.lease["spec"]["holderIdentity"] == world.leaders[0]
    assert world.store.lease["spec"]["leaseTransitions"] == 0
    await world.stop()


async def test_after_a_crash_the_other_leads_within_the_lease_and_two_tries(world: World) -> None:
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    world.crash(leader)
    await world.clock.advance(15 + 2 * 2.4 + 1)
    follower = world.leader()
    assert follower is not None
    assert follower.name != leader.name
    assert world.store.lease is not None
    assert world.store.lease["spec"]["leaseTransitions"] == 1
    await world.stop()


async def test_a_released_lease_is_taken_at_the_next_try(world: World) -> None:
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    assert leader.task is not None
    leader.task.cancel()
    release = asyncio.ensure_future(leader.elector.release())
    await world.clock.advance(2.5)
    await release
    assert not leader.elector.is_leader
    follower = world.leader()
    assert follower is not None
    assert follower is not leader
    await world.stop()


async def test_a_cut_off_leader_stops_before_anybody_else_begins(world: World) -> None:
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    leader.link.cut = True
    await world.clock.advance(11)
    assert not leader.elector.is_leader
    assert "not renewed for 10 s" in leader.lost[0]
    await world.clock.advance(10)
    assert world.leader() not in (None, leader)
    assert world.gaps
    assert world.gaps[0] >= 2.5, "15 s of waiting against 10 s of holding, less one renewal interval"
    await world.stop()


async def test_a_hanging_request_does_not_outlive_the_deadline(world: World) -> None:
    """The official client waits 5 minutes for an answer, twenty times the lease."""
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    leader.link.before = lambda: 3600.0
    await world.clock.advance(10.1)
    assert leader.lost
    await world.stop()


async def test_is_leader_turns_false_while_the_loop_is_stuck(world: World) -> None:
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    world.clock.time += 10.0  # nothing ran in between
    assert not leader.elector.is_leader
    await world.stop()


async def test_times_written_by_others_are_never_compared_with_our_clock(world: World) -> None:
    """A holder whose node lives in 1970, or in 2100, is alive as long as its lease changes."""
    first = world.candidates[0]
    world.start(first)
    await world.clock.advance(5)
    write = world.store.write

    def skewed(lease: dict[str, object]) -> dict[str, object]:
        spec = lease["spec"]
        assert isinstance(spec, dict)
        spec["renewTime"] = world.rng.choice(["1970-01-01T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"])
        return write(lease)

    world.store.write = skewed  # type: ignore[method-assign]
    world.start(world.candidates[1])
    await world.clock.advance(120)
    assert world.leaders == [first.elector.holder]
    await world.stop()


async def test_a_deleted_lease_ends_the_holder_and_does_not_let_a_witness_in_early(world: World) -> None:
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    world.store.lease = None
    await world.clock.advance(2.1)
    assert leader.lost == ["the lease was deleted"]
    assert world.leader() is None
    await world.clock.advance(20)
    assert world.leader() is not None
    await world.stop()


async def test_a_lost_answer_to_the_own_renewal_is_no_loss(world: World) -> None:
    world.start_all()
    await world.clock.advance(30)
    leader = world.leader()
    assert leader is not None
    leader.link.after = lambda: 100.0  # written, but the answer does not come
    await world.clock.advance(4)
    leader.link.after = lambda: 0.01
    await world.clock.advance(60)
    assert world.leader() is leader
    await world.stop()


@pytest.mark.parametrize(
    "terms",
    [
        {"duration": 10.0, "renew_deadline": 10.0},
        {"renew_deadline": 2.0, "retry": 2.0},
        {"request": 10.0},
        {"retry": 0.0},
    ],
)
def test_terms_that_could_make_two_leaders_are_refused(terms: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="renew_deadline"):
        Terms(**terms)


ACTION = st.tuples(
    st.sampled_from(["cut", "mend", "slow", "fast", "lose answers", "crash", "release", "nothing"]),
    st.integers(0, 2),
    st.floats(0.1, 12.0),
)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**16), actions=st.lists(ACTION, max_size=25))
def test_never_two_leaders_and_always_one_again(seed: int, actions: list[tuple[str, int, float]]) -> None:
    """Links that fail, delay and lose answers, crashes with requests in flight, clean stops, in any order.

    That there are never two is checked after every single event, by `World`.
    """

    async def history() -> None:
        world = World(3, seed)
        world.start_all()
        for action, index, seconds in actions:
            candidate = world.candidates[index]
            match action:
                case "cut" | "mend":
                    candidate.link.cut = action == "cut"
                case "slow":
                    candidate.link.before = lambda: world.rng.uniform(0.0, 20.0)
                case "fast":
                    candidate.link.before = candidate.link.after = lambda: 0.01
                case "lose answers":
                    candidate.link.after = lambda: world.rng.choice([0.01, 3600.0])
                case "crash":
                    world.start(world.crash(candidate))
                case "release" if candidate.task is not None:
                    candidate.task.cancel()
                    release = asyncio.ensure_future(candidate.elector.release())
                    await world.clock.advance(5)
                    await release
                    world.start(world.crash(candidate))
                case _:
                    pass
            for each in world.candidates:
                if each.task is not None and each.task.done():
                    world.start(world.crash(each))
            await world.clock.advance(seconds)
        for each in list(world.candidates):
            each.link.cut = False
            each.link.before = each.link.after = lambda: 0.01
            if each.task is not None and each.task.done():
                world.start(world.crash(each))
        await world.clock.advance(60)
        assert world.leader() is not None, "faults stopped a minute ago"
        await world.stop()

    asyncio.run(history())
