"""One collective in flight on gloo: waited for, or abandoned with its membership."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.waiting import Waiting
from drivetrain.errors import CommFault
from drivetrain.telemetry.flight import State

if TYPE_CHECKING:
    from drivetrain.comm.transport import Transport

WAIT_SECONDS: Final = 24 * 3600.0
"""Bound on one collective. Detecting a stuck job is the coordinator's business, not a rank's guess."""


class Pending:
    """One operation in flight."""

    def __init__(self, transport: Transport, work: Any, tensors: Sequence[torch.Tensor], what: str) -> None:
        self._transport = transport
        self._work = work
        self._tensors = tensors
        self._what = what
        self._future = work.get_future()
        self._ticket = transport.calls.begin(what, tensors[-1].nbytes, tensors[-1].dtype)

    def _arm(self, notify: Callable[[], None]) -> None:
        # Only of those that are waited for: the callback runs on one of gloo's threads, which then needs Python's lock.
        self._future.add_done_callback(lambda _: notify())

    def wait(self) -> None:
        """Wait until the result is in the tensors. Raises `MembershipOver` or `CommFault`: the tensors are lost."""
        if not self.done:
            with Waiting(self._transport, self._ticket):
                self._transport.interrupt.wait(self._arm, WAIT_SECONDS, self._what)
                self._check()
        else:
            self._transport.interrupt.check()
            self._check()
        self._transport.forget_done()

    def _check(self) -> None:
        try:
            self._future.value()
        except RuntimeError as error:
            self.note(State.FAILED)
            raise CommFault(f"{self._what}: {error}") from error

    def note(self, state: State) -> None:
        """Have the flight recorder know how it ended, if it does not."""
        self._transport.calls.end(self._ticket, state)

    @property
    def done(self) -> bool:
        """Over, well or badly: nothing writes to the tensors any more."""
        return bool(self._future.done())

    def abandon(self, quarantine: Quarantine) -> None:
        """Hand the tensors over to `quarantine` unless the operation is over."""
        if not self.done:
            self.note(State.ABANDONED)
            quarantine.hold(lambda: self.done, self._transport.process_group, self._tensors, self._work)
