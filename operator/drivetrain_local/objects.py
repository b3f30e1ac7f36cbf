"""What is a Kubernetes object here? A plain JSON dict that nobody changes once it is stored.

The API server and the node agent share these few accessors; they never copy an object that they only read.
"""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any

Obj = dict[str, Any]
"""A JSON object. Stored objects are shared between readers and must never be changed in place."""


def clone(obj: Obj) -> Obj:
    """A deep copy that may be changed."""
    return copy.deepcopy(obj)


def meta(obj: Obj) -> Obj:
    """The metadata of an object; an empty dict where there is none, so that reading never fails."""
    value = obj.get("metadata")
    return value if isinstance(value, dict) else {}


def dig(obj: Any, *path: str, default: Any = None) -> Any:
    """Follow keys through nested dicts; `default` as soon as one is missing or null."""
    for key in path:
        if not isinstance(obj, dict):
            return default
        obj = obj.get(key)
    return default if obj is None else obj


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def rfc3339(moment: dt.datetime) -> str:
    """metav1.Time: whole seconds, `Z`."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: dt.datetime) -> str:
    """metav1.MicroTime: six digits, `Z`."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> dt.datetime:
    """Read either kind of timestamp; nanoseconds are cut to microseconds."""
    text = text.replace("Z", "+00:00")
    head, dot, tail = text.partition(".")
    if dot:
        digits = tail[: next((i for i, c in enumerate(tail) if not c.isdigit()), len(tail))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
    return dt.datetime.fromisoformat(text)
