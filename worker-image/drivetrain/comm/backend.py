"""The torch backend "drivetrain": lets a script's own collectives be interrupted, and quarantined, like ours.

What torch.distributed, DDP, FSDP2, DTensor and pipelining start on a group of this backend runs on gloo below. Two
things differ from gloo: every wait also ends when the membership does, and gloo only ever touches staging copies, so
that a peer which wakes up later cannot write into a tensor that the script uses again. The copies are the price.

A `Work` raises `MembershipOver` from `wait`. A future always completes with its tensors, because C++ code that consumes
futures (DDP without a hook) crashes on exceptions; the values are worthless then, and `run.step`, whose own exchange
comes after them, raises before they reach the optimizer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import torch
from torch._C._distributed_c10d import AllreduceOptions, Work
from torch.futures import Future

from drivetrain.comm.pending import WAIT_SECONDS
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import FOR_EVER, Transport
from drivetrain.comm.waiting import Waiting
from drivetrain.device import mark
from drivetrain.errors import CommFault
from drivetrain.telemetry.flight import Calls, State
from drivetrain.torch_versions import BackendBase

NAME: Final = "drivetrain"

_WITH_FUTURE: Final = frozenset(
    ("allreduce", "broadcast", "reduce", "allgather", "all_gather_single", "gather", "scatter", "all_to_all_single")
)
"""gloo operations whose future tells when they are over. The others (point-to-point, reduce-scatter) need a thread."""

_IN_PLACE: Final = frozenset(("allreduce", "allreduce_coalesced", "broadcast", "reduce"))
"""Their first argument is input and output; that of the others, but for `send`, is output only."""


class Operation:
    """One operation in flight on staging copies of its tensors."""

    def __init__(self, transport: Transport, calls: Calls, group: Any, name: str, args: tuple[Any, ...]) -> None:
        self._what = name.strip("_")
        self._live: list[torch.Tensor] = []
        self._staged: list[torch.Tensor] = []
        self._used_until: list[Callable[[], None]] = []
        """What waits until the script's own kernels are through with each."""
        self._transport = transport
        self._group = group
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._over = False
        self._error: Exception | None = None
        self._called: list[Callable[[], None]] = []
        transport.pass_gate()
        transport.interrupt.check()
        first = self._stage(args[0], filled=name in _IN_PLACE or name == "send")
        self.outputs = [] if name == "send" else list(self._live)
        """The script's tensors that the result will be in."""
        rest = [self._stage(each, filled=True) for each in args[1:]]
        try:
            self._work = getattr(group, name)(first, *rest)
        except RuntimeError as error:
            raise CommFault(f"{self._what}: {error}") from error
        moved = self._staged[len(self.outputs) :] or self._staged
        self._calls = calls
        self._ticket = calls.begin(self._what, sum(each.nbytes for each in moved), moved[0].dtype)
        transport.track(self)
        if name in _WITH_FUTURE:
            self._work.get_future().add_done_callback(lambda future: self._end(future.value))
        else:
            # A limit of gloo's own would be that of the group's forming.
            args = (lambda: self._work.wait(FOR_EVER),)
            threading.Thread(target=self._end, args=args, name=f"drivetrain-{name}", daemon=True).start()

    def _stage(self, argument: Any, *, filled: bool) -> Any:
        if isinstance(argument, torch.Tensor):
            source = argument.detach()
            staged = torch.empty_like(source, memory_format=torch.contiguous_format, device="cpu")
            self._used_until.append(mark(source))
            self._live.append(source)
            self._staged.append(staged.copy_(source) if filled else staged)
            return staged
        if isinstance(argument, (list, tuple)):
            return [self._stage(each, filled=filled) for each in argument]
        return argument

    def _end(self, outcome: Callable[[], object]) -> None:
        # On one of gloo's threads, or a helper's.
        try:
            outcome()
        except RuntimeError as error:
            self._error = error
        self._calls.end(self._ticket, State.DONE if self._error is None else State.FAILED)
        with self._lock:
            if self._error is None and not self._over:
                for live, staged, used in zip(self.outputs, self._staged, self._used_until, strict=False):
                    used()
                    live.copy_(staged)
            self._done.set()
            called, self._called = self._called, []
        for callback in called:
            callback()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, from some thread, when the operation has ended; at once if it has."""
        with self._lock:
            if not self._done.is_set():
                self._called.append(callback)
                return
        callback()

    @property
    def done(self) -> bool:
        """Ended, well or badly."""
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        """Ended badly."""
        return self._error is not None

    def wait(self) -> None:
        """Return when the result is in the script's tensors. Raises `MembershipOver` or `CommFault`."""
        try:
            with Waiting(self._transport, self._ticket):
                self._transport.interrupt.wait(self.when_done, WAIT_SECONDS, self._what)
        except BaseException:
            self._give_up()
            raise
        if self._error is not None:
            raise CommFault(f"{self._what}: {self._error}") from self._error

    def abandon(self, quarantine: Quarantine) -> None:
        """Keep the staging copies until gloo is through with them."""
        self._give_up()
        if not self._done.is_set():
            quarantine.hold(self._done.is_set, self._group, self._staged, self._work)

    def _give_up(self) -> None:
        # With the lock: a copy into the script's tensors is over, or never happens.
        with self._lock:
            self._over = True


class InterruptibleWork(Work):
    """What torch gets for an operation."""

    def __init__(self, operation: Operation, backend: InterruptibleBackend) -> None:
        super().__init__()
        self._operation = operation
        self._backend = backend
        self._future: Future[list[torch.Tensor]] | None = None

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Return True when the result is there; our membership, not `timeout`, is what ends a wait."""
        self._operation.wait()
        return True

    def synchronize(self) -> None:
        """The same."""
        self._operation.wait()

    def is_completed(self) -> bool:
        """Ended, well or badly."""
        return self._operation.done

    def is_success(self) -> bool:
        """Ended well."""
        return self._operation.done and not self._operation.failed

    def result(self) -> list[torch.Tensor]:
        """The tensors with the result."""
        return self._operation.outputs

    def get_future(self) -> Future[list[torch.Tensor]]:
        """Completes with `result()` when the operation ends or the membership does."""
        if self._future is None:
            future: Future[list[torch.Tensor]] = Future()
            self._future = future
            once = threading.Lock()

            def complete() -> None:
                if once.acquire(blocking=False):
                    self._backend.forget(complete)
                    future.set_result(self._operation.outputs)

            self._backend.when_over(complete)
            self._operation.when_done(complete)
        return self._future


class InterruptibleBackend(BackendBase):
    """One group of one membership, on a gloo group of its own."""

    def __init__(self, group: Any, rank: int, size: int, transport: Transport) -> None:
        super().__init__(rank, size)
        self._group = group
        self._transport = transport
        self._calls = transport.calls.of("script")
        self._lock = threading.Lock()
        self._is_over = False
        self._open: set[Callable[[], None]] = set()
        # Not the link's thread: completing a future runs torch code.
        threading.Thread(target=self._watch, name="drivetrain-backend", daemon=True).start()

    def _watch(self) -> None:
        over = threading.Event()
        self._transport.interrupt.on_end(over.set)
        over.wait()
        with self._lock:
            self._is_over = True
            called = list(self._open)
        for callback in called:
            callback()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the membership ends, unless it is forgotten first; at once if it has ended."""
        with self._lock:
            if not self._is_over:
                self._open.add(callback)
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """It need not be called any more."""
        with self._lock:
            self._open.discard(callback)

    def _run(self, name: str, *args: Any) -> Work:
        return InterruptibleWork(Operation(self._transport, self._calls, self._group, name, args), self)

    # --- torch's names and arguments ------------------------------------------------------------------------------

    def getBackendName(self) -> str:
        return NAME

    def name(self) -> str:
        return NAME

    def allreduce(self, tensors: Any, opts: Any) -> Work:
        return self._run("allreduce", tensors, opts)

    def allreduce_coalesced(self, tensors: Any, opts: Any) -> Work:
        return self._run("allreduce_coalesced", tensors, opts)

    def broadcast(self, tensors: Any, opts: Any) -> Work:
        return self._run("broadcast", tensors, opts)

    def reduce(self, tensors: Any, opts: Any) -> Work:
        return self._run("reduce", tensors, opts)

    def allgather(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("allgather", outputs, inputs, opts)

    def all_gather_single(self, output: Any, source: Any, opts: Any) -> Work:
        return self._run("all_gather_single", output, source, opts)

    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("all_gather_single_coalesced", outputs, inputs, opts)

    def allgather_coalesced(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("allgather_coalesced", outputs, inputs, opts)

    def gather(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("gather", outputs, inputs, opts)

    def scatter(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("scatter", outputs, inputs, opts)

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("reduce_scatter", outputs, inputs, opts)

    def reduce_scatter_single(self, output: Any, source: Any, opts: Any) -> Work:
        return self._run("reduce_scatter_single", output, source, opts)

    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        return self._run("reduce_scatter_single_coalesced", outputs, inputs, opts)

    def all_to_all_single(self, output: Any, source: Any, output_splits: Any, source_splits: Any, opts: Any) -> Work:
        return self._run("all_to_all_single", output, source, output_splits, source_splits, opts)

    def barrier(self, opts: Any = None) -> Work:
        return self._run("allreduce", [torch.zeros(1)], AllreduceOptions())

    def send(self, tensors: Any, peer: int, tag: int) -> Work:
        return self._run("send", tensors, peer, tag)

    def recv(self, tensors: Any, peer: int, tag: int) -> Work:
        return self._run("recv", tensors, peer, tag)
