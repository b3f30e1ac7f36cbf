"""Can this machine run the cluster, and what would that change on it?

Every check answers with what is wrong and what to do about it. Nothing here changes anything, except `install`.
"""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path

from cluster import binaries, cgroups, network
from cluster.command import run, succeeds
from cluster.errors import Unsuitable
from cluster.layout import (
    BRIDGE,
    CGROUP_ROOT,
    MACHINE_NETWORK,
    MAX_NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    cache_dir,
    run_dir,
)
from cluster.node_config import CNI_PLUGINS
from cluster.tunables import TUNABLES

# Program (or plugin) that must be there: the Debian package that brings it.
NEEDED = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "nft": "nftables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
_GIB = 1024**3
_MEMORY_BASE, _MEMORY_A_NODE = 1.0, 0.35
_DISK = 5.0


def changes(count: int) -> str:
    """What `up` does to the machine, for people to read before they agree."""
    return f"""`up` will, until `down`:
  - add the bridge {BRIDGE} with {MACHINE_NETWORK}, routes to {POD_NETWORK} over it, and {count} network namespaces;
  - make the cgroup {CGROUP_ROOT}/ in each hierarchy;
  - run as root: etcd, the Kubernetes control plane, CoreDNS, and per node containerd, kubelet and kube-proxy;
  - let the kubelets set {", ".join(TUNABLES)} (`down` puts the old values back);
  - write only below {cache_dir()}, and mount nothing that the machine's own mount namespace sees.
It leaves the machine's firewall, forwarding and DNS settings alone."""


def problems(count: int) -> list[str]:
    """Why this machine cannot run `count` nodes; empty if it can."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        return [f"needs Linux on x86_64 or aarch64, this is {platform.system()} on {platform.machine()}"]
    if os.geteuid() != 0:
        return ["needs root (namespaces, mounts, cgroups): run it with sudo -E"]
    if missing := missing_packages():
        return [f"programs are missing; run: apt-get install -y {' '.join(missing)}   (or use preflight --install)"]
    checks: tuple[Callable[[int], Iterator[str]], ...] = (
        _count,
        _nothing_left,
        _kernel,
        _compiler,
        _cgroups,
        _overlay,
        _addresses,
        _bridge_filter,
        _resources,
    )
    return [problem for check in checks for problem in check(count)]


def demand(count: int) -> None:
    """Refuse, with all the reasons, where `problems` finds any."""
    if found := problems(count):
        raise Unsuitable("this machine cannot run the cluster:\n" + "\n".join(f"  - {each}" for each in found))


def missing_packages() -> list[str]:
    """The Debian packages that the machine lacks."""
    missing = {package for program, package in NEEDED.items() if shutil.which(program) is None}
    if not (CNI_PLUGINS / "bridge").exists():
        missing.add("containernetworking-plugins")
    return sorted(missing)


def install() -> None:
    """Install what is missing with apt-get."""
    if missing := missing_packages():
        print(f"installing {' '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-q"], env=environment, timeout=300)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
        run(command, env=environment, timeout=900)


def _count(count: int) -> Iterator[str]:
    if not 1 <= count <= MAX_NODES:
        yield f"--nodes must be 1 to {MAX_NODES}, not {count}"


def _nothing_left(_: int) -> Iterator[str]:
    if run_dir().exists() or network.namespaces() or network.links() or cgroups.exist():
        yield "a cluster is up, or the rest of one is there; run: python -m cluster down"


def _kernel(_: int) -> Iterator[str]:
    for place in ("/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/kmsg", "/proc/sys/net/ipv4/ip_forward"):
        if not Path(place).exists():
            yield f"the kernel offers no {place}"
    if not succeeds(["unshare", "--mount", "--net", "true"]):
        yield "new mount and network namespaces are not allowed here (a container without privileges?)"
    if not succeeds(["unshare", "--net", "nft", "add", "table", "inet", "drivetrain-try"]):
        yield "nftables does not work in a new network namespace; kube-proxy needs it (modprobe nf_tables)"
    if not succeeds(["unshare", "--net", "ip", "link", "add", "drivetrain-try", "type", "bridge"]):
        yield "the kernel has no bridges (modprobe bridge)"


def _compiler(_: int) -> Iterator[str]:
    if binaries.missing() and shutil.which("go") is None:
        yield f"`go` is not on PATH; install Go {binaries.go_version()} or newer"


def _cgroups(_: int) -> Iterator[str]:
    if missing := cgroups.missing_controllers():
        yield f"cgroup controllers are missing or not mounted: {', '.join(sorted(missing))}"
    for top in cgroups.hierarchies():
        if not os.access(top, os.W_OK) or os.statvfs(top).f_flag & os.ST_RDONLY:
            yield f"{top} is mounted read-only"


def _overlay(_: int) -> Iterator[str]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        options = ",".join(f"{name}dir={folder}/{name}" for name in ("lower", "upper", "work"))
        if not succeeds(["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "none", f"{folder}/merged"]):
            yield f"overlayfs does not work on {cache_dir()}; set DRIVETRAIN_CACHE to a folder on ext4 or xfs"


def clashes(routes: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Which of the machine's routes (as `ip -json route` prints them) lie within our ranges. A route to more than a
    range of ours gives way to it, as routes do; one to a part of it would be shadowed or shadow us."""
    for route in routes:
        if route["dst"] == "default" or route.get("type", "unicast") not in ("unicast", "local"):
            continue
        for ours in (MACHINE_NETWORK, POD_NETWORK, SERVICE_NETWORK):
            if IPv4Network(route["dst"], strict=False).subnet_of(ours):
                yield f"{ours} is in use: {route['dst']} dev {route.get('dev', '?')}"


def _addresses(_: int) -> Iterator[str]:
    yield from clashes(json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"])))


def _bridge_filter(_: int) -> Iterator[str]:
    """Docker makes the machine's firewall see bridged packets, and drop what it does not know."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    filtered = switch.exists() and switch.read_text().strip() == "1"
    if filtered and "-P FORWARD DROP" in run(["iptables", "-S", "FORWARD"]):
        yield f"the firewall drops bridged packets; allow ours: iptables -I FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT"


def _resources(count: int) -> Iterator[str]:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    memory = int(lines["MemAvailable"].split()[0]) * 1024 / _GIB
    if memory < (needed := _MEMORY_BASE + count * _MEMORY_A_NODE):
        yield f"{memory:.1f} GiB of memory are free, {count} nodes need {needed:.1f}"
    disk = shutil.disk_usage(cache_dir()).free / _GIB
    if disk < _DISK:
        yield f"{disk:.1f} GiB are free in {cache_dir()}, {_DISK:.0f} are needed (set DRIVETRAIN_CACHE elsewhere)"
