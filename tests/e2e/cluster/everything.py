"""The chart with everything turned on, installed as for the first time, in a cluster that has what it can use: the APIs
of the Prometheus operator, Secrets with a certificate, a token and a header, and a collector of traces."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from cluster import audit
from cluster.kubectl import kubectl
from cluster.layout import CONTROL_PLANE
from cluster.pki import Authority
from e2e.cluster.conftest import CHART, SYSTEM, helm

Json = dict[str, Any]
TOKEN: Final = "a-scraper's-token"
HEADER: Final = "x-key=traces"
SERVER_NAME: Final = f"drivetrain-metrics.{SYSTEM}.svc"
_MONITORING: Final = {
    "servicemonitors": "ServiceMonitor",
    "podmonitors": "PodMonitor",
    "prometheusrules": "PrometheusRule",
}
_EXCEPT: Final = "$(KUBERNETES_SERVICE_HOST),localhost,127.0.0.1,.svc,.cluster.local"


@dataclass
class Release:
    """What a test asks about."""

    since: int
    """Where the audit log ended before it."""
    authority: Path
    """Of the certificate at the port of metrics."""
    traced: list[tuple[str, str]] = field(default_factory=list)
    """Path and header of what the collector got."""


@contextmanager
def everything_on(namespaces: list[str], folder: Path) -> Iterator[Release]:
    """In the place of the session's release, which comes back afterwards. `namespaces`: watchNamespaces."""
    before = json.loads(helm("get", "values", "drivetrain", "--namespace", SYSTEM, "--output", "json")) or {}
    helm("uninstall", "drivetrain", "--namespace", SYSTEM, "--wait")
    kubectl(
        "delete", "secret/drivetrain-root", "lease/drivetrain-operator", "--namespace", SYSTEM, "--ignore-not-found"
    )
    _apply([_monitoring(plural, kind) for plural, kind in _MONITORING.items()])
    names = [f"crd/{plural}.monitoring.coreos.com" for plural in _MONITORING]
    kubectl("wait", "--for=condition=Established", *names, "--timeout=1h", timeout=60)
    authority = Authority(folder / "pki")
    release = Release(audit.end(), authority.files.cert)
    pair = authority.issue("metrics", "metrics", names=[SERVER_NAME])
    files = {
        "tls.crt": pair.cert.read_text(),
        "tls.key": pair.key.read_text(),
        "ca.crt": authority.files.cert.read_text(),
    }
    _apply(
        [
            _secret("metrics-tls", files, "kubernetes.io/tls"),
            _secret("metrics-token", {"token": TOKEN}),
            _secret("trace-headers", {"headers": HEADER}),
        ]
    )
    values = folder / "values.json"
    try:
        with _collector(release) as address:
            values.write_text(json.dumps({**before, **_values(namespaces, address)}))
            helm(*_INSTALL, "--values", str(values))
            yield release
    finally:
        values.write_text(json.dumps(before))
        helm(*_INSTALL, "--reset-values", "--values", str(values))
        kubectl("delete", "secret", "metrics-tls", "metrics-token", "trace-headers", "--namespace", SYSTEM)


_INSTALL: Final = ("upgrade", "--install", "drivetrain", str(CHART), "--namespace", SYSTEM, "--wait", "--timeout", "1h")


def _values(namespaces: list[str], collector: str) -> Json:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    return {
        "watchNamespaces": namespaces,
        "metrics": {
            "tls": {"secretName": "metrics-tls"},
            "token": {"secretName": "metrics-token"},
            "rules": {"runbooks": "https://runbooks.example"},
        },
        "networkPolicy": {"enabled": True, "scrapers": [prometheus]},
        "templatePolicy": {"enabled": True, "nonRoot": True},
        "trustedCA": {"configMap": "authorities"},
        # Nobody listens there: whoever goes through it all the same does not get far.
        "proxy": {"http": "http://127.0.0.1:9", "except": f"{_EXCEPT},{CONTROL_PLANE}"},
        "traces": {"endpoint": collector, "headers": {"secretName": "trace-headers"}},
        "log": {"level": "debug", "workers": {"format": "json"}},
        "energy": {"settings": {"placement": {}}},
        "commonLabels": {"team": "platform"},
        "commonAnnotations": {"example.com/owner": "platform"},
    }


@contextmanager
def _collector(release: Release) -> Iterator[str]:
    """Takes traces, at the control plane's address, which pods reach."""

    class Collects(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            release.traced.append((self.path, self.headers.get("x-key", "")))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer((str(CONTROL_PLANE), 0), Collects) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{CONTROL_PLANE}:{server.server_port}"
        finally:
            server.shutdown()


def _apply(objects: list[Json]) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def _secret(name: str, texts: dict[str, str], kind: str = "Opaque") -> Json:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": name, "namespace": SYSTEM}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}


def _monitoring(plural: str, kind: str) -> Json:
    """A kind of the Prometheus operator, as far as somebody needs it who only makes objects of it."""
    group = "monitoring.coreos.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
        "versions": [version],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": spec,
    }
