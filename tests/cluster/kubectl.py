"""The administrator's kubectl, as functions."""

import json
import os
from typing import Any

from cluster.binaries import binary
from cluster.command import run
from cluster.layout import kubeconfig


def environment() -> dict[str, str]:
    """An environment in which kubectl and helm talk to this cluster, and are found first."""
    path = f"{binary('kubectl').parent}:{os.environ.get('PATH', '')}"
    return {**os.environ, "KUBECONFIG": str(kubeconfig()), "PATH": path}


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
    """Run kubectl; CommandFailed carries what it said."""
    return run([str(binary("kubectl")), *arguments], stdin=stdin, env=environment(), timeout=timeout)


def get(*arguments: str) -> dict[str, Any]:
    """`kubectl get` as a dictionary."""
    found: dict[str, Any] = json.loads(kubectl("get", *arguments, "-o", "json"))
    return found


def node_is_ready(node: dict[str, Any]) -> bool:
    """Whether the node's Ready condition is True."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
