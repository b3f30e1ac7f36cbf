"""Who asked the API server for what, and was it allowed? Its audit log: a line for each answer.

Told are service accounts, but not Kubernetes' own in kube-system. Nodes and administrators are not: of the latter's
requests most are the tests' own.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.layout import logs_dir

POLICY: Final[Mapping[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],  # a watch is told when it begins, all others when they are answered
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Request:
    """One that was answered."""

    user: str
    verb: str
    group: str
    """Empty: the core group."""
    resource: str
    """With its subresource, as in `trainingjobs/status`; empty where it is no resource, as /version."""
    namespace: str = ""
    name: str = ""
    """Empty for lists, watches and creates."""
    code: int = 200
    denied: bool = False
    """By the rules of who may do what. Quotas and other admission answer 403, too, and are none of these."""
    said: str = ""


def log() -> Path:
    """The log of the cluster that is up."""
    return logs_dir() / "audit.log"


def end() -> int:
    """Where the log ends now: what is asked from here on is `requests(end)`."""
    return log().stat().st_size if log().exists() else 0


def requests(since: int = 0) -> list[Request]:
    """All that were answered since then."""
    with log().open("rb") as file:
        file.seek(since)
        return list(read(file.read().decode()))


def read(text: str) -> Iterator[Request]:
    """Requests in a piece of the log. A line that is still being written is left out."""
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        event = json.loads(line)
        about, status = event.get("objectRef") or {}, event.get("responseStatus") or {}
        parts = [about[part] for part in ("resource", "subresource") if about.get(part)]
        yield Request(
            user=event["user"]["username"],
            verb=event["verb"],
            group=about.get("apiGroup", ""),
            resource="/".join(parts),
            namespace=about.get("namespace", ""),
            name=about.get("name", ""),
            code=status.get("code", 0),
            denied=(event.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid",
            said=status.get("message", ""),
        )
