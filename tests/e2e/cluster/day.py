"""A day that is played in minutes: a feed of carbon intensities in the cluster, slow at first, which then dies."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from cluster import project
from cluster.kubectl import kubectl

FEED: Final = "feed"
HOUR: Final = 12.0
"""Seconds."""
DIRTY, GREEN = 500.0, 50.0
SHAPE: Final = (*[DIRTY] * 8, *[GREEN] * 5, *[DIRTY] * 6, *[GREEN] * 8, *[DIRTY] * 8)
"""It is dirty for long at first: an operator may take a minute to be there."""
DEADLINE: Final = 27
"""Hours after its beginning."""
SERVER: Final = """
import http.server, json, os, time, datetime

BEGAN, HOUR, SHAPE = float(os.environ["BEGAN"]), float(os.environ["HOUR"]), json.loads(os.environ["SHAPE"])
asked = 0


class Feed(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        if asked == 1:
            time.sleep(12)  # longer than anybody waits
        stamp = lambda at: datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat()
        points = [
            {"location": "GRID", "timestamp": stamp(BEGAN + i * HOUR), "duration": HOUR / 60, "value": value}
            for i, value in enumerate(SHAPE)
        ]
        body = json.dumps([{"location": "GRID", "generatedAt": stamp(BEGAN), "forecastData": points}]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", 8000), Feed).serve_forever()
"""
SETTINGS: Final[dict[str, Any]] = {
    "sources": [
        {
            "name": "day",
            "provider": "carbonAwareSdk",
            "measure": "average",
            "zones": ["GRID"],
            "baseURL": f"http://{FEED}:8000",
        }
    ],
    "powerDomains": [{"name": "hall-1", "nodeSelector": {"kubernetes.io/os": "linux"}, "zone": "GRID"}],
}


@dataclass(frozen=True, slots=True)
class Day:
    """When it began, in seconds since 1970."""

    began: float

    def at(self, hour: float) -> float:
        return self.began + hour * HOUR

    def deadline(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.at(DEADLINE)))

    def intensity(self, at: float) -> float:
        return SHAPE[min(max(int((at - self.began) // HOUR), 0), len(SHAPE) - 1)]


def feed(namespace: str, began: float) -> str:
    """Objects of the feed, as kubectl takes them."""
    meta = {"name": FEED, "namespace": namespace, "labels": {"app": FEED}}
    variables = {"BEGAN": began, "HOUR": HOUR, "SHAPE": json.dumps(SHAPE)}
    container = {
        "name": FEED,
        "image": project.OPERATOR_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", SERVER],
        "env": [{"name": name, "value": str(value)} for name, value in variables.items()],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
    ports = [{"port": 8000}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"app": FEED}, "ports": ports},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, service]})


def ends(namespace: str) -> None:
    """The feed dies."""
    kubectl("delete", "pod", FEED, "--namespace", namespace, "--grace-period=0", "--force", "--ignore-not-found")
