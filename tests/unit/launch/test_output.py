"""What ranks print, with and without somebody who reads it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

from drivetrain.launch.output import TAIL_BYTES, TAIL_LINES, Console, OutputPump
from harness.patience import patiently
from unit.launch.stub_coordinator import eventually


async def _pump(console: Console, feed: Callable[[int], object]) -> OutputPump:
    """Pump what `feed` writes (in a thread, as a rank would) until its end."""
    read_end, write_end = os.pipe()
    pump = OutputPump(read_end, console, lambda: "[rank 2] ")
    pump.attach(asyncio.get_running_loop())

    def write() -> None:
        feed(write_end)
        os.close(write_end)

    async with patiently(30):
        await asyncio.to_thread(write)
    pump.drain()
    pump.detach()
    os.close(read_end)
    return pump


async def test_lines_get_their_prefix_and_the_last_ones_are_kept() -> None:
    read_end, write_end = os.pipe()
    console = Console(write_end, lambda count: b"%d lines dropped, stdout stood still" % count)
    pump = await _pump(console, lambda fd: os.write(fd, b"".join(b"line %d\n" % n for n in range(100)) + b"no end"))
    console.close()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        lines = file.read().decode().splitlines()
    assert lines == [f"[rank 2] line {n}" for n in range(100)] + ["[rank 2] no end"]
    assert pump.tail().splitlines() == [line.removeprefix("[rank 2] ") for line in lines[-TAIL_LINES:]]


async def test_a_stalled_stdout_slows_ranks_down_but_never_stops_them() -> None:
    read_end, write_end = os.pipe()
    console = Console(write_end, lambda count: b"%d lines dropped, stdout stood still" % count)
    line = b"x" * 1000 + b"\n"

    def feed(fd: int) -> None:
        data = line * 5000  # 5 MB; pipe, queue and reserve hold half of that.
        while data:
            data = data[os.write(fd, data[: 1 << 16]) :]

    pump = await _pump(console, feed)
    assert len(pump.tail()) == TAIL_BYTES
    # Now somebody reads again: the gap is told.
    assert console.queued > 0
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(_read_all(read_end)))
    reader.start()
    await eventually(lambda: console.queued == 0)
    console.line(b"after")
    console.close(10.0)
    os.close(write_end)
    reader.join(10.0)
    os.close(read_end)
    assert b"lines dropped, stdout stood still\nafter\n" in received[0]


def _read_all(fd: int) -> bytes:
    found = b""
    while data := os.read(fd, 1 << 20):
        found += data
    return found
