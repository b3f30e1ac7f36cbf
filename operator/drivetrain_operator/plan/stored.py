"""PURE: what of a status that is read is believed?

Only operators write it, and yet anything may stand there: another release wrote it, it came from a backup, or somebody
who may patch status did. What *decides* (which names are used up, who leads, what was charged) is never guessed at: out
of bounds it is refused, and the job is left alone until somebody mends it. What only *describes* is dropped, and so is
written anew. The bounds themselves stand with the fields (`drivetrain_api.status`), and the API server knows them, too.

The same holds for what is about to be written: it has to be readable afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from drivetrain_api.status import MAX_FAILURES, ConditionType, TrainingJobStatus
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.view import JobView

Json = Mapping[str, Any]
Path = tuple[int | str, ...]

DESCRIBES: Final[tuple[Path, ...]] = (
    ("phase",),
    ("reason",),
    ("message",),
    ("observedGeneration",),
    ("selector",),
    ("progress",),
    ("recoveries",),
    ("lastRecoverySeconds",),
    ("lastRecovery",),
    ("goodput",),
    ("energy", "used"),
    ("energy", "plan"),
    ("energy", "order"),
    ("energy", "measured"),
    ("energy", "counting"),
    ("energy", "tried"),
    ("energy", "first"),
    ("energy", "foreseen"),
    ("energy", "summary"),
    ("holdUp",),
    ("takenAway",),
    ("departures",),
    ("corruptions", "*", "what"),
    ("lateRanks",),
    ("budget", "used"),
    ("budget", "summary"),
    ("workers", "current"),
    ("workers", "ready"),
    ("workers", "world"),
    ("workers", "summary"),
    ("membership", "epoch"),
    ("membership", "replaced"),
    ("membership", "replacedFor"),
    ("membership", "replacedMessage"),
    ("membership", "avoidNode"),
    ("conditions", "*", "message"),
    ("conditions", "*", "observedGeneration"),
    ("failures", "*", "node"),
    ("failures", "*", "rank"),
    ("failures", "*", "exitCode"),
    ("failures", "*", "signal"),
    ("failures", "*", "step"),
    ("failures", "*", "logTail"),
)
"""Fields that are dropped if they are out of bounds, with all that is in them; `*` is any element of a list. Every
other field decides something."""
_KNOWN: Final = frozenset(type_.value for type_ in ConditionType)
UNREADABLE: Final = "StatusUnreadable"
"""Reason of the event that tells of such a job: a condition would have to be written into that status."""


class Unreadable(ValueError):
    """The status cannot be believed; the message names the field."""


def read(raw: object) -> tuple[TrainingJobStatus, bool]:
    """The status, and whether something of it was dropped. Raises `Unreadable`."""
    if not isinstance(raw, Mapping):
        raise Unreadable(f"status: must be an object, not {type(raw).__name__}")
    status, mended = _parsed(raw)
    for name, text in (("indices", status.workers.indices), ("seen", status.workers.seen)):
        try:
            slots.parse(text)
        except ValueError as error:
            raise Unreadable(f"status.workers.{name}: {error}") from None
    return status, mended


def writable(status: TrainingJobStatus) -> TrainingJobStatus:
    """`status` as it will be read. Raises `Unreadable` where that would be never: then it must not be written."""
    return read(status_json(status))[0]


def unreadable(job: JobView) -> str:
    """What a person is told of a job that is left alone."""
    return (
        f"{job.unreadable}. No operator wrote that, so nothing is done for this job until it is mended: its pods go "
        "on as they are, and nothing that is lost is replaced. Mend the field with kubectl edit trainingjob "
        f"{job.name} -n {job.namespace} --subresource=status, or delete the job"
    )


def _parsed(raw: Json) -> tuple[TrainingJobStatus, bool]:
    found, mended = raw, False
    while True:
        try:
            return TrainingJobStatus.model_validate(found), mended
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
        if not mended:
            found, mended = copy.deepcopy(dict(raw)), True
        for problem in problems:
            # Each round leaves less; a list that is cut may show what is wrong in it in the next.
            if not _mend(found, problem):
                raise Unreadable(_told(problem))


def _mend(raw: Any, problem: ErrorDetails) -> bool:
    """Drop what has this problem, if it only describes and is there to be dropped."""
    where = problem["loc"]
    if problem["type"] == "too_long" and where == ("failures",):
        raw["failures"] = raw["failures"][-MAX_FAILURES:]  # the oldest go first here, too
        return True
    if problem["type"] == "too_long" and where == ("conditions",):
        before, raw["conditions"] = raw["conditions"], [each for each in raw["conditions"] if _is_known(each)]
        return len(raw["conditions"]) < len(before)
    found = next((path for path in DESCRIBES if _begins(where, path)), None)
    if found is None:
        return False
    parent: Any = raw
    for step in where[: len(found) - 1]:
        parent = parent[step]
    last = where[len(found) - 1]
    if not isinstance(parent, dict) or last not in parent:
        return False
    del parent[last]
    return True


def _is_known(condition: object) -> bool:
    return isinstance(condition, Mapping) and condition.get("type") in _KNOWN


def _begins(where: Path, path: Path) -> bool:
    return len(where) >= len(path) and all(b in ("*", a) for a, b in zip(where, path, strict=False))


def _told(problem: ErrorDetails) -> str:
    return f"status.{'.'.join(str(step)[:64] for step in problem['loc'])}: {problem['msg']}"
