"""Look at what of torch, GPUs, cluster, kubectl, images, addresses and disk is usable here. Exit code 1 if jobs can run
neither on a cluster nor on this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from drivetrain_cli import plane
from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, Where, connect, reachable
from drivetrain_cli.errors import CliError, Exit
from drivetrain_local.address import API_PORT, candidates
from drivetrain_local.node.images import python_environment
from drivetrain_operator.kube.errors import KubeError, NotFound
from drivetrain_operator.kube.resources import LEASES, NODES

_TORCH: Final = """
import json, torch, torch.distributed as dist
print(json.dumps({"version": torch.__version__, "gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available(),
    "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}))
"""
_TORCH_SECONDS: Final = 90.0
_BUILDERS: Final = ("docker", "podman", "buildah")
_IMAGES: Final = ("drivetrain-worker", "drivetrain-operator")


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    """Usable, with a limit that one should know."""
    NO = "no"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer."""

    subject: str
    verdict: Verdict
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain doctor`."""
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """1 if jobs can run nowhere."""
    checks = asyncio.run(_checks(which.where(arguments)))
    width = max(len(check.subject) for check in checks)
    for check in checks:
        print(f"{check.verdict:<5} {check.subject:<{width}}  {check.text}")
    print()
    for line in summary(checks):
        print(line)
    return Exit.OK if usable(checks) else Exit.FAILED


def usable(checks: Sequence[Check]) -> bool:
    """Whether jobs can run somewhere."""
    by_subject = {check.subject: check.verdict for check in checks}
    here = all(by_subject.get(subject) is not Verdict.NO for subject in ("torch", "addresses", "disk", "python"))
    return here or by_subject.get("cluster") is Verdict.OK


def summary(checks: Sequence[Check]) -> list[str]:
    """What follows from the checks."""
    by_subject = {check.subject: check for check in checks}
    missing = [s for s in ("python", "torch", "addresses", "disk") if by_subject[s].verdict is Verdict.NO]
    here = "Jobs can run on this machine (drivetrain up, drivetrain demo)."
    lines = [here if not missing else f"Jobs cannot run on this machine: {', '.join(missing)}."]
    cluster = by_subject["cluster"].verdict
    if cluster is Verdict.OK:
        lines.append("drivetrain run uses the cluster above.")
    elif not missing:
        lines.append("drivetrain run uses the embedded plane, and starts it if it does not run.")
    return lines


async def _checks(where: Where) -> list[Check]:
    torch, gpus = await _torch()
    return [
        _python(),
        torch,
        gpus,
        _machine(),
        _addresses(where.state or plane.default_state()),
        _disk(where.state or plane.default_state()),
        _plane(where.state or plane.default_state()),
        await _kubectl(),
        *await _cluster(where),
        await _images(),
    ]


def _python() -> Check:
    version = sys.version.split()[0]
    verdict = Verdict.OK if sys.version_info >= (3, 11) else Verdict.NO
    return Check("python", verdict, f"{version} in {sys.prefix}")


async def _torch() -> tuple[Check, Check]:
    """torch in a process of its own: importing it here would make every command slow."""
    found = await _output([sys.executable, "-c", _TORCH], _TORCH_SECONDS, python_environment())
    try:
        told: dict[str, Any] = json.loads(found)
    except ValueError:
        text = "cannot be imported; `make setup` installs it (about 3 GB)"
        return Check("torch", Verdict.NO, text), Check("gpus", Verdict.NOTE, "unknown without torch")
    backends = [name for name in ("gloo", "nccl") if told[name]]
    torch = Check("torch", Verdict.OK if told["gloo"] else Verdict.NO, f"{told['version']}, {' and '.join(backends)}")
    names = told["gpus"]
    if names:
        return torch, Check("gpus", Verdict.OK, f"{len(names)}: {', '.join(sorted(set(names)))}")
    return torch, Check("gpus", Verdict.NOTE, f"{_no_gpu()}: training uses the CPU, and gloo")


def _no_gpu() -> str:
    return "the driver is there, but torch sees no GPU" if Path("/dev/nvidiactl").exists() else "none"


def _machine() -> Check:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    enough = cores >= 2 and memory >= 4
    text = f"{cores} cores, {memory:.0f} GB of memory"
    return Check("machine", Verdict.OK if enough else Verdict.NOTE, text if enough else f"{text}: few for 3 workers")


def _addresses(state: Path) -> Check:
    """Pods, Services and the API server listen on addresses of their own in 127.0.0.0/8."""
    if plane.running(state):
        return Check("addresses", Verdict.OK, "the embedded plane listens")
    for candidate in candidates(state):
        with socket.socket() as sock:
            try:
                sock.bind((candidate.api_host, API_PORT))
            except OSError as error:
                last = error
                continue
        return Check("addresses", Verdict.OK, f"the embedded plane would use {candidate.api_host}:{API_PORT}")
    return Check("addresses", Verdict.NO, f"no address in 127.96.0.0/16 can be listened on, port {API_PORT}: {last}")


def _disk(state: Path) -> Check:
    folder = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return Check("disk", Verdict.NO, f"{folder} cannot be written; choose another with --state")
    return Check("disk", Verdict.OK if free > 1 else Verdict.NO, f"{free:.0f} GB free in {folder}")


def _plane(state: Path) -> Check:
    kubeconfig = plane.running(state)
    text = f"runs: KUBECONFIG={kubeconfig}" if kubeconfig else "does not run; drivetrain up starts it"
    return Check("embedded plane", Verdict.OK if kubeconfig else Verdict.NOTE, text)


async def _kubectl() -> Check:
    found = shutil.which("kubectl")
    if found is None:
        return Check("kubectl", Verdict.NOTE, "not found: drivetrain does without it")
    told = await _output([found, "version", "--client", "-o", "json"], 10.0)
    try:
        return Check("kubectl", Verdict.OK, f"{json.loads(told)['clientVersion']['gitVersion']} in {found}")
    except (ValueError, KeyError, TypeError):
        return Check("kubectl", Verdict.NOTE, f"{found} does not work")


async def _cluster(where: Where) -> list[Check]:
    try:
        async with connect(where) as cluster:
            return await _asked(cluster)
    except CliError as error:
        return [Check("cluster", Verdict.NOTE, str(error))]


async def _asked(cluster: Cluster) -> list[Check]:
    version = await reachable(cluster)
    if version is None:
        return [Check("cluster", Verdict.NO, f"{cluster.name} does not answer")]
    checks = []
    try:
        await cluster.knows_jobs()
        checks.append(Check("cluster", Verdict.OK, f"{cluster.name}, {version}, namespace {cluster.namespace}"))
    except (CliError, KubeError) as error:
        checks.append(Check("cluster", Verdict.NO, f"{cluster.name}, {version}: {error}"))
    checks.append(await _operator(cluster))
    try:
        nodes = (await cluster.client.list(NODES)).items
        gpus = sum(int(((n.get("status") or {}).get("allocatable") or {}).get("nvidia.com/gpu", 0)) for n in nodes)
        checks.append(Check("nodes", Verdict.OK, f"{len(nodes)}, with {gpus} nvidia.com/gpu"))
    except KubeError:
        checks.append(Check("nodes", Verdict.NOTE, "these credentials may not list them"))
    return checks


async def _operator(cluster: Cluster) -> Check:
    """By its Lease, where we may look."""
    try:
        leases = await cluster.client.list(LEASES)
        lease = next(x for x in leases.items if x["metadata"]["name"] == "drivetrain-operator")
        return Check("operator", Verdict.OK, f"leader is {lease['spec'].get('holderIdentity') or 'nobody just now'}")
    except (StopIteration, NotFound):
        return Check("operator", Verdict.NO, "no operator has ever led in this cluster: helm install drivetrain")
    except KubeError:
        return Check("operator", Verdict.NOTE, "these credentials may not see its Lease")


async def _images() -> Check:
    """Which builder works (an installed docker may have no daemon), and has it our images?"""
    working, ours = [], set()
    for name in _BUILDERS:
        listed = await _output([name, "images"], 10.0)
        if listed:
            working.append(name)
            ours |= {image for image in _IMAGES if image in listed}
    if not working:
        return Check("images", Verdict.NOTE, f"none of {', '.join(_BUILDERS)} works here: images are built elsewhere")
    have = f"has {', '.join(sorted(ours))}" if ours else "has none of ours yet (make image)"
    return Check("images", Verdict.OK, f"{', '.join(working)} works and {have}")


async def _output(argv: list[str], seconds: float, environment: dict[str, str] | None = None) -> str:
    """What a command prints; "" if it cannot run or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds)
        return out.decode(errors="replace")
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
