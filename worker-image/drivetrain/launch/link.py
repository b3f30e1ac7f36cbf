"""The launcher's end of the socketpair to one rank: JSON lines, each checked, the malformed dropped.

Raw socket and loop callbacks rather than streams, because at a rank's death all that is left must be read at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from drivetrain_api.bounds import Number, Sentence, Small
from drivetrain_api.counters import Counters
from drivetrain_api.goodput import Spent
from drivetrain_api.holdup import StageTimes
from drivetrain_api.messages import (
    EpochId,
    Form,
    Key,
    Progress,
    Table,
    Value,
)
from drivetrain_api.places import Place

log = logging.getLogger(__name__)

_READ_BYTES: Final = 1 << 18
_LINE_LIMIT: Final = 16 << 20


class _FromRank(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RankHello(_FromRank):
    """The runtime attached. Its pid differs from the spawned one under `sh -c`."""

    type: Literal["hello"]
    pid: Small
    dump_fd: Small | None = None
    """Where `stacks.DUMP_SIGNAL` writes."""
    flight_fd: Small | None = None
    """Where its collectives are noted; None from images that do not, and where `DRIVETRAIN_TELEMETRY` is off."""


class RankPhase(_FromRank):
    """Full state of the rank. It cannot call itself dead: only waitpid can."""

    type: Literal["phase"]
    phase: Literal["starting", "ready", "member", "done"]
    epoch: EpochId | None = None
    formed: bool = False
    has_state: bool = False
    step: Number = -1
    fault: Sentence | None = None
    waiting: bool = False


class RankPlace(Place):
    """Where its script is."""

    type: Literal["place"]


class RankStacks(_FromRank):
    """Where its threads are: the answer to `TellStacks`."""

    type: Literal["stacks"]
    text: str


class RankPut(_FromRank):
    """A rendezvous key."""

    type: Literal["put"]
    epoch: EpochId
    key: Key
    value: Value


class RankProgress(Progress):
    """How far the job is."""

    type: Literal["progress"]


class RankCounters(_FromRank):
    """All counts of this process since its start."""

    type: Literal["counters"]
    counters: Counters


class RankError(_FromRank):
    """Why the process is about to end."""

    type: Literal["error"]
    traceback: str
    remedy: bool = False
    """It asks for a fresh process, and its script did nothing wrong."""


class RankBeat(_FromRank):
    """The link thread runs."""

    type: Literal["beat"]
    spent: Spent = Field(default_factory=dict)
    """Seconds of the script's thread."""
    stages: StageTimes | None = None
    """The same of the steps that it has committed, by stage."""


class ExecFailed(_FromRank):
    """From exec_rank.py: the command could not be started at all."""

    type: Literal["exec_failed"]
    message: str


RankMessage = (
    RankHello
    | RankPhase
    | RankPlace
    | RankStacks
    | RankPut
    | RankProgress
    | RankCounters
    | RankError
    | RankBeat
    | ExecFailed
)
_from_rank: Final[TypeAdapter[RankMessage]] = TypeAdapter(Annotated[RankMessage, Field(discriminator="type")])


class Activate(BaseModel):
    """A spare of level `import` may go on."""

    type: Literal["activate"] = "activate"
    local_rank: int


class Finish(BaseModel):
    """The job is complete: leave `run.batches()`, exit 0."""

    type: Literal["finish"] = "finish"


class Hurry(BaseModel):
    """The pod was told to go: have what is to be kept written now, and from now on with every step."""

    type: Literal["hurry"] = "hurry"


class TellStacks(BaseModel):
    """Answer with the stacks of all threads."""

    type: Literal["stacks"] = "stacks"


class StopRank(BaseModel):
    """End."""

    type: Literal["stop"] = "stop"
    reason: str


ToRank = Activate | Finish | Hurry | TellStacks | StopRank | Form | Table


class Link:
    """Reads once attached to the running loop; sends at any time, keeping what the socket does not take yet."""

    def __init__(self, sock: socket.socket, on_message: Callable[[RankMessage], None]) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._on_message = on_message
        self._received = b""
        self._unsent = b""
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start reading."""
        self._loop = loop
        loop.add_reader(self._socket, self.drain)

    def send(self, message: ToRank) -> None:
        """Send, or keep for later."""
        if self._loop is None:
            return
        self._unsent += message.model_dump_json().encode() + b"\n"
        self._flush()

    def drain(self) -> None:
        """Take all that has arrived."""
        while self._loop is not None:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # No verdict: a closed link is not a death. waitpid will tell.
                self.detach()
                return
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                self._take(line)
            if len(self._received) > _LINE_LIMIT:
                log.error("a rank sent a line without end; its link is closed")
                self.detach()

    def detach(self) -> None:
        """Stop reading and sending. The socket is its process's to close."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._loop = None

    def _take(self, line: bytes) -> None:
        try:
            message = _from_rank.validate_json(line)
        except ValidationError as error:
            log.warning("dropped a message of a rank", extra={"error": str(error), "line": line[:200]})
            return
        self._on_message(message)

    def _flush(self) -> None:
        if self._loop is None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._unsent = b""
        self._loop.remove_writer(self._socket)
