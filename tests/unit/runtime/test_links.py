"""Connections between ranks: both ends are proven, old words prove nothing, and strangers hold up nobody."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from drivetrain.comm import links
from drivetrain.comm import meeting as meetings
from drivetrain.comm.introduction import Introduction, Proven, called, calling
from drivetrain.comm.meeting import Meeting
from drivetrain.comm.store import LinkStore
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault

KEY, OTHER = b"k" * 32, b"o" * 32


def introduced(caller: Introduction, listener: Introduction) -> tuple[list[bytes], Proven, Proven]:
    """All that is said on one connection, and what both ends come to."""
    first, _ = next(caller)
    next(listener)
    answer, _ = listener.send(first)
    with pytest.raises(StopIteration) as ended:
        caller.send(answer)
    with pytest.raises(StopIteration) as heard:
        listener.send(ended.value.value.say)
    return [first, answer, ended.value.value.say], ended.value.value, heard.value.value


def test_both_ends_know_one_another_and_tell_no_key() -> None:
    said, at_caller, at_listener = introduced(calling(KEY, 0, 1), called(KEY, 1))
    assert (at_caller.rank, at_listener.rank) == (1, 0)
    assert KEY not in b"".join(said)
    again, _, _ = introduced(calling(KEY, 0, 1), called(KEY, 1))
    assert not set(said) & set(again)


@pytest.mark.parametrize("listener", [called(OTHER, 1), called(KEY, 2)], ids=["another key", "another rank"])
def test_a_caller_refuses_who_is_not_the_rank_that_it_called(listener: Introduction) -> None:
    caller = calling(KEY, 0, 1)
    next(listener)
    answer, _ = listener.send(next(caller)[0])
    with pytest.raises(ConnectionRefusedError):
        caller.send(answer)


def replayed(said: list[bytes], _: bytes) -> bytes:
    return said[2]


def reflected(_: list[bytes], answer: bytes) -> bytes:
    return answer[16:]


def silent_key(_: list[bytes], answer: bytes) -> bytes:
    return bytes(len(answer) - 16)


@pytest.mark.parametrize("proof", [replayed, reflected, silent_key])
def test_a_listener_refuses_who_has_only_listened(proof: Callable[[list[bytes], bytes], bytes]) -> None:
    said, _, _ = introduced(calling(KEY, 0, 1), called(KEY, 1))
    listener = called(KEY, 1)
    next(listener)
    answer, _ = listener.send(said[0])
    with pytest.raises(ConnectionRefusedError):
        listener.send(proof(said, answer))


def test_what_another_rank_proved_is_no_proof_of_this_one() -> None:
    """Rank 2 knows the key, and is asked through a stranger that says it is rank 0."""
    listener, first = called(KEY, 1), next(calling(KEY, 0, 1))[0]
    next(listener)
    answer, _ = listener.send(first)
    asked = calling(KEY, 2, 1)
    next(asked)
    with pytest.raises(ConnectionRefusedError):
        asked.send(answer)


def meeting(
    keys: list[bytes], before: Callable[[list[socket.socket]], object] = lambda listeners: None
) -> list[dict[int, socket.socket] | BaseException]:
    """One rank a key, in threads of their own; `before` they begin, strangers may call their listeners."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in keys]
    before(listeners)
    addresses: list[Any] = [(each.family, each.getsockname()) for each in listeners]
    found: list[Any] = [None] * len(keys)

    def meet(rank: int) -> None:
        peers = {each for each in range(len(keys)) if each != rank}
        try:
            found[rank] = Meeting(rank, peers, listeners[rank], keys[rank], addresses).held()
        except BaseException as error:  # noqa: BLE001  The test looks at it.
            found[rank] = error

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(len(keys))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    return found


def talk(found: list[Any]) -> None:
    """Every pair of ranks has a connection of its own."""
    for one, other in itertools.permutations(range(len(found)), 2):
        found[one][other].sendall(b"%d%d" % (one, other))
        assert found[other][one].recv(2, socket.MSG_WAITALL) == b"%d%d" % (one, other)
    for connection in [connection for each in found for connection in each.values()]:
        connection.close()


@pytest.mark.parametrize("world", [2, 5])
def test_all_ranks_connect_to_all_others(world: int) -> None:
    talk(meeting([KEY] * world))


def test_strangers_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are kept, of all kinds; and silent ones would be waited for longer than there is time."""
    monkeypatch.setattr(meetings, "_INTRODUCTION", 60.0)
    monkeypatch.setattr(meetings, "_STRANGERS", 40)
    kept = []

    def crowd(listeners: list[socket.socket]) -> None:
        for number in range(150):
            stranger = socket.create_connection(listeners[number % 3].getsockname())
            stranger.sendall((b"", b"GET / HTTP/1.1\r\n\r\n", bytes(20), bytes(200))[number % 4])
            kept.append(stranger)

    talk(meeting([KEY] * 3, crowd))
    for each in kept:
        each.close()


def test_a_rank_with_another_key_comes_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meetings, "_SECONDS", 1.0)
    at_caller, at_listener = meeting([KEY, OTHER])
    assert isinstance(at_caller, ConnectionRefusedError)
    assert isinstance(at_listener, TimeoutError)


@pytest.mark.parametrize(
    "said",
    [None, (2, "a"), (1, ("/tmp/x",), b"s" * 16), (2, ("a.name", 1), b"s" * 16), (2, ("127.0.0.1", 1), b""), [1, 2, 3]],
)
def test_what_is_no_address_is_a_fault(said: Any) -> None:
    with pytest.raises(CommFault, match="what a peer said is no"):
        links._addresses([(2, ("127.0.0.1", 1), b"s" * 16), said])


class TestSecret:
    def stores(self, world: int) -> tuple[list[LinkStore], dict[str, bytes]]:
        table: dict[str, bytes] = {}
        return [LinkStore(table.__setitem__, Interrupt(), 0.1, b"%d" % rank * 16) for rank in range(world)], table

    def test_members_have_one_and_their_values_as_they_were(self) -> None:
        stores, table = self.stores(3)
        for rank, store in enumerate(stores):
            store.set(str(rank), b"value")
        stores[2].set("nccl", b"later")
        for store in stores:
            store.feed(table)
        assert len({store.secret(3) for store in stores}) == 1
        assert stores[0].multi_get(["0", "1", "2", "nccl"]) == [b"value"] * 3 + [b"later"]

    def test_another_epochs_is_another_one(self) -> None:
        found = set()
        for share in (b"a" * 16, b"b" * 16):
            store = LinkStore(lambda key, value: None, Interrupt(), 0.1, share)
            store.feed({"1": b"c" * 16 + b"value"})
            found.add(store.secret(2))
        assert len(found) == 2

    def test_a_peer_without_a_share_is_waited_for_and_told(self) -> None:
        stores, table = self.stores(2)
        stores[0].feed(table)
        with pytest.raises(CommFault, match="rendezvous"):
            stores[0].secret(2)
