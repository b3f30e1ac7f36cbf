"""Stand-in ranks of which three stop after some steps, each in its own way, and the fourth waits for them."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

from drivetrain.launch.rank_link import RankLink
from drivetrain_api.messages import EpochId
from unit.launch.stand_in import StandIn

STEPS = 20
FIRST = EpochId(1, 1)


class Late(StandIn):
    """One of the ranks: the first member of its pod hangs as `hang` has it."""

    def __init__(self, link: RankLink) -> None:
        super().__init__(link)
        self.calls = link.calls("world", FIRST)

    def between(self) -> None:
        if self.epoch != FIRST:
            return
        if self.step != STEPS:
            self.calls.end(self.calls.begin("all-reduce", 4, "float32"))
            return
        self.link.at("script", self.step, "late.py:1")
        hang(int(os.environ["DRIVETRAIN_INDEX"]))
        self.link.at("step", self.step + 1, "late.py:2")
        self.calls.wait(self.calls.begin("all-reduce", 4, "float32"))
        while self.epoch == FIRST or not self.formed:
            self.link.set_waiting(True)
            time.sleep(0.01)
        self.link.set_waiting(False)


def hang(index: int) -> None:
    """Never comes back, except in the first pod."""
    if index == 1:
        time.sleep(1000)  # in the script's own code
    elif index == 2:
        threading.Event().wait(1000)  # in somebody else's, called from the script
    elif index == 3:
        library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)  # in C code that holds the interpreter


def main() -> int:
    link = RankLink.from_environment()
    assert link is not None
    rank = Late(link)
    link.wait_activated()
    link.on_form(rank.enter)
    link.on_table(rank.connect)
    link.on_finish(rank.over.set)
    rank.tell()
    rank.train()
    return 0


if __name__ == "__main__":
    sys.exit(main())
