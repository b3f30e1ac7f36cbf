"""Which programs does the cluster run, and how are they built?

Each upstream has a wrapper module under `go/` that pins it with its go.sum; upstreams are never mixed in one module,
because version selection would then move their dependencies. The result lies outside the checkout, under a name that is
a hash of the wrappers and the flags, so it is built once and never stale.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError, CommandFailed
from cluster.layout import cache_dir

WRAPPERS = Path(__file__).parent / "go"
FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-tags=selinux,notest,grpcnotrace")


@dataclass(frozen=True)
class Binary:
    """One program: the package that it is built from, and its usual cold build time on two cores."""

    name: str
    wrapper: str
    package: str
    seconds: int


# Small ones first, so that nobody who needs only kubectl or helm waits for the API server. Within Kubernetes the order
# is by size too: each one reuses the packages that those before it compiled.
BINARIES = (
    Binary("pause", "pause", ".", 5),
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3", 35),
    Binary("kube-router", "kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", 75),
    Binary("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", 60),
    Binary("coredns", "coredns", ".", 50),
    Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm", 95),
    Binary("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", 65),
    Binary("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet", 100),
    Binary("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", 5),
    Binary("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", 65),
    Binary("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", 5),
)


def bin_dir() -> Path:
    """Where the programs of this checkout's wrappers are, or will be."""
    digest = hashlib.sha256()
    for file in sorted(WRAPPERS.glob("*/*")):
        digest.update(f"{file.parent.name}/{file.name}\n".encode() + file.read_bytes())
    digest.update(repr((FLAGS, [(each.name, each.package, stamp(each)) for each in BINARIES])).encode())
    return cache_dir() / f"cluster-{digest.hexdigest()[:12]}" / "bin"


def binary(name: str) -> Path:
    """The built program `name`; an error that says how to build it if it is not there."""
    path = bin_dir() / name
    if not path.exists():
        raise ClusterError(f"{name} is not built; run: python -m cluster build")
    return path


def missing(*names: str) -> list[Binary]:
    """What `build` would still have to build; of all programs, or of these."""
    return [each for each in BINARIES if (not names or each.name in names) and not (bin_dir() / each.name).exists()]


def kubernetes_version() -> str:
    """As in `v1.36.3`."""
    return _version("kubernetes", "k8s.io/kubernetes")


def go_version() -> str:
    """The oldest Go that builds Kubernetes."""
    found = re.search(r"^go (\S+)$", (WRAPPERS / "kubernetes" / "go.mod").read_text(), re.MULTILINE)
    assert found is not None  # `go mod tidy` writes that line into every go.mod
    return found[1]


def build(*names: str) -> Path:
    """Build what is not there yet (of these, if there are names), one program after the other, and return the folder.
    Interrupted builds go on where they were: Go keeps the compiled packages."""
    if unknown := set(names) - {each.name for each in BINARIES}:
        raise ClusterError(f"there is no program {min(unknown)!r}: {', '.join(each.name for each in BINARIES)}")
    target = bin_dir()
    if not missing(*names):
        return target
    if shutil.which("go") is None:
        raise ClusterError(f"`go` is not on PATH; install Go {go_version()} or newer")
    target.mkdir(parents=True, exist_ok=True)
    todo = missing(*names)
    print(f"building {len(todo)} programs into {target}; about {sum(b.seconds for b in todo) // 60 + 1} min cold")
    for position, each in enumerate(todo, 1):
        with (target.parent / f"{each.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # whoever needs one program waits for that one, and for no other
            if (target / each.name).exists():
                continue
            print(f"[{position}/{len(todo)}] {each.name}, usually {each.seconds} s on 2 cores ...", end=" ", flush=True)
            started = time.monotonic()
            _compile(each, target)
            print(f"done in {time.monotonic() - started:.0f} s", flush=True)
    return target


def _compile(each: Binary, target: Path) -> None:
    unfinished = target / f".{each.name}"
    command = ["go", "build", *FLAGS, "-ldflags", stamp(each), "-o", str(unfinished), each.package]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    result = subprocess.run(command, cwd=WRAPPERS / each.wrapper, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise CommandFailed(f"building {each.name} failed:\n{result.stderr[-4000:]}")
    unfinished.rename(target / each.name)


def stamp(each: Binary) -> str:
    """Linker flags with the version. An unstamped Kubernetes says v0.0.0-master, which breaks Helm's kubeVersion
    check."""
    flags = "-s -w"
    if each.wrapper == "kubernetes":
        version = kubernetes_version()
        major, minor, _ = version.removeprefix("v").split(".")
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            flags += f" -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
            flags += f" -X {package}.gitTreeState=clean"
    if each.wrapper == "helm":
        flags += f" -X helm.sh/helm/v4/internal/version.version={_version('helm', 'helm.sh/helm/v4')}"
    return flags


def _version(wrapper: str, module: str) -> str:
    text = (WRAPPERS / wrapper / "go.mod").read_text()
    found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ClusterError(f"go/{wrapper}/go.mod requires no {module}")
    return found[1]
