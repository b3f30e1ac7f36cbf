"""The control plane: etcd, API server, controller manager, scheduler and DNS, as processes of the machine itself.

It runs in the machine's own network namespace, so cutting off any node leaves it alone. It is not a node.
"""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cluster import audit
from cluster.binaries import binary
from cluster.errors import ClusterError
from cluster.layout import (
    API_SERVER,
    CONTROL_PLANE,
    DNS_DOMAIN,
    KUBERNETES_SERVICE,
    SERVICE_NETWORK,
    kubeconfig,
    run_dir,
)
from cluster.pki import Authority, Credential, service_account_key
from cluster.processes import Daemon, start, wait_until

_ETCD = "http://127.0.0.1:23790"
_START_SECONDS = 90


@dataclass(frozen=True)
class ControlPlane:
    """The daemons that may still be coming up when `start_control_plane` returns."""

    controllers: Daemon
    scheduler: Daemon
    dns: Daemon


def start_control_plane(authority: Authority) -> ControlPlane:
    """Start all five and wait until the API server is ready; the rest come up while nodes are made."""
    folder = run_dir() / "control-plane"
    folder.mkdir(parents=True)
    etcd = start("etcd", _etcd(folder / "etcd"))
    wait_until(lambda: _answers(f"{_ETCD}/health", None), "etcd is healthy", etcd, _START_SECONDS)
    tokens = service_account_key(folder / "service-account.key")
    admin = authority.issue("probe", "probe", groups=["system:masters"])
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(audit.POLICY))
    api_server = start("kube-apiserver", _api_server(authority, tokens, policy))
    context = _trust(authority, admin)
    wait_until(lambda: _answers(f"{API_SERVER}/readyz", context), "the API server is ready", api_server, _START_SECONDS)
    authority.kubeconfig(kubeconfig(), "admin", "system:masters")
    return ControlPlane(
        controllers=start("kube-controller-manager", _controller_manager(authority, folder, tokens)),
        scheduler=start("kube-scheduler", _scheduler(authority, folder)),
        dns=start("coredns", _coredns(authority, folder)),
    )


def _etcd(data: Path) -> list[str]:
    return [
        str(binary("etcd")),
        f"--data-dir={data}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:23800",
        "--initial-advertise-peer-urls=http://127.0.0.1:23800",
        "--initial-cluster=default=http://127.0.0.1:23800",
        "--unsafe-no-fsync",  # nobody needs this cluster after a power cut
        "--log-level=warn",
    ]


def _api_server(authority: Authority, tokens: Path, audited: Path) -> list[str]:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    serving = authority.issue(
        "api-server", "kube-apiserver", names=names, addresses=[CONTROL_PLANE, KUBERNETES_SERVICE]
    )
    to_kubelets = authority.issue("api-server-to-kubelets", "kube-apiserver", groups=["system:masters"])
    to_extensions = authority.issue("front-proxy", "front-proxy-client")
    ca = authority.files.cert
    return [
        str(binary("kube-apiserver")),
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={CONTROL_PLANE}",
        f"--bind-address={CONTROL_PLANE}",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        # As OpenShift has it: who makes a child that blocks its owner's deletion has to be allowed that.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        f"--audit-policy-file={audited}",
        f"--audit-log-path={audit.log()}",
        f"--client-ca-file={ca}",
        f"--tls-cert-file={serving.cert}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-client-certificate={to_kubelets.cert}",
        f"--kubelet-client-key={to_kubelets.key}",
        f"--kubelet-certificate-authority={ca}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{DNS_DOMAIN}",
        f"--service-account-key-file={tokens}",
        f"--service-account-signing-key-file={tokens}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged",
        f"--requestheader-client-ca-file={ca}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={to_extensions.cert}",
        f"--proxy-client-key-file={to_extensions.key}",
        "--enable-aggregator-routing=true",  # no kube-proxy here: webhooks are reached at their pods' addresses
        "--profiling=false",
    ]


def _controller_manager(authority: Authority, folder: Path, tokens: Path) -> list[str]:
    ca = authority.files
    return [
        str(binary("kube-controller-manager")),
        *_as(authority, folder, "system:kube-controller-manager"),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={tokens}",
        f"--root-ca-file={ca.cert}",
        f"--cluster-signing-cert-file={ca.cert}",
        f"--cluster-signing-key-file={ca.key}",
        "--node-monitor-grace-period=20s",  # Kubernetes' own is 50 s; a test that cuts a node off would wait for it
        "--node-monitor-period=2s",
        "--bind-address=127.0.0.1",
    ]


def _scheduler(authority: Authority, folder: Path) -> list[str]:
    return [
        str(binary("kube-scheduler")),
        *_as(authority, folder, "system:kube-scheduler"),
        "--bind-address=127.0.0.1",
    ]


def _coredns(authority: Authority, folder: Path) -> list[str]:
    # An administrator, to spare the cluster a ClusterRole that no test asks for.
    user = authority.kubeconfig(folder / "coredns.kubeconfig", "coredns", "system:masters")
    corefile = folder / "Corefile"
    corefile.write_text(
        f""".:53 {{
    bind {CONTROL_PLANE}
    errors
    kubernetes {DNS_DOMAIN} in-addr.arpa {{
        kubeconfig {user}
        pods insecure
        ttl 2
    }}
    cache 2
}}
"""
    )
    return [str(binary("coredns")), f"-conf={corefile}"]


def _as(authority: Authority, folder: Path, user: str) -> list[str]:
    """The flags of a control plane component that talks to the API server as `user`."""
    path = authority.kubeconfig(folder / f"{user.removeprefix('system:')}.kubeconfig", user)
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--leader-elect=false",
        "--profiling=false",
    ]


def _trust(authority: Authority, client: Credential) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.files.cert))
    context.load_cert_chain(client.cert, client.key)
    return context


def _answers(url: str, context: ssl.SSLContext | None) -> bool:
    if not url.startswith(("http://127.", API_SERVER)):
        raise ClusterError(f"{url} is not ours")
    # No proxy from the environment: these addresses exist on this machine only.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
