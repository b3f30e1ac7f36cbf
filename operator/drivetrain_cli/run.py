"""Pack a script, and the modules beside it that it imports, into a ConfigMap and a TrainingJob; follow it, printing its
logs with ranks; end as it ends. Without a cluster it runs on this machine, on the embedded plane. Ctrl-C stops the
following, not the job."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from drivetrain_api.choices import RuntimeName, RuntimeSource
from drivetrain_cli import podflags
from drivetrain_cli import where as which
from drivetrain_cli.claims import make_claims
from drivetrain_cli.cluster import EMBEDDED, Cluster, connect
from drivetrain_cli.errors import Exit, NoCluster, UsageError
from drivetrain_cli.invocation import command
from drivetrain_cli.logs import print_followed
from drivetrain_cli.pack import Code, Wish, default_name, objects, read
from drivetrain_cli.pack.flags import add_training, training_of
from drivetrain_cli.pack.requirements import Requirements, checked
from drivetrain_cli.pack.sources import read_module
from drivetrain_cli.trackers import refuse_without_packages
from drivetrain_operator.kube.errors import AlreadyExists, Invalid, KubeError, NotFound
from drivetrain_operator.kube.resources import CONFIGMAPS, TRAININGJOBS, Object

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own for such suffixes: no word comes out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain run`."""
    parser.add_argument("program", help="training script, folder with a __main__.py, or (-m) module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the script")
    code = parser.add_argument_group("the code")
    code.add_argument("-m", "--module", action="store_true", help="program is a module, as for `python -m`")
    code.add_argument(
        "--folder", type=Path, metavar="DIR", help="send all that is in there; program is one of its files"
    )
    code.add_argument("--requirements", type=Path, metavar="FILE", help="install these packages in each worker first")
    code.add_argument("--index-url", metavar="URL", help="from here (default: what pip in the image has)")
    code.add_argument("--packages", metavar="CLAIM", help="a volume for them that all workers share: installed once")
    job = parser.add_argument_group("the job")
    job.add_argument("--workers", type=int, default=1, help="worker pods (default: %(default)s)")
    job.add_argument("--elastic", type=_bounds, metavar="MIN:MAX", help="go on with any number of workers in between")
    job.add_argument("--image", default="drivetrain-worker", help="image of the workers (default: %(default)s)")
    job.add_argument("--gpus", type=int, help="GPUs of each worker")
    job.add_argument("--processes-per-worker", type=int, help="rank processes of each worker (default: its GPUs)")
    job.add_argument(
        "--runtime",
        choices=get_args(RuntimeName),
        help="torchrun: a script that never calls drivetrain.start() (default: found out by reading it)",
    )
    job.add_argument(
        "--runtime-from",
        choices=get_args(RuntimeSource),
        help="operator: brought into the image; image: it has it (default: by the image's name, see docs/images.md)",
    )
    job.add_argument("--spares", type=int, help="warm processes of each worker that take a dead one's place")
    job.add_argument("--max-restarts", type=int, help="incidents that the job survives")
    job.add_argument(
        "--snapshots", metavar="URL|CLAIM:PATH|PATH", help="keep every step there: s3://…, a volume, or (`up`) a folder"
    )
    job.add_argument(
        "--storage",
        metavar="URL|CLAIM:PATH|PATH",
        help="checkpoints and results go there, as with --snapshots; `get` brings them",
    )
    job.add_argument("--name", help="name of the job (default: the script's, and a suffix)")
    podflags.add_arguments(parser)
    add_training(parser)
    what = parser.add_argument_group("what to do")
    what.add_argument("--detach", action="store_true", help="create the job and do not follow it")
    what.add_argument("--dry-run", action="store_true", help="print the objects as YAML, create nothing")
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 if the job succeeded, 1 if it failed, 130 after Ctrl-C."""
    wish = wished(arguments)
    if arguments.dry_run:
        print(yaml.safe_dump_all(objects(wish, arguments.namespace or "default"), sort_keys=False), end="")
        return Exit.OK
    objects(wish, "default")  # whatever is wrong with the flags is said before anything is started
    return asyncio.run(_run(arguments, wish))


def wished(arguments: argparse.Namespace, code: Code | None = None) -> Wish:
    """The job that these flags describe; `code` where it is not on this disk, and has the program's name only. Raises
    UsageError."""
    suffix = "".join(random.choices(_ALPHABET, k=5))
    program = arguments.program
    if code is not None:
        named = Path(program)
    elif arguments.module:
        code, named = read_module(program, Path.cwd(), arguments.folder), Path(program.rpartition(".")[2])
    else:
        code, named = read(Path(program), arguments.folder), Path(program).resolve()
    return Wish(
        name=arguments.name or default_name(named, suffix),
        code=code,
        image=arguments.image,
        arguments=_without_dashes(arguments.arguments),
        workers=arguments.workers,
        elastic=arguments.elastic,
        gpus=arguments.gpus,
        processes_per_worker=arguments.processes_per_worker,
        runtime=arguments.runtime,
        runtime_from=arguments.runtime_from,
        training=training_of(arguments),
        spares=arguments.spares,
        max_restarts=arguments.max_restarts,
        snapshots=None if arguments.snapshots is None else {"storage": _place(arguments.snapshots)},
        storage=None if arguments.storage is None else _place(arguments.storage),
        pod=podflags.wished(arguments),
        requirements=_requirements(arguments),
    )


async def _run(arguments: argparse.Namespace, wish: Wish) -> int:
    async with connect(which.where(arguments), start=True) as cluster:
        await cluster.knows_jobs()
        await create(cluster, wish)
        print(f"TrainingJob {cluster.namespace}/{wish.name} created on {cluster.name}", file=sys.stderr, flush=True)
        if arguments.detach:
            print(f"Follow it: {command()} logs -f {wish.name}", file=sys.stderr)
            return Exit.OK
        return await _followed(cluster, wish.name)


async def create(cluster: Cluster, wish: Wish) -> None:
    """ConfigMap, then job; the ConfigMap goes when the job goes. Raises UsageError, NoCluster, KubeError."""
    config_map, job = objects(wish, cluster.namespace)
    if cluster.name == EMBEDDED:
        refuse_without_packages(wish)
    await make_claims(cluster, job)
    created: Object = {}
    try:
        await cluster.client.create(CONFIGMAPS, config_map, cluster.namespace)
        created = await cluster.client.create(TRAININGJOBS, job, cluster.namespace)
    except AlreadyExists as error:
        raise UsageError(f"--name: {wish.name} or its ConfigMap is there already; choose another name") from error
    except Invalid as error:
        raise UsageError(error.message) from error
    except NotFound as error:
        raise NoCluster(f"-n: is there a namespace {cluster.namespace!r}? {error.message}") from error
    finally:
        # What the failed creation of a job leaves behind would be in the way of the next try.
        if not created:
            await _forget(cluster, config_map)
    owner = {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "name": wish.name,
        "uid": created["metadata"]["uid"],
    }
    name = config_map["metadata"]["name"]
    await cluster.client.merge_patch(CONFIGMAPS, name, {"metadata": {"ownerReferences": [owner]}}, cluster.namespace)


async def _forget(cluster: Cluster, config_map: Object) -> None:
    """Delete the ConfigMap, if it is not some job's."""
    name = config_map["metadata"]["name"]
    try:
        found = await cluster.client.get(CONFIGMAPS, name, cluster.namespace)
        if not found["metadata"].get("ownerReferences") and found.get("data") == config_map["data"]:
            await cluster.client.delete(CONFIGMAPS, name, cluster.namespace, uid=found["metadata"]["uid"])
    except KubeError:
        pass  # the error that brought us here is the one to tell


async def _followed(cluster: Cluster, name: str) -> int:
    following = asyncio.ensure_future(print_followed(cluster, name))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, following.cancel)
    try:
        return await following
    except asyncio.CancelledError:
        print(
            f"\nThe job goes on. Follow it again: {command()} logs -f {name}\n"
            f"Stop it: {command()} delete {name} -n {cluster.namespace}",
            file=sys.stderr,
        )
        return Exit.INTERRUPTED


def _bounds(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    if not colon or not low.isdecimal() or not high.isdecimal():
        raise argparse.ArgumentTypeError(f"want MIN:MAX, such as 2:4, not {text!r}")
    return int(low), int(high)


def _requirements(arguments: argparse.Namespace) -> Requirements | None:
    path: Path | None = arguments.requirements
    if path is None:
        for flag, value in (("--index-url", arguments.index_url), ("--packages", arguments.packages)):
            if value is not None:
                raise UsageError(f"{flag}: means nothing without --requirements")
        return None
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--requirements: {error}") from error
    return Requirements(checked(text, path.name), arguments.index_url, arguments.packages)


def _place(place: str) -> dict[str, Any]:
    """Of spec.snapshots and spec.storage."""
    if "://" in place:
        return {"url": place}
    claim, colon, path = place.partition(":")
    if colon:
        return {"persistentVolumeClaim": claim, **({"path": path} if path else {})}
    return {"path": place}


def _without_dashes(arguments: Sequence[str]) -> tuple[str, ...]:
    return tuple(arguments[1:] if arguments[:1] == ["--"] else arguments)
