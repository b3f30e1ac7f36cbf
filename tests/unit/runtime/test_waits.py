"""Waits end when the membership does, and what was abandoned cannot reach a tensor that is used again."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from typing import Any

import pytest
import torch

from drivetrain.comm.quarantine import Quarantine, destroy_unused_groups
from drivetrain.comm.store import LinkStore
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault, MembershipOver
from harness.activity import Stillness
from harness.patience import until
from unit.runtime.test_backend import connected
from unit.runtime.together import Pipe, Ranks, together

SIZE = 4_000_000


def frozen_peer(pipe: Pipe) -> dict[str, Any]:
    """Rank 1 is frozen in the middle of an all-reduce; rank 0 abandons it and goes on with other tensors."""
    transport = connected(pipe)
    tensor = torch.ones(SIZE)
    transport.all_reduce(torch.ones(1)).wait()
    pipe.tell("ready")
    pipe.hear()
    if pipe.rank == 1:
        # Starts late, is frozen as soon as it has: half of the ring's messages are still to come.
        pending = transport.all_reduce(tensor)
        pipe.tell("started")
        pending.wait()
        return {}
    pending = transport.all_reduce(tensor)
    ended: list[Stillness] = []

    def end() -> None:
        ended.append(Stillness())
        transport.interrupt.end("over")

    threading.Timer(0.3, end).start()
    with pytest.raises(MembershipOver):
        pending.wait()
    took = ended[0].seconds()
    with pytest.raises(MembershipOver):
        transport.all_reduce(torch.ones(1))
    quarantine = Quarantine()
    transport.abandon(quarantine)
    held = quarantine.sweep()
    before = tensor.clone()
    reused = torch.full((SIZE,), 7.0)
    pipe.tell({"took": took, "held": held, "finished": not pending.done})
    pipe.hear()  # the peer goes on
    until(lambda: not quarantine.sweep(), "the quarantine is empty", 20, every=0.01)
    return {
        "left": quarantine.sweep(),
        "changed": bool((tensor != before).any()),
        "reused_is_whole": bool((reused == 7.0).all()),
    }


def test_an_abandoned_all_reduce_writes_only_to_its_quarantined_tensor() -> None:
    with Ranks(frozen_peer, 2) as ranks:
        assert [ranks.hear(0), ranks.hear(1)] == ["ready", "ready"]
        os.kill(ranks.pids[1], signal.SIGSTOP)
        ranks.tell(0, "go")
        found = ranks.hear(0)
        assert found["took"] < 0.1
        assert found["held"] == 1
        ranks.tell(1, "go")
        os.kill(ranks.pids[1], signal.SIGCONT)
        ranks.tell(0, "go")
        assert ranks.hear(1) == "started"
        after = ranks.hear(0)
    assert after == {"left": 0, "changed": True, "reused_is_whole": True}


def killed_peer(pipe: Pipe) -> tuple[str, int]:
    transport = connected(pipe)
    transport.all_reduce(torch.ones(1)).wait()
    if pipe.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    pending = transport.all_reduce(torch.ones(1000))
    try:
        pending.wait()
    except CommFault as error:
        quarantine = Quarantine()
        transport.abandon(quarantine)
        return str(error), quarantine.sweep()
    return "", -1


def test_a_killed_peer_is_a_fault_of_communication_at_once() -> None:
    with Ranks(killed_peer, 2) as ranks:
        text, held = ranks.hear(0)
    assert text.startswith("all-reduce: ")
    assert held == 0


def last_reference(pipe: Pipe) -> int:
    """Nobody but gloo's own thread knows the group when an operation on it fails."""
    transport = connected(pipe)
    transport.all_reduce(torch.ones(1)).wait()
    if pipe.rank == 1:
        pipe.hear()
        os.kill(os.getpid(), signal.SIGKILL)
    transport.all_reduce(torch.ones(SIZE))
    with_group = _threads()
    transport.abandon(Quarantine())
    del transport
    pipe.tell("alone")
    pipe.hear()  # the peer is dead

    def joined() -> bool:
        destroy_unused_groups()  # which joins their threads
        return _threads() <= with_group - 3

    until(joined, "the threads of a destroyed group are joined", 10, every=0.01)
    return with_group - _threads()


def test_many_buckets_of_one_group_are_one_group_that_is_stuck() -> None:
    quarantine = Quarantine()
    groups, ended = [object(), object()], threading.Event()
    for _ in range(100):
        quarantine.hold(threading.Event().is_set, groups[0], [])
        quarantine.hold(ended.is_set, groups[1], [])
    assert (quarantine.stuck_groups(0.0), quarantine.stuck_groups(30.0)) == (2, 0)
    ended.set()
    assert (quarantine.sweep(), quarantine.stuck_groups(0.0)) == (100, 1)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_a_group_is_not_destroyed_on_a_thread_of_its_own() -> None:
    with Ranks(last_reference, 2) as ranks:
        assert ranks.hear(0) == "alone"
        ranks.tell(1, "go")
        ranks.tell(0, "go")
        assert ranks.hear(0) >= 3  # two for operations, one for connections


def many_tensors(pipe: Pipe) -> int:
    """A new tensor of 8 MB for each of 100 operations: what growing by all of them would show."""
    transport = connected(pipe)
    transport.all_reduce(torch.ones(1)).wait()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        transport.all_reduce(torch.ones(2_000_000)).wait()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def test_tensors_of_finished_operations_are_let_go() -> None:
    assert max(together(many_tensors, 2)) < 200  # MB; 800 if they were kept


def slow_transfer(pipe: Pipe) -> float:
    """The group was formed with a deadline of 2 s; a peer that is busy for longer must not end a transfer."""
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    from drivetrain.comm.transport import Transport, connect_gloo

    interrupt = Interrupt()
    store = TCPStore("127.0.0.1", pipe.port, pipe.world, pipe.rank == 0)
    group = connect_gloo(PrefixStore("x", store), pipe.rank, 2, interrupt, 2.0, "127.0.0.1")
    transport = Transport(group, pipe.rank, 2, interrupt)
    tensor = torch.full((SIZE,), float(pipe.rank))
    if pipe.rank == 0:
        transport.send([tensor], 1)
        time.sleep(3)
        transport.all_reduce(torch.ones(1)).wait()
    else:
        time.sleep(3)
        transport.receive([tensor], 0)
        transport.all_reduce(torch.ones(1)).wait()
    return float(tensor.sum())


def test_the_deadline_for_forming_is_none_for_what_follows() -> None:
    assert together(slow_transfer, 2) == [0.0, 0.0]


def test_an_interrupt_ends_present_and_future_waits_with_its_first_reason() -> None:
    interrupt = Interrupt()
    called: list[str] = []
    interrupt.on_end(lambda: called.append("end"))
    threading.Timer(0.05, lambda: interrupt.end("first")).start()
    with pytest.raises(MembershipOver, match="first"):
        interrupt.wait(lambda done: None, 10.0, "nothing")
    interrupt.end("second")
    with pytest.raises(MembershipOver, match="first"):
        interrupt.wait(lambda done: done(), 10.0, "something that is done already")
    assert interrupt.reason == "first"
    assert called == ["end"]


def test_a_wait_has_a_deadline_and_says_for_what() -> None:
    with pytest.raises(CommFault, match=r"the thing: nothing for 0\.01 s"):
        Interrupt().wait(lambda done: None, 0.01, "the thing")


def test_a_call_in_a_helper_thread_returns_or_raises_or_is_left_behind() -> None:
    interrupt = Interrupt()
    assert interrupt.call(lambda: 5, 1.0, "five") == 5
    with pytest.raises(CommFault, match=r"dividing: .*by zero"):
        interrupt.call(lambda: 1 // 0, 1.0, "dividing")
    stay = threading.Event()
    threading.Timer(0.05, lambda: interrupt.end("over")).start()
    with pytest.raises(MembershipOver):
        interrupt.call(stay.wait, 10.0, "staying")
    stay.set()


def test_the_helper_may_notice_the_end_before_the_waiting_thread() -> None:
    """Then, too, it is the end of the membership and no fault, which would be reported."""

    def notice() -> None:
        raise MembershipOver("seen by the helper")

    with pytest.raises(MembershipOver, match="seen by the helper"):
        Interrupt().call(notice, 1.0, "noticing")


class TestLinkStore:
    def make(self, deadline: float = 0.1) -> tuple[LinkStore, Interrupt, dict[str, bytes]]:
        interrupt, sent = Interrupt(), dict[str, bytes]()
        return LinkStore(sent.__setitem__, interrupt, deadline), interrupt, sent

    def test_sets_go_out_and_are_readable_here(self) -> None:
        store, _, sent = self.make()
        store.set("a", "1")
        store.multi_set(["b", "c"], [b"2", b"3"])
        assert sent == {"a": b"1", "b": b"2", "c": b"3"}
        assert store.multi_get(["c", "a"]) == [b"3", b"1"]
        assert store.check(["a", "b"])
        assert not store.check(["a", "z"])

    def test_a_read_waits_for_the_table(self) -> None:
        store, _, _ = self.make()
        threading.Timer(0.3, lambda: store.feed({"peer": b"x"})).start()
        assert store.get("peer") == b"x"  # longer than the deadline, which counts from the first table

    def test_a_peer_that_does_not_turn_up_is_named(self) -> None:
        store, _, _ = self.make()
        store.feed({})
        with pytest.raises(CommFault, match="peer"):
            store.get("peer")

    def test_the_end_of_the_membership_ends_a_read(self) -> None:
        store, interrupt, _ = self.make()
        threading.Timer(0.05, lambda: interrupt.end("over")).start()
        with pytest.raises(MembershipOver):
            store.wait_tabled()
