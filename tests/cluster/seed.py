"""Where are unpacked images kept between clusters, and how do nodes get them?

The seed is a containerd store in the cache that runs only while an image is imported into it. A node's store starts as
a copy of it by hard links: half a second for gigabytes, and no disk. That is safe because unpacked layers are only ever
read (containers write into an overlay); the two databases are copied for real.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.archive import Image
from cluster.command import run, succeeds
from cluster.layout import Node, cache_dir
from cluster.load import import_image
from cluster.processes import start, wait_until

_STATE = Path("/run/drivetrain-seed")
_DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")


def seed_dir() -> Path:
    """The seed's containerd root."""
    return cache_dir() / "cluster-seed"


def add(image: Image) -> None:
    """Import `image` into the seed; later nodes start with it."""
    with _containerd() as client:
        import_image(client, image)


def clone_to(node: Node) -> None:
    """Make the node's store a copy of the seed. Its containerd must not run."""
    if not seed_dir().exists():
        return
    with _locked():
        store = node.folder / "containerd"
        run(["sh", "-c", 'rm -rf "$2"/* && cp -al "$1"/. "$2"', "sh", str(seed_dir()), str(store)], timeout=300)
        for database in _DATABASES:
            (store / database).unlink()
            shutil.copyfile(seed_dir() / database, store / database)


@contextmanager
def _locked() -> Iterator[None]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "cluster-seed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _containerd() -> Iterator[list[str]]:
    """The seed's containerd, and the prefix of its client."""
    with _locked():
        seed_dir().mkdir(exist_ok=True)
        _STATE.mkdir(exist_ok=True)
        config, socket = _STATE / "config.toml", _STATE / "containerd.sock"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        flags = ["--config", str(config), "--root", str(seed_dir()), "--state", str(_STATE), "--address", str(socket)]
        daemon = start("seed-containerd", ["unshare", "--mount", "containerd", *flags])
        client = ["ctr", "--address", str(socket), "--namespace", "k8s.io"]
        try:
            wait_until(lambda: succeeds([*client, "version"]), "the seed's containerd answers", daemon, 30)
            yield client
        finally:
            daemon.child.terminate()
            daemon.child.wait(timeout=30)
            shutil.rmtree(_STATE)
