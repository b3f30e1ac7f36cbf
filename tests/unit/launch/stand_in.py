"""A rank without torch: plays a member over the real RankLink, and misbehaves as `STAND_IN` says.

Its "steps" follow one another every 20 ms while its epoch stands, until SIGUSR1 or
`STAND_IN_STEPS`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from drivetrain.launch.rank_link import RankLink
from drivetrain_api.messages import (
    EpochId,
    Form,
    ProcessPhase,
    Progress,
)


class StandIn:
    """The state of one stand-in rank."""

    def __init__(self, link: RankLink) -> None:
        self.link = link
        self.form: Form | None = None
        self.epoch: EpochId | None = None
        self.formed = False
        self.step = -1
        self.over = threading.Event()
        self.still = False
        self.last = int(os.environ.get("STAND_IN_STEPS", "-1"))

    def enter(self, form: Form) -> None:
        if self.epoch is not None and form.epoch <= self.epoch:
            return
        self.formed = False
        if all(member.process != self.link.process for member in form.members):
            self.link.send_phase(ProcessPhase.READY, epoch=self.epoch, has_state=self.step >= 0, step=self.step)
            return
        self.form, self.epoch = form, form.epoch
        self.tell()
        self.link.put(form.epoch, f"addr/{self.link.process}", b"here")

    def connect(self, epoch: EpochId, entries: dict[str, bytes]) -> None:
        if self.form is not None and epoch == self.epoch and len(entries) == len(self.form.members):
            self.formed = True
            self.tell()

    def tell(self) -> None:
        phase = ProcessPhase.READY if self.epoch is None else ProcessPhase.MEMBER
        self.link.send_phase(phase, epoch=self.epoch, formed=self.formed, has_state=self.formed, step=self.step)

    def between(self) -> None:
        """What the script does between two steps."""

    def train(self) -> None:
        while not self.over.wait(0.02):
            if self.formed and self.step + 1 == self.last:
                self.link.send_phase(ProcessPhase.DONE, epoch=self.epoch, formed=True, has_state=True, step=self.step)
            elif self.formed and not self.still:
                self.between()
                self.link.at("step", self.step + 1, "stand_in.py:1")
                self.step += 1
                self.tell()
                self.link.progress(Progress(step=self.step, loss=1.0), due=True)
                self.link.counters({"joins": 1.0})


def main() -> int:
    mode = os.environ.get("STAND_IN", "")
    link = RankLink.from_environment()
    assert link is not None
    assert "torch" not in sys.modules
    print(f"up {link.spare_level}", flush=True)
    if mode == "raise":
        raise ValueError("the script is wrong")
    if mode == "traceback":
        link.error("Traceback: told over the link")
        link.close()
        return 1
    if mode == "children":
        subprocess.Popen(["sleep", "1001"])
        subprocess.Popen(["sleep", "1002"], start_new_session=True)
        # A daemon: its parent is gone before the rank dies, and it has a session of its own.
        subprocess.run(["sh", "-c", "setsid sleep 1003 & exit 0"], check=True)
    rank = StandIn(link)
    signal.signal(signal.SIGUSR1, lambda number, frame: setattr(rank, "still", True))
    link.wait_activated()
    link.on_form(rank.enter)
    link.on_table(rank.connect)
    link.on_finish(rank.over.set)
    print(f"place {os.environ.get('LOCAL_RANK')}", flush=True)
    if mode != "slow":
        rank.tell()
    rank.train()
    print("finished", flush=True)
    if mode == "long-tail":
        time.sleep(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
