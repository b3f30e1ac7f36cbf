"""Bringing images onto nodes. Only layers that a node has not unpacked yet are sent, so a change of the sources on top
of gigabytes of dependencies takes about a second.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.archive import Image, chain_id, image_of_one_program
from cluster.binaries import binary
from cluster.command import run
from cluster.errors import CommandFailed
from cluster.layout import Node
from cluster.node import ctr
from cluster.node_config import PAUSE_IMAGE


def import_image(client: Sequence[str], image: Image) -> None:
    """Import `image` into the containerd that `client` (a `ctr` prefix) talks to, and unpack it there."""
    command = [*client, "images", "import", "--digests=false", "-"]
    without = unpacked(client, image)
    with tempfile.TemporaryFile() as errors:
        importer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        assert importer.stdin is not None
        try:
            with importer.stdin as stream:
                image.write_to(stream, without)
        except BrokenPipeError:
            pass  # it ended early; its exit status and its words are reported below
        if importer.wait():
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            raise CommandFailed(f"containerd did not take {image.name}:\n{said[-3000:]}")
    _drop_blobs(client, image)


def unpacked(client: Sequence[str], image: Image) -> set[str]:
    """The digests of the layers that this containerd has unpacked already."""
    lines = run([*client, "snapshots", "ls"]).splitlines()[1:]
    present = {line.split()[0] for line in lines if line.strip()}
    layers = image.layers()
    stacks = [chain_id([each.diff_id for each in layers[: top + 1]]) for top in range(len(layers))]
    return {layer.digest for layer, stack in zip(layers, stacks, strict=True) if stack in present}


def missing_bytes(client: Sequence[str], image: Image) -> int:
    """How much `import_image` would send."""
    present = unpacked(client, image)
    return sum(layer.size for layer in image.layers() if layer.digest not in present)


def load_pause_image(nodes: Sequence[Node]) -> None:
    """Give each node the image of the process that holds a pod's namespaces open."""
    with tempfile.TemporaryDirectory() as folder:
        image = image_of_one_program(binary("pause"), PAUSE_IMAGE, Path(folder))
        for node in nodes:
            import_image(ctr(node), image)


def _drop_blobs(client: Sequence[str], image: Image) -> None:
    """Forget the packed layers: they are as large as the unpacked ones, and nothing reads them again."""
    stored = set(run([*client, "content", "ls", "--quiet"]).split())
    layers = [layer.digest for layer in image.layers() if layer.digest in stored]
    if layers:
        run([*client, "content", "rm", *layers])
