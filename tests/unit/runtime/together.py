"""Run one function in several processes at once, as ranks would, and collect what each returns.

Children are forked from a server that has loaded all that they need and used nothing of it (`warm.py`): starting one
takes milliseconds.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from torch._C._distributed_c10d import TCPStore

from harness.patience import Patience
from harness.ports import free_port as free_port  # tests of ranks ask for it here
from harness.ports import reserve_port

_context = mp.get_context("forkserver")
_WARM = "unit.runtime.warm"
_context.set_forkserver_preload([_WARM])


def _server() -> None:
    """Start the server that children are forked from, with our search path: Python 3.11 does not pass it on."""
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if old is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = old


class Worlds:
    """Rendezvous for several worlds of the same processes, one after the other: stores that the test serves, so that
    nobody else can take their ports meanwhile. `ports` by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._stores = {
            name: TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for name in dict.fromkeys(names)
        }
        self.ports = {name: store.port for name, store in self._stores.items()}

    @staticmethod
    def enter(port: int) -> None:
        """In a rank: the next `Run` is of this world."""
        os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}


class Ranks:
    """`world` running processes; `pids` by rank. Results come in `results`, an exception as its traceback."""

    def __init__(self, function: Callable[..., Any], world: int, *args: Any) -> None:
        self.world = world
        self._pipes: list[Connection] = []
        self._processes = []
        _server()
        self._port = reserve_port()
        self._store = Worlds([""])  # not one of the ranks: it may end before others have come
        ports = int(self._port.value), self._store.ports[""]
        for rank in range(world):
            ours, theirs = _context.Pipe()
            process = _context.Process(target=_child, args=(theirs, function, rank, world, ports, args), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """By rank."""
        return [process.pid or 0 for process in self._processes]

    def tell(self, rank: int, message: Any) -> None:
        """Send something that the rank's function receives from its `pipe`."""
        self._pipes[rank].send(message)

    def hear(self, rank: int, seconds: float = 60.0) -> Any:
        """The next thing that the rank sent; raises AssertionError with its traceback if it failed."""
        patience = Patience(seconds)
        while not wait([self._pipes[rank]], patience.left()):
            patience.check(f"a word of rank {rank}")
        try:
            kind, value = pickle.loads(self._pipes[rank].recv_bytes())
        except EOFError:
            self._processes[rank].join()
            code = self._processes[rank].exitcode
            raise AssertionError(f"rank {rank} has ended with {code} and said nothing") from None
        if kind == "error":
            raise AssertionError(f"rank {rank}:\n{value}")
        return value

    def results(self, seconds: float = 90.0) -> list[Any]:
        """What each rank returned, by rank."""
        return [self.hear(rank, seconds) for rank in range(self.world)]

    def end(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            process.kill()
            process.join()
        self._port.release()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Pipe:
    """A rank's end: the first argument of its function."""

    def __init__(self, connection: Connection, rank: int, world: int, port: int) -> None:
        self.rank = rank
        self.world = world
        self.port = port
        self._connection = connection

    def meet_at_rank_0(self, address: str = "127.0.0.1") -> None:
        """The next `Run` of all ranks meets in a store of rank 0, as those do that somebody started by hand."""
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
        os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(self.port)}

    def tell(self, value: Any) -> None:
        """Send to the test."""
        self._connection.send_bytes(pickle.dumps(("value", value)))

    def hear(self) -> Any:
        """Receive from the test."""
        return self._connection.recv()


def together(function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
    """Run `function(pipe, *args)` in `world` processes; their return values by rank."""
    with Ranks(function, world, *args) as ranks:
        return ranks.results()


def _child(
    connection: Connection,
    function: Callable[..., Any],
    rank: int,
    world: int,
    ports: tuple[int, int],
    args: tuple[Any, ...],
) -> None:
    import torch

    # A rank may have children (data workers); only this process must end with the test's.
    mp.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    port, store = ports
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    Worlds.enter(store)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        # Python's forkserver says nothing of it, and each rank would load and compile all that by itself.
        assert _WARM in sys.modules, f"`python -c 'import {_WARM}'` fails"
        # Not `send`: torch would pass tensors by shared memory that ends with this process.
        connection.send_bytes(pickle.dumps(("value", function(Pipe(connection, rank, world, port), *args))))
    except BaseException:  # noqa: BLE001  Whatever it was, the test shall read it.
        connection.send_bytes(pickle.dumps(("error", traceback.format_exc())))
    os._exit(0)
