"""Bringing images to nodes, in about a second whatever their size.

Nothing is packed, copied or unpacked: buildah keeps a layer as a folder in the same form as containerd does, so a
node's snapshot of it is made of hard links. That is safe because layers are only ever read; containers write into an
overlay of their own. containerd is then given the image's two documents, and finds its layers there already.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.archive import Image, image_of_one_program
from cluster.binaries import binary
from cluster.command import run
from cluster.errors import CommandFailed
from cluster.images import built
from cluster.layout import Node
from cluster.node import ctr
from cluster.node_config import PAUSE_IMAGE

# containerd's mark on what nobody refers to yet: it would be collected as garbage within a moment.
_ROOT = "containerd.io/gc.root"


def load(name: str, nodes: Sequence[Node]) -> None:
    """Make the built image `name` known to `nodes`, in place of what had its name. Pods must not use the pull policy
    `Always`, which is Kubernetes' default for the tag `latest`."""
    image = built(name)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda node: _bring(image, node), nodes))  # list() brings errors to light


def load_pause_image(node: Node) -> None:
    """Give the node the image of the process that holds a pod's namespaces open."""
    _import(image_of_one_program(binary("pause"), PAUSE_IMAGE), node)


def _bring(image: Image, node: Node) -> None:
    client = ctr(node)
    present = {line.split()[0] for line in run([*client, "snapshots", "ls"]).splitlines()[1:]}
    placed, below = [], ""
    for folder, name in zip(image.folders, image.chain(), strict=True):
        if name not in present:
            _place(folder, name, below, node, client, present)
            placed.append(name)
        below = name
    _import(image, node)
    for name in placed:  # from here on the image refers to them
        run([*client, "snapshots", "label", name, f"{_ROOT}="])


def _place(folder: Path, name: str, below: str, node: Node, client: Sequence[str], present: set[str]) -> None:
    """Make the snapshot `name` on top of `below`, with the files of `folder`."""
    key = f"load-{name}"
    if key in present:  # a load that failed half-way left it
        run([*client, "snapshots", "rm", key])
    (mount,) = json.loads(run([*client, "snapshots", "prepare", "--mounts", key, *([below] if below else [])]))
    options = dict(option.partition("=")[::2] for option in mount["Options"])
    upper = options.get("upperdir", mount["Source"])  # the lowest layer is a plain bind mount
    seen_from_here = node.folder / "containerd" / Path(upper).relative_to("/var/lib/containerd")
    run(["cp", "--archive", "--link", "--no-target-directory", str(folder), str(seen_from_here)], timeout=300)
    run([*client, "snapshots", "commit", name, key])


def _import(image: Image, node: Node) -> None:
    with tempfile.TemporaryFile() as errors:
        command = [*ctr(node), "images", "import", "--digests=false", "-"]
        importer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        assert importer.stdin is not None
        try:
            with importer.stdin as stream:
                image.write_to(stream)
        except BrokenPipeError:
            pass  # it ended early; its exit status and its words are reported below
        if importer.wait():
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            raise CommandFailed(f"{node.name}'s containerd did not take {image.name}:\n{said[-3000:]}")
