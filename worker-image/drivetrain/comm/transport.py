"""One membership epoch's way to move tensors between its ranks: gloo or NCCL below, every wait abandonable above.

The reducer, the state transfer and the torch backend of the same name all go through this; the stages of a pipeline
have connections of their own beside it (neighbours.py). Nothing else in the package touches a torch process group.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import torch
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceOptions,
    AllToAllOptions,
    BroadcastOptions,
    ProcessGroupGloo,
    Store,
)

from drivetrain.comm.nccl import Nccl
from drivetrain.comm.pending import WAIT_SECONDS, Pending
from drivetrain.comm.quarantine import Quarantine, keep_group
from drivetrain.comm.staged import Staged, copy_of, room_for
from drivetrain.comm.store import LinkStore
from drivetrain.comm.wait import Interrupt
from drivetrain.comm.waiting import Waiting
from drivetrain.device import is_here
from drivetrain.errors import CommFault, Interrupted
from drivetrain.telemetry.flight import UNRECORDED, Calls, State
from drivetrain.torch_versions import gloo_of_today

FOR_EVER: Final = timedelta(hours=24)
"""gloo's own time-out. It closes the connection when it fires, so it must never fire before ours."""

_SUM: Final = AllreduceOptions()


class InFlight(Protocol):
    """Something that gloo may still be at when its membership ends."""

    @property
    def done(self) -> bool:
        """Over, well or badly."""

    def wait(self) -> None:
        """Wait until the result is in the tensors. Raises `MembershipOver` or `CommFault`: the tensors are lost."""

    def abandon(self, quarantine: Quarantine) -> None:
        """Put what it may write to into quarantine, unless it is over."""


class Ending(Protocol):
    """Something that has to end with the membership."""

    def abandon(self, quarantine: Quarantine) -> None:
        """Put what gloo may still be at into quarantine."""


class Transport:
    """The ranks of one membership epoch, connected.

    `interrupt` ends the epoch; after that every operation raises, and `abandon()` must be called once.
    `blocked` is told whenever the calling thread enters and leaves a wait.
    """

    def __init__(
        self,
        process_group: Any,
        rank: int,
        world: int,
        interrupt: Interrupt,
        blocked: Callable[[bool], None] = lambda waiting: None,
        secret: bytes = b"",
        calls: Calls = UNRECORDED,
    ) -> None:
        self.process_group: Any = process_group
        self.rank = rank
        self.world = world
        self.interrupt = interrupt
        self.blocked = blocked
        self.calls = calls
        """Where its collectives are noted."""
        self.secret = secret
        """That its ranks know and no message between them has told; empty if there is none (links.py)."""
        self.nccl: Nccl | None = None
        """For gradients on CUDA, if there is any."""
        self.payload_bytes = 0
        """What operations started here have brought or will bring to this rank, by their algorithms and without
        headers: over all ranks, as much as was sent. A ring's all-reduce of S bytes brings 2(N-1)/N S (Patarasuk and
        Yuan 2009)."""
        self._parent: Transport | None = None
        self._gate: Callable[[], None] | None = None
        self._ending: list[Ending] = []
        self._subgroups: list[Transport] = []
        self._pending: deque[InFlight] = deque()
        self._abandoned: list[tuple[list[Any], Sequence[torch.Tensor]]] = []

    def adopt(self, subgroup: Transport) -> None:
        """A group of some of these ranks: abandoned with this one, and counted here."""
        subgroup._parent = self
        self._subgroups.append(subgroup)

    def at_end(self, ending: Ending) -> None:
        """Abandon it with this."""
        self._ending.append(ending)

    def count(self, payload: int) -> None:
        """So many bytes have come."""
        self.payload_bytes += payload
        if self._parent is not None:
            self._parent.count(payload)

    def enter(self, message: bytes, check: Callable[[list[bytes]], None]) -> None:
        """Begin an operation: all ranks send `message`, of the same size. Returns at once; nothing else is sent before
        all have come and `check(messages)`, by rank, has been called, which may raise."""
        source = torch.frombuffer(bytearray(message * self.world), dtype=torch.uint8)
        output = torch.empty_like(source)
        sizes = [len(message)] * self.world
        self._gate = None
        # Not all-gather: gloo's goes around the ring, and wakes a thread of every rank for every other.
        pending = self.all_to_all(output, source, sizes, sizes, "entry")

        def gate() -> None:
            pending.wait()
            data = output.numpy().tobytes()
            check([data[at : at + len(message)] for at in range(0, len(data), len(message))])

        self._gate = gate

    def pass_gate(self) -> None:
        """Wait until all ranks have come to the operation that this one has entered. What `check` raises is raised
        every time."""
        if self._parent is not None:
            self._parent.pass_gate()
        elif self._gate is not None:
            self._gate()
            self._gate = None

    def _start(self, work: Any, tensors: Sequence[torch.Tensor], what: str) -> Pending:
        pending = Pending(self, work, tensors, what)
        self.track(pending)
        return pending

    def track(self, operation: InFlight) -> None:
        """Quarantine this operation, too, if it is still in flight when the membership ends."""
        self.forget_done()
        self._pending.append(operation)

    def forget_done(self) -> None:
        """Let go of the operations that are over, and of their tensors. They end in the order they began in."""
        while self._pending and self._pending[0].done:
            over = self._pending.popleft()
            if isinstance(over, Pending):
                over.note(State.DONE)  # as far as anybody asked

    def _guarded(self, start: Callable[[], Any], what: str) -> Any:
        """Start an operation; gloo raises at once when a connection is known to be broken."""
        self.pass_gate()
        self.interrupt.check()
        try:
            return start()
        except RuntimeError as error:
            raise CommFault(f"{what}: {error}") from error

    def all_reduce(self, tensor: torch.Tensor) -> InFlight:
        """Start summing `tensor` (contiguous) over all ranks, in place. By NCCL if it is on CUDA and there is one."""
        if not is_here(tensor) and (self.nccl is None or not tensor.is_cuda):
            staged = copy_of(tensor)
            return Staged(self.all_reduce(staged), tensor, staged)
        self.count(2 * (self.world - 1) * tensor.nbytes // self.world)
        if self.nccl is not None and tensor.is_cuda:
            self.pass_gate()
            on_device = self.nccl.all_reduce(tensor, self.blocked, self.calls)
            self.track(on_device)
            return on_device
        work = self._guarded(lambda: self.process_group.allreduce([tensor], _SUM), "all-reduce")
        return self._start(work, [tensor], "all-reduce")

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all ranks, by rank. Same shape and dtype everywhere."""
        if not is_here(tensor):
            return [each.to(tensor.device) for each in self.all_gather(copy_of(tensor))]
        self.count((self.world - 1) * tensor.nbytes)
        outputs = [torch.empty_like(tensor) for _ in range(self.world)]
        source = tensor.clone()
        work = self._guarded(
            lambda: self.process_group.allgather([outputs], [source], AllgatherOptions()), "all-gather"
        )
        self._start(work, [*outputs, source], "all-gather").wait()
        return outputs

    def all_gather_into(self, output: torch.Tensor, source: torch.Tensor) -> InFlight:
        """Start gathering the flat `source` of all ranks, by rank, into the flat `output`, world times its size."""
        if not is_here(output):
            staged = room_for(output)
            return Staged(self.all_gather_into(staged, copy_of(source)), output, staged)
        self.count((self.world - 1) * source.nbytes)
        work = self._guarded(
            lambda: self.process_group.all_gather_single(output, source, AllgatherOptions()), "all-gather"
        )
        return self._start(work, [output, source], "all-gather")

    def broadcast(self, tensor: torch.Tensor, root: int) -> None:
        """Copy `tensor` from rank `root` to all. The receiving tensor must be staging memory, never live state."""
        if not is_here(tensor):
            staged = copy_of(tensor)
            self.broadcast(staged, root)
            tensor.copy_(staged)
            return
        self.count(tensor.nbytes if self.rank != root else 0)
        options = BroadcastOptions()
        options.rootRank = root
        options.rootTensor = 0
        work = self._guarded(lambda: self.process_group.broadcast([tensor], options), "broadcast")
        self._start(work, [tensor], "broadcast").wait()

    def all_to_all(
        self,
        output: torch.Tensor,
        source: torch.Tensor,
        output_splits: list[int],
        source_splits: list[int],
        what: str = "all-to-all",
    ) -> InFlight:
        """Start sending `source_splits[r]` leading-dimension rows of the flat `source` to each rank r. `what`: its name
        for people."""
        if not is_here(output):
            staged = room_for(output)
            going = self.all_to_all(staged, copy_of(source), output_splits, source_splits, what)
            return Staged(going, output, staged)
        self.count(output.nbytes - output_splits[self.rank] * output.itemsize)
        work = self._guarded(
            lambda: self.process_group.all_to_all_single(
                output, source, output_splits, source_splits, AllToAllOptions()
            ),
            what,
        )
        return self._start(work, [output, source], what)

    def send(self, tensors: Sequence[torch.Tensor], peer: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Send all `tensors`, run `meanwhile`, and return when they are on their way. They are only read, and lie in
        the processor's memory."""
        what = f"send to rank {peer}"
        works = [
            self._guarded(lambda each=each, tag=tag: self.process_group.send([each], peer, tag), what)  # type: ignore[misc]
            for tag, each in enumerate(tensors)
        ]
        ticket = self.calls.begin("send", sum(each.nbytes for each in tensors), "", peer)
        meanwhile()
        self._point_to_point(works, tensors, what, ticket)

    def receive(
        self, tensors: Sequence[torch.Tensor], peer: int, arrived: Callable[[int], None] = lambda index: None
    ) -> None:
        """Receive into `tensors` (staging memory of the processor, never live state); `arrived(index)` is called in
        their order."""
        what = f"receive from rank {peer}"
        self.count(sum(each.nbytes for each in tensors))
        works = [
            self._guarded(lambda each=each, tag=tag: self.process_group.recv([each], peer, tag), what)  # type: ignore[misc]
            for tag, each in enumerate(tensors)
        ]
        for index in range(len(works)):
            ticket = self.calls.begin("receive", tensors[index].nbytes, tensors[index].dtype, peer)
            self._point_to_point(works[index:], tensors, what, ticket, only_first=True)
            arrived(index)

    def _point_to_point(
        self, works: list[Any], tensors: Sequence[torch.Tensor], what: str, ticket: int, *, only_first: bool = False
    ) -> None:
        # gloo's point-to-point work has no future, and is_completed() stays False: only a blocking wait in a helper
        # thread tells. Without a limit of its own it would give up after that of the group's forming.
        def body() -> None:
            for work in works[:1] if only_first else works:
                work.wait(FOR_EVER)

        try:
            with Waiting(self, ticket):
                self.interrupt.call(body, WAIT_SECONDS, what)
        except Interrupted:
            self._abandoned.append((works, tensors))
            raise

    def barrier(self) -> None:
        """Return when all ranks have called this."""
        self.all_reduce(torch.zeros(1)).wait()

    def abandon(self, quarantine: Quarantine) -> None:
        """End all use of this transport; what is still in flight goes to `quarantine`."""
        if self.nccl is not None:
            self.nccl.abort()
        for each in (*self._ending, *self._subgroups):
            each.abandon(quarantine)
        for pending in self._pending:
            pending.abandon(quarantine)
        self._pending.clear()
        for works, tensors in self._abandoned:
            self.outlast(works, tensors, quarantine)
        self._abandoned.clear()

    def close(self, quarantine: Quarantine) -> None:
        """Abandon it and let go of its groups, whoever still knows this transport: the process is about to end."""
        self.abandon(quarantine)
        for each in self._subgroups:
            each.close(quarantine)
        if self.nccl is not None:
            self.nccl.close()
        self.process_group = None

    def outlast(self, works: list[Any], tensors: Sequence[torch.Tensor], quarantine: Quarantine) -> None:
        """Keep the tensors of abandoned point-to-point operations until each of them has ended, well or badly."""
        done = threading.Event()

        def body() -> None:
            for work in works:
                try:
                    work.wait(FOR_EVER)
                except RuntimeError:
                    continue  # ended by a broken connection: that is an end, too
            done.set()

        quarantine.hold(done.is_set, self.process_group, tensors, works)
        threading.Thread(target=body, name="drivetrain-outlast", daemon=True).start()


def connect_gloo(
    store: Store,
    rank: int,
    world: int,
    interrupt: Interrupt,
    deadline_seconds: float,
    address: str | None,
) -> Any:
    """Connect all ranks of `store` by gloo, listening on `address` (default: what gloo finds for the host name).

    Blocks at most `deadline_seconds` once the rendezvous is complete. Raises `MembershipOver`, or `CommFault` when a
    peer does not turn up.
    """

    def connect() -> Any:
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # a name that torch's stubs leave out
        # The type stubs of torch do not know these names; they are what torchrun's own initialisation uses.
        device = ProcessGroupGloo.create_device(hostname=address) if address else None
        options._devices = [device or ProcessGroupGloo.create_default_device()]
        options._timeout = timedelta(seconds=deadline_seconds)
        group = ProcessGroupGloo(store, rank, world, options)
        keep_group(group)
        group._set_default_timeout(FOR_EVER)
        if isinstance(store, LinkStore):
            store.wait_tabled()
        return gloo_of_today(group)

    return interrupt.call(connect, None, f"forming a group of {world}")
