"""`run.process_group`: torch.distributed's default group for the script, made anew for each membership."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Backend, HashStore, Store, TCPStore

from drivetrain.comm.backend import NAME, InterruptibleBackend
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.comm.wait import Interrupt

_SECONDS = 30.0
"""For peers that ask for the group, too, or for a subgroup."""


class ScriptGroup:
    """Holds torch's default group. One a process, because torch has one."""

    _current: tuple[Transport, str | None] | None = None
    """What the backend's factory needs: torch hands it nothing of ours, and calls it for subgroups as well."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._made_for: Transport | None = None
        self._alone: Transport | None = None

    def of(self, transport: Transport | None) -> dist.ProcessGroup:
        """The default group of this membership; all its ranks ask for it at the same place. Raises `Interrupted`.

        None: a group of this process alone.
        """
        if transport is None:
            transport = self._alone = self._alone or _alone()
        if self._made_for is not transport:
            self.destroy()
            if NAME not in dist.Backend.backend_list:
                dist.Backend.register_backend(NAME, _create, extended_api=True, devices=["cpu", "cuda"])
            ScriptGroup._current = (transport, self._address)
            store = _common_store(transport, self._address)
            dist.init_process_group(NAME, store=store, rank=transport.rank, world_size=transport.world)
            self._made_for = transport
        group = dist.group.WORLD
        assert group is not None
        return group

    def destroy(self) -> None:
        """Forget the group of an earlier membership."""
        if self._made_for is not None:
            self._made_for = None
            if dist.is_initialized():  # a script may have done it itself
                dist.destroy_process_group()

    def close(self) -> None:
        """Forget all groups: the process ends."""
        self.destroy()
        if self._alone is not None:
            self._alone.close(Quarantine())


def _alone() -> Transport:
    interrupt = Interrupt()
    return Transport(connect_gloo(HashStore(), 0, 1, interrupt, _SECONDS, "127.0.0.1"), 0, 1, interrupt)


def _common_store(transport: Transport, address: str | None) -> Store:
    """A TCPStore on rank 0: scripts make subgroups of their own, with keys that no coordinator should carry."""
    limit = timedelta(seconds=_SECONDS)
    host = address or "127.0.0.1"
    where = torch.zeros(256, dtype=torch.uint8)
    server: TCPStore | None = None
    if transport.rank == 0:
        server = TCPStore(host, 0, None, is_master=True, timeout=limit, wait_for_workers=False)
        text = f"{host} {server.port}".encode()
        where[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    transport.broadcast(where, 0)
    if server is not None:
        return server
    host, port = bytes(where.tolist()).rstrip(b"\0").decode().split()
    made = transport.interrupt.call(
        lambda: TCPStore(host, int(port), None, is_master=False, timeout=limit, wait_for_workers=False),
        _SECONDS,
        "the store of the script's groups",
    )
    assert isinstance(made, Store)
    return made


def _create(options: Any, _: Any) -> Backend:
    assert ScriptGroup._current is not None
    transport, address = ScriptGroup._current
    rank, size = options.group_rank, options.group_size
    group = connect_gloo(options.store, rank, size, transport.interrupt, _SECONDS, address)
    return InterruptibleBackend(group, rank, size, transport)
