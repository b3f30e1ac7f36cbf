"""A machine on the bench: launchers answer at once and only what a test says, time moves only when told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drivetrain_api.messages import (
    EpochId,
    Form,
    Hello,
    LauncherState,
    ProcessPhase,
    ProcessState,
    Progress,
    Put,
    Table,
)
from drivetrain_api.places import Place
from drivetrain_api.report import Roster, RosterPod
from drivetrain_coordinator.membership import (
    Connected,
    Disconnected,
    Event,
    Identity,
    Machine,
    Output,
    PutKey,
    RosterCame,
    Said,
    Send,
    Tick,
)


class Bench:
    """Pods are single letters; `a1` is the first process of pod `a`."""

    def __init__(self, term: int = 1, per_pod: int = 1) -> None:
        self.machine = Machine(Identity("job", "ns", "job", term, per_pod))
        self.now = 100.0
        self.outputs: list[Output] = []
        self.processes: dict[str, dict[str, ProcessState]] = {}
        self.leaving: set[str] = set()
        self._seq = 0
        self._number = 0
        self._revision = 0

    # --- what a coordinator of a new term finds ---------------------------------------------------------------------

    def hand_over(self, name: str, *given: Form) -> list[Any]:
        """A launcher connects whose process belongs to the first of these memberships, of an earlier term."""
        self.connect(name[0])
        process = ProcessState(
            id=f"{name[0]}/b/{name[1:]}",
            pid=1,
            start_ticks=1,
            phase=ProcessPhase.MEMBER,
            epoch=given[0].epoch,
            formed=True,
            has_state=True,
            step=7,
        )
        self.processes[name[0]] = {name: process}
        return self.say(name[0], forms=list(given), tabled=given[0].epoch)

    # --- events -------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Any]:
        """Messages that the machine sends in answer."""
        self.outputs = self.machine.step(event, self.now)
        return self.messages()

    def messages(self) -> list[Any]:
        return [output.message for output in self.outputs if isinstance(output, Send)]

    def roster(
        self, pods: str, target: int, minimum: int, dead: str = "", draining: str = "", **more: Any
    ) -> list[Any]:
        self._revision += 1
        listed = [RosterPod(uid=pod, name=pod, index=ord(pod) - ord("a"), draining=pod in draining) for pod in pods]
        fields: dict[str, Any] = {"term": 1, "proven_dead": list(dead)} | more
        return self.feed(
            RosterCame(Roster(revision=self._revision, target=target, minimum=minimum, pods=listed, **fields))
        )

    def connect(self, pod: str) -> None:
        self.feed(Connected(Hello(job_uid="job", pod_uid=pod, pod_name=pod, index=ord(pod) - ord("a"), boot="b")))

    def disconnect(self, pod: str) -> list[Any]:
        return self.feed(Disconnected(pod, "b"))

    def say(
        self,
        pod: str,
        forms: list[Form] | None = None,
        tabled: EpochId | None = None,
        progress: Progress | None = None,
    ) -> list[Any]:
        self._seq += 1
        return self.feed(
            Said(
                pod,
                "b",
                LauncherState(
                    seq=self._seq,
                    processes=list(self.processes.get(pod, {}).values()),
                    leaving=pod in self.leaving,
                    forms=forms,
                    tabled=tabled,
                    progress=progress,
                ),
            )
        )

    def change(self, *names: str, **changes: Any) -> list[Any]:
        """Processes change, and their launcher says so."""
        answers: list[Any] = []
        for name in names:
            pod = name[0]
            mine = self.processes.setdefault(pod, {})
            old = mine.get(name) or ProcessState(
                id=f"{pod}/b/{name[1:]}", pid=1, start_ticks=1, phase=ProcessPhase.READY
            )
            mine[name] = old.model_copy(update=changes)
            answers += self.say(pod)
        return answers

    def ready(self, *names: str) -> list[Any]:
        """Pods connect (if they have not yet) with ready processes."""
        answers: list[Any] = []
        for name in names:
            if name[0] not in self.machine.state.launchers:
                self.connect(name[0])
                self.say(name[0], forms=[])
            answers += self.change(name)
        return answers

    def die(self, name: str) -> list[Any]:
        return self.change(name, phase=ProcessPhase.DEAD, signal=9)

    def put(self, name: str, epoch: EpochId) -> list[Any]:
        process = f"{name[0]}/b/{name[1:]}"
        return self.feed(PutKey(name[0], "b", Put(epoch=epoch, process=process, key=process, value="YQ==")))

    def wait(self, seconds: float, heard: Iterable[str] = (), tick: float = 0.25) -> list[Any]:
        """Time passes in ticks; the pods in `heard` send heartbeats."""
        answers: list[Any] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + tick)
            for pod in heard:
                answers += self.say(pod)
            answers += self.feed(Tick())
        return answers

    def at(self, name: str, where: str, **changes: Any) -> list[Any]:
        """The script of this process is now at `operation@line`, and waits there if a `w` follows."""
        place, *marks = where.split()
        operation, _, line = place.partition("@")
        self._number += 1
        there = Place(operation=operation, line=line, number=self._number)
        return self.change(name, place=there, waiting="w" in marks, **changes)

    # --- epochs -------------------------------------------------------------------------------------------------

    def enter(self, form: Form) -> list[Any]:
        """All members enter and put."""
        answers: list[Any] = []
        for member in form.members:
            pod, _, number = member.process.split("/")
            changes: dict[str, Any] = {
                "phase": ProcessPhase.MEMBER,
                "epoch": form.epoch,
                "formed": False,
                "fault": None,
            }
            if member.new:
                changes["has_state"] = False
            answers += self.change(pod + number, **changes)
            answers += self.put(pod + number, form.epoch)
        return answers

    def stand(self, form: Form, step: int = 0) -> None:
        """The epoch is entered, formed, and has committed `step`."""
        self.enter(form)
        names = [member.process[0] + member.process.split("/")[2] for member in form.members]
        self.change(*names, formed=True, has_state=True, step=step)

    def train(self, *names: str, minimum: int | None = None, term: int = 1) -> Form:
        """A job of one-process pods that trains."""
        pods = "".join(dict.fromkeys(name[0] for name in names))
        self.roster(pods, len(pods), len(pods) if minimum is None else minimum, term=term)
        answers = self.ready(*names)
        form = only_form(answers)
        self.stand(form)
        return form


def forms(answers: Iterable[Any]) -> dict[EpochId, Form]:
    """The different forms among the messages."""
    return {answer.epoch: answer for answer in answers if isinstance(answer, Form)}


def only_form(answers: Iterable[Any]) -> Form:
    """The one form among the messages."""
    found = forms(answers)
    assert len(found) == 1, f"expected one form, got {found}"
    return next(iter(found.values()))


def seats(form: Form) -> str:
    """Members as `a1 b2`."""
    return " ".join(member.process[0] + member.process.split("/")[2] for member in form.members)


def tables(answers: Iterable[Any]) -> list[Table]:
    return [answer for answer in answers if isinstance(answer, Table)]
