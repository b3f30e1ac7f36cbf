"""Who is taken, who is not, and who gives way."""

from __future__ import annotations

import random

import pytest

from drivetrain_serving.connections import (
    GRACE_SECONDS,
    Connection,
    Connections,
    Limits,
    network_of,
    peer_of,
)
from drivetrain_serving.rates import HOLDERS, Rates

LIMITS = Limits(pending=8, admitted=6, each=2)


def arrived(known: Connections, address: str, now: float = 0.0) -> Connection:
    new, _ = known.arrive(address, now)
    assert new is not None
    return new


def test_a_crowd_of_one_stranger_gives_way_to_everybody_else() -> None:
    known = Connections(LIMITS)
    crowd = [arrived(known, "10.0.0.66") for _ in range(8)]
    for n in range(4):
        new, loser = known.arrive(f"10.0.0.{n}", 0.0)
        assert new is not None
        assert loser is crowd[n]
    assert known.arrive("10.0.0.66", 0.0) == (None, None)


def test_one_of_many_peers_waits_until_somebody_had_time_enough() -> None:
    known = Connections(LIMITS)
    first = [arrived(known, f"10.0.0.{n}") for n in range(8)]
    assert known.arrive("10.0.0.99", GRACE_SECONDS / 2) == (None, None)
    new, loser = known.arrive("10.0.0.99", GRACE_SECONDS)
    assert (new is not None, loser) == (True, first[0])


def test_an_honest_peer_that_has_all_places_is_not_thrown_out_by_itself() -> None:
    """All launchers behind one address: those that shake hands are let alone."""
    known = Connections(LIMITS)
    for _ in range(8):
        arrived(known, "10.0.0.1")
    assert known.arrive("10.0.0.1", GRACE_SECONDS / 2) == (None, None)


def test_admission_frees_a_place_and_is_bounded_by_holder_and_in_all() -> None:
    known = Connections(LIMITS)
    admitted = [known.admit(arrived(known, "10.0.0.1"), holder) for holder in "aaabbcd"]
    assert admitted == [True, True, False, True, True, True, True]
    assert (known.pending, known.admitted) == (1, 6)
    assert not known.admit(arrived(known, "10.0.0.1"), "e")


def test_a_connection_speaks_for_one() -> None:
    known = Connections(LIMITS)
    mine = arrived(known, "10.0.0.1")
    assert known.admit(mine, "a")
    assert known.admit(mine, "a")
    assert not known.admit(mine, "b")
    known.leave(mine)
    known.leave(mine)
    assert not known.admit(mine, "a")
    assert (known.pending, known.admitted) == (0, 0)


def test_nothing_is_ever_over_its_limit_and_nothing_is_forgotten() -> None:
    chance = random.Random(20261129)
    for _ in range(50):
        known = Connections(
            Limits(pending=chance.randint(1, 9), admitted=chance.randint(1, 9), each=chance.randint(1, 3))
        )
        there: set[Connection] = set()
        now = 0.0
        for _ in range(400):
            now += chance.random()
            match chance.randint(0, 3):
                case 0 | 1:
                    new, loser = known.arrive(f"10.0.0.{chance.randint(0, 4)}", now)
                    there.discard(loser or Connection("", "", 0))
                    there |= {new} if new is not None else set()
                case 2 if there:
                    known.admit(chance.choice(sorted(there, key=lambda c: c.since)), chance.choice("abc"))
                case 3 if there:
                    gone = chance.choice(sorted(there, key=lambda c: c.since))
                    there.discard(gone)
                    known.leave(gone)
            limits = known._limits
            assert known.pending <= limits.pending
            assert known.admitted <= limits.admitted
            assert known.pending + known.admitted == len(there)
        for each in there:
            known.leave(each)
        assert (known.pending, known.admitted, +known._peers, +known._holders) == (0, 0, {}, {})


@pytest.mark.parametrize(
    ("address", "peer", "network"),
    [
        ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1%eth0", "fe80::/64"),
        ("", "", ""),
    ],
)
def test_peers_and_their_networks(address: str, peer: str, network: str) -> None:
    assert (peer_of(address), network_of(address)) == (peer, network)


def test_a_crowd_of_one_address_does_not_keep_out_others_of_its_network() -> None:
    """Kubernetes gives a node a network of IPv6: its pods, and the kubelet that probes."""
    known = Connections(LIMITS)
    crowd = [arrived(known, "fd00::66") for _ in range(8)]
    for n in range(4):
        new, loser = known.arrive(f"fd00::{n}", 0.0)
        assert new is not None
        assert loser is crowd[n]


def test_a_crowd_of_one_network_does_not_keep_out_others() -> None:
    known = Connections(LIMITS)
    crowd = [arrived(known, f"fd00::{n}") for n in range(8)]
    new, loser = known.arrive("fd00:1::1", 0.0)
    assert new is not None
    assert loser is crowd[0]


@pytest.mark.parametrize("seconds", [0.5, 1.1, 2.0, 2.9])
def test_a_crowd_of_slow_callers_gets_in(seconds: float) -> None:
    """Each from an address of its own, back half a second after it was refused. They pushed one another out."""
    known, now, waiting, done = Connections(Limits(pending=16)), 0.0, list(range(200)), 0
    there: dict[Connection, int] = {}
    while now < 120 and done < 200:
        for each, number in [(c, n) for c, n in there.items() if now - c.since >= seconds]:
            del there[each]
            if known.admit(each, str(number)):
                done += 1
        turned_away = []
        for number in waiting:
            new, loser = known.arrive(f"10.0.0.{number}", now)
            if loser is not None and loser in there:
                turned_away.append(there.pop(loser))
            if new is None:
                turned_away.append(number)
            else:
                there[new] = number
        waiting = turned_away
        now += 0.5
    assert done == 200


def test_a_burst_and_then_a_rate_for_each_holder() -> None:
    now = [0.0]
    rates = Rates(3, 2, lambda: now[0])
    assert [rates.take("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert rates.take("b") == 0
    now[0] = 0.5
    assert [rates.take("a"), rates.take("a")] == [0, 0.5]
    now[0] = 100.0
    assert rates.take("a", 30) == 0  # more than the burst: it may, and has to wait long
    assert rates.take("a") == pytest.approx(14.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    now = [10.0]
    rates = Rates(1, 1, lambda: now[0])
    assert rates.take("a") == 0
    now[0] = 0.0
    assert rates.take("a") == 1


def test_holders_that_are_remembered_are_bounded() -> None:
    rates = Rates(1, 1, lambda: 0.0)
    for n in range(HOLDERS + 100):
        rates.take(str(n))
    assert len(rates._buckets) == HOLDERS
