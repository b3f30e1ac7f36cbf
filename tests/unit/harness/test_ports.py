"""Ports and networks that a test got are nobody else's, until it gives them back or dies."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from harness import ports
from harness.ports import Reserved, reserve_network, reserve_port

TRY = "from harness.ports import Reserved; Reserved('port', {!r})"


def test_a_port_is_reserved_before_anybody_listens_on_it() -> None:
    mine = reserve_port()
    with pytest.raises(OSError, match="in use"):
        Reserved("port", mine.value)
    command = [sys.executable, "-c", TRY.format(mine.value)]
    assert b"Address already in use" in subprocess.run(command, capture_output=True, check=False).stderr
    mine.release()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_is_none_that_the_kernel_gives_to_others() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        mine = reserve_port()
        assert other.getsockname()[1] >= ports._given_away_from() > int(mine.value)
        mine.release()


def test_one_on_which_a_stranger_listens_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        monkeypatch.setattr(ports, "_LOWEST", stranger.getsockname()[1])
        monkeypatch.setattr(ports, "_COUNT", 1)
        monkeypatch.setattr(ports, "_given_away_from", lambda: 65_536)
        with pytest.raises(OSError, match="no TCP port"):
            reserve_port()


def test_networks_are_apart_from_those_of_embedded_planes() -> None:
    one, other = reserve_network(), reserve_network()
    assert one.value != other.value
    assert all(2 <= int(each.value.split(".")[1]) < 96 for each in (one, other))
    one.release()
    other.release()
