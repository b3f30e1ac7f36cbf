"""Slow links between ranks on one machine: a network namespace for each, joined by a bridge, each sending at a rate.

Each namespace has one end of a veth pair as its `eth0`, shaped by a token bucket (tc-tbf(8)); the other end is in the
bridge. Everything goes when the context ends, whatever happened. Needs root; `CannotLink` says what else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NEW_NETWORK, _NEW_HOST_NAME = 0x40000000, 0x04000000
"""CLONE_NEWNET and CLONE_NEWUTS of <sched.h>."""


@dataclass(frozen=True)
class Rate:
    """How fast a rank can send."""

    name: str
    """As tc writes it."""
    bits: float
    """A second."""
    burst: str
    """As much passes at once after a pause: what 2 ms bring, or a packet of the largest size. With less, a busy machine
    that wakes the queue late makes the link slower than it should be (1 Gbit/s with 64 kB: a quarter, measured)."""
    repetitions: dict[int, int]
    """Of a collective, by MB (2²⁰ bytes) of fp32."""


RATES: Final = (
    Rate("1gbit", 1e9, "256kb", {4: 9, 16: 9, 64: 3}),
    Rate("100mbit", 1e8, "64kb", {4: 3, 16: 3, 64: 1}),
)


@dataclass(frozen=True)
class Link:
    """One rank's place in the network."""

    namespace: str
    address: str


class CannotLink(Exception):
    """This machine does not let us."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotLink(f"{' '.join(command)}: {done.stderr.strip()}")


def _needs_root() -> None:
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        raise CannotLink(f"{' and '.join(missing)} missing")
    if os.geteuid() != 0:
        raise CannotLink("network namespaces need root")


@contextlib.contextmanager
def quiet() -> Iterator[str]:
    """A namespace with nothing but a loopback interface; its name. Raises `CannotLink`."""
    _needs_root()
    name = f"bench{os.getpid()}-lo"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _run("ip", "netns", "delete", name)


@contextlib.contextmanager
def linked(world: int, rate: Rate) -> Iterator[list[Link]]:
    """`world` namespaces whose ranks send at `rate` at most. Raises `CannotLink`."""
    _needs_root()
    bridge = f"bench{os.getpid()}"
    links = [Link(f"{bridge}-{rank}", f"10.231.0.{rank + 1}") for rank in range(world)]
    with contextlib.ExitStack() as undo:
        _run("ip", "link", "add", bridge, "type", "bridge")
        undo.callback(_run, "ip", "link", "delete", bridge)
        _run("ip", "link", "set", bridge, "up")
        for rank, link in enumerate(links):
            _run("ip", "netns", "add", link.namespace)
            undo.callback(_run, "ip", "netns", "delete", link.namespace)
            outer = f"{bridge}v{rank}"
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", link.namespace)
            # With its namespace it would go some time later, and be in the way of the next link of this name.
            undo.callback(_run, "ip", "link", "delete", outer)
            _run("ip", "link", "set", outer, "master", bridge, "up")
            _run("ip", "-n", link.namespace, "address", "add", f"{link.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", link.namespace, "link", "set", device, "up")
            shape = ("root", "tbf", "rate", rate.name, "burst", rate.burst, "latency", "400ms")
            _run("tc", "-n", link.namespace, "qdisc", "add", "dev", "eth0", *shape)
        yield links


def enter(namespace: str, address: str | None = None) -> None:
    """Move this process there; call it before the process has threads. `address` becomes its host name, because that
    is where gloo looks for the address to listen on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as file:
        if libc.setns(file.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    if address is not None:
        if libc.unshare(_NEW_HOST_NAME):
            raise OSError(ctypes.get_errno(), "cannot have a host name of its own")
        socket.sethostname(address)
