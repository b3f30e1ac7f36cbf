"""What an operator process is told at its start: flags, or environment variables of the same name. Read by `main` only.

`--reports-url` may be given by `DRIVETRAIN_OPERATOR_REPORTS_URL`, and so on: flags for people, variables for charts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from drivetrain_api.constants import METRICS_PORT, REPORTS_PORT
from drivetrain_api.logline import SETTABLE, LogFormat
from drivetrain_api.logs import LogSettings
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.shape import check_template, peer

ENV_PREFIX: Final = "DRIVETRAIN_OPERATOR_"
REPORTS_SERVICE: Final = "drivetrain-reports"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110: what a header may be called."""
SERVICE_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Settings:
    """One operator process. Names are those of the flags."""

    kubeconfig: str | None
    context: str | None
    namespaces: tuple[str, ...]
    """Namespaces whose jobs are looked after; empty means all."""
    own_namespace: str
    """Where Lease and root Secret are; "" means the namespace of our credentials."""
    identity: str
    """Holder of the Lease: differs for every process that ever ran."""
    image: str
    """Image of coordinator pods: the operator's own."""
    runtime_image: str
    """Image from which an init container brings the workers' runtime; empty: images have to have it."""
    image_pull_secrets: tuple[str, ...]
    """For these images, by name in each job's namespace; the kubelet passes over those that are not there."""
    worker_template: Mapping[str, Any]
    """PodTemplateSpec merged over every worker pod, before its job's own."""
    coordinator_template: Mapping[str, Any]
    """The same for coordinators."""
    reports_host: str
    reports_port: int
    reports_url: str | None
    """Base URL that coordinators report to; None: the reports Service's address, or else `pod_ip`."""
    reports_service: str | None
    """Selectorless Service whose EndpointSlice the leader writes; None where coordinators dial the address itself."""
    pod_ip: str | None
    metrics_host: str
    metrics_port: int
    metrics_token_file: Path | None
    """Bearer token that /metrics asks for; None: it asks for none."""
    metrics_cert_file: Path | None
    metrics_key_file: Path | None
    """Both, and the port speaks TLS; None: in the open."""
    leader_election: bool
    lease_name: str
    lease_seconds: float
    """How long the Lease outlives a leader that vanished; all candidates have to agree on it."""
    workers: int
    resync_seconds: float
    disruption_budgets: bool
    """Whether jobs get PodDisruptionBudgets."""
    history: bool
    """Whether each job's numbers over its time are kept, in a ConfigMap of its own."""
    allow_own_namespace: bool
    """Whether jobs are started in `own_namespace`: their pods can read the root Secret."""
    scrapers: tuple[Mapping[str, Any], ...]
    """NetworkPolicyPeers that may read the metrics of coordinators whose jobs are shut off; none: everybody may."""
    log: LogSettings
    """Of this process, and of coordinators."""
    worker_log: LogSettings
    """Of launchers, and of what Drivetrain prints in ranks."""
    trace_endpoint: str
    """Base URL of an OTLP receiver that gets a trace of each job; "": none does."""
    trace_headers: Mapping[str, str]
    """Sent with each request to it, such as a token."""
    energy_settings: Path | None
    """energy.yaml: sources, tariffs, power domains; None: nothing is known of the grid."""
    energy_credentials: str
    """Folder of the files that it names as credentials."""
    energy_traces: str
    """Folder of the traces that it names."""
    power_limits: str
    """ConfigMap of our namespace in which limits of power domains are written."""
    node_agents: bool
    """Whether node agents run: their reports are read, and they are told caps."""


def parse(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, then environment, then defaults. Exits with a usage message that names the flag."""
    env = os.environ if environ is None else environ
    parser = _parser(env)
    given = parser.parse_args(arguments)
    if given.reports_service and not given.pod_ip:
        parser.error("--reports-service needs --pod-ip: the address that its EndpointSlice shall name")
    if not given.reports_url and not given.pod_ip:
        parser.error("give --reports-url (what coordinators dial), or --pod-ip if they can reach this process directly")
    if given.lease_seconds < 1:
        parser.error(f"--lease-seconds must be at least 1, not {given.lease_seconds:g}")
    if bool(given.metrics_cert_file) != bool(given.metrics_key_file):
        parser.error("--metrics-cert-file and --metrics-key-file: give both, or neither")
    if given.reports_url and not given.reports_url.startswith("https://"):
        parser.error(f"--reports-url must start with https://, not {given.reports_url!r}")
    return Settings(
        kubeconfig=given.kubeconfig,
        context=given.context,
        namespaces=_list(given.namespace),
        own_namespace=given.own_namespace,
        identity=f"{given.identity}_{uuid.uuid4().hex[:8]}",
        image=given.image,
        runtime_image=given.runtime_image,
        image_pull_secrets=_list(given.image_pull_secret),
        worker_template=_template(parser, "--worker-template", given.worker_template),
        coordinator_template=_template(parser, "--coordinator-template", given.coordinator_template),
        reports_host=given.reports_host,
        reports_port=given.reports_port,
        reports_url=given.reports_url.rstrip("/") if given.reports_url else None,
        reports_service=given.reports_service,
        pod_ip=given.pod_ip,
        metrics_host=given.metrics_host,
        metrics_port=given.metrics_port,
        metrics_token_file=_file(given.metrics_token_file),
        metrics_cert_file=_file(given.metrics_cert_file),
        metrics_key_file=_file(given.metrics_key_file),
        leader_election=given.leader_election,
        lease_name=given.lease_name,
        lease_seconds=given.lease_seconds,
        workers=given.workers,
        resync_seconds=given.resync_seconds,
        disruption_budgets=given.disruption_budgets,
        history=given.history,
        allow_own_namespace=given.allow_own_namespace,
        scrapers=_scrapers(parser, given.scraper),
        log=_log(parser, "log", given.log_format, given.log_level),
        worker_log=_log(parser, "worker-log", given.worker_log_format, given.worker_log_level),
        trace_endpoint=_endpoint(parser, given.trace_endpoint),
        trace_headers=_headers(parser, given.trace_header),
        energy_settings=_file(given.energy_settings),
        energy_credentials=given.energy_credentials,
        energy_traces=given.energy_traces,
        power_limits=given.power_limits,
        node_agents=given.node_agents,
    )


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drivetrain-operator",
        description="Runs TrainingJobs: watches them and their pods, and creates what is missing.",
        epilog=f"Every flag can be given as {ENV_PREFIX}<FLAG> in the environment; the flag wins.",
    )

    def option(flag: str, help_text: str, default: str | None = None, *, kind: type = str) -> None:
        given = env.get(ENV_PREFIX + flag.upper().replace("-", "_"), default)
        parser.add_argument(f"--{flag}", default=given, type=kind, help=help_text)

    option("kubeconfig", "kubeconfig file (default: $KUBECONFIG, in-cluster account, ~/.kube/config)")
    option("context", "context of the kubeconfig (default: its current one)")

    def repeated(flag: str, help_text: str) -> None:
        given = env.get(ENV_PREFIX + flag.upper().replace("-", "_"))
        parser.add_argument(f"--{flag}", action="append", default=[given] if given else [], help=help_text)

    repeated("namespace", "look after jobs of this namespace only; may be repeated (default: all namespaces)")
    option(
        "own-namespace",
        "namespace of the Lease and of the root Secret (default: that of the credentials)",
        _own_namespace(env),
    )
    option("identity", "name in the Lease; made unique by a suffix", env.get("POD_NAME") or socket.gethostname())
    option("image", "image of coordinator pods", "drivetrain-operator")
    option("runtime-image", "image that brings the runtime into workers' images (default: none does)", "")
    repeated("image-pull-secret", "Secret in the jobs' namespaces that these are pulled with; may be repeated")
    option("worker-template", "PodTemplateSpec as JSON, merged over every worker pod before its job's own", "{}")
    option("coordinator-template", "the same for coordinator pods", "{}")
    # On one machine, coordinators have loopback addresses of their own and listen on the same ports as we do, so all
    # addresses are listened on only where nobody gave us one.
    host = env.get("POD_IP") or "0.0.0.0"
    option("reports-host", "address that the reports server listens on (default: $POD_IP, else all)", host)
    option("reports-port", "its port; 0 picks a free one", str(REPORTS_PORT), kind=int)
    option("reports-url", "https URL that coordinators report to (default: the reports Service's, else --pod-ip)")
    option("reports-service", "selectorless Service whose EndpointSlice the leader writes")
    option("pod-ip", "this pod's address, for the EndpointSlice", env.get("POD_IP"))
    option("metrics-host", "address of /metrics, /healthz and /readyz (default: $POD_IP, else all)", host)
    option("metrics-port", "their port; 0 picks a free one", str(METRICS_PORT), kind=int)
    option("metrics-token-file", "file with the bearer token that /metrics asks for (default: it asks for none)")
    option("metrics-cert-file", "certificate in PEM: the port of metrics and probes speaks TLS (default: it does not)")
    option("metrics-key-file", "its key; all three files are read again every minute")

    def switch(flag: str, help_text: str, default: str = "true") -> None:
        given = env.get(ENV_PREFIX + flag.upper().replace("-", "_"), default).lower() not in ("false", "0", "no")
        parser.add_argument(f"--{flag}", action=argparse.BooleanOptionalAction, default=given, help=help_text)

    switch("leader-election", "take the Lease before acting; without it, run one replica only")
    switch("disruption-budgets", "a PodDisruptionBudget for each job: evictions take workers one after another")
    switch("history", "keep each job's numbers over its time in a ConfigMap of its own, for drivetrain report")
    switch("allow-own-namespace", "start jobs in --own-namespace, too: their pods can read the root Secret", "false")
    repeated("scraper", "NetworkPolicyPeer as JSON that may read coordinators' metrics; may be repeated (default: all)")
    option("lease-name", "name of the Lease", "drivetrain-operator")
    option("lease-seconds", "how long the Lease outlives a leader that vanished", "15", kind=float)
    option("workers", "jobs that are looked at at the same time", "8", kind=int)
    option("resync-seconds", "every job is looked at again after about this long", "120", kind=float)
    formats, levels = ", ".join(LogFormat), ", ".join(SETTABLE)
    option("log-format", f"of this process and of coordinators: {formats} (text on a terminal, else json)", "auto")
    option("log-level", f"the least that they log: {levels}", "info")
    option("worker-log-format", f"of what Drivetrain itself prints in workers: {formats}", "text")
    option("worker-log-level", f"the least of it: {levels}", "info")
    option(
        "trace-endpoint", "base URL of an OTLP/HTTP receiver, which gets a trace of each job (default: none does)", ""
    )
    repeated("trace-header", "NAME=VALUE, sent to it; may be repeated; better given by the environment")
    option("energy-settings", "energy.yaml: sources, tariffs and power domains; read again as it changes")
    option("energy-credentials", "folder of the credentials that it names", "/etc/drivetrain/energy-credentials")
    option("energy-traces", "folder of the traces that it names", "/etc/drivetrain/energy-traces")
    option("power-limits", "ConfigMap in --own-namespace with limits of power domains (default: none is read)", "")
    switch("node-agents", "node agents run: read their reports in --own-namespace, and tell them caps", "false")
    return parser


def _endpoint(parser: argparse.ArgumentParser, url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        known = False
    if url and not known:
        parser.error(
            "--trace-endpoint must be a URL such as http://collector:4318; a password belongs in --trace-header"
        )
    return url


def _headers(parser: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, str]:
    """Values are secrets: no message has them."""
    headers = {}
    for item in _list(given):
        name, found, value = (part.strip() for part in item.partition("="))
        if not found or not _TOKEN.fullmatch(name) or not value.isprintable():
            parser.error("--trace-header must be NAME=VALUE, with commas between several")
        headers[name] = value
    return headers


def _template(parser: argparse.ArgumentParser, flag: str, text: str) -> Mapping[str, Any]:
    try:
        template = json.loads(text or "{}")
    except ValueError as error:
        parser.error(f"{flag} is no JSON: {error}")
    if not isinstance(template, dict):
        parser.error(f"{flag} must be an object, not {text!r}")
    try:
        check_template(template)
    except InvalidTemplate as error:
        parser.error(f"{flag}: {error.path}: {error.problem}")
    return template


def _log(parser: argparse.ArgumentParser, flag: str, form: str, level: str) -> LogSettings:
    if form not in list(LogFormat):
        parser.error(f"--{flag}-format must be one of {', '.join(LogFormat)}, not {form!r}")
    if level not in SETTABLE:
        parser.error(f"--{flag}-level must be one of {', '.join(SETTABLE)}, not {level!r}")
    return LogSettings(LogFormat(form), level)


def _scrapers(parser: argparse.ArgumentParser, given: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    try:
        return tuple(peer(json.loads(text)) for text in given)
    except ValueError as error:
        parser.error(f"--scraper is no NetworkPolicyPeer as JSON: {error}")


def _file(given: str | None) -> Path | None:
    return Path(given) if given else None


def _list(given: Sequence[str]) -> tuple[str, ...]:
    """Of a flag that may be repeated, with commas in each."""
    return tuple(name for item in given for name in item.split(",") if name)


def _own_namespace(env: Mapping[str, str]) -> str:
    if env.get("POD_NAMESPACE"):
        return env["POD_NAMESPACE"]
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return ""
