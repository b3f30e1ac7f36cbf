"""While a thread waits for a collective, others want to know: its launcher, and who reads the flight recorder later."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Literal

from drivetrain.telemetry.flight import State

if TYPE_CHECKING:
    from drivetrain.comm.transport import Transport


class Waiting:
    """`with Waiting(transport, ticket): …`: the collective with this ticket has ended when the block has, well or by an
    exception."""

    __slots__ = ("_ticket", "_transport")

    def __init__(self, transport: Transport, ticket: int) -> None:
        self._transport = transport
        self._ticket = ticket

    def __enter__(self) -> None:
        self._transport.blocked(True)
        self._transport.calls.wait(self._ticket)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        transport = self._transport
        transport.blocked(False)
        failed = State.FAILED if transport.interrupt.reason is None else State.ABANDONED
        transport.calls.end(self._ticket, State.DONE if kind is None else failed)
        return False
