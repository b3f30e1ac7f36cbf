"""A replica that each rank has whole while it computes, and of whose state it keeps a part between steps (ZeRO)."""

from __future__ import annotations

from drivetrain.comm.transport import Transport
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.division import Place, WhileWhole, Whole
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.work import Work


class Parted(Whole):
    """Each rank has a replica of its own, and a part of what all replicas have alike."""

    def __init__(self, work: Work, divided: Divided) -> None:
        super().__init__(work)
        self._divided = divided

    def enter(self, transport: Transport | None, step: int, forward: Forward, whole: WhileWhole) -> Place:
        place = super().enter(transport, step, forward, whole)
        if self.mesh is not None and self._divided.is_whole:
            self._divided.meet(self.mesh)
            self._divided.cut(self.mesh)
        return place

    def of_script(self, forward: Forward) -> Forward:
        return self._divided.absent.in_forward(forward)

    @property
    def sharded(self) -> Divided:
        return self._divided
