"""Building images without Docker: `buildah` on the project's real Dockerfiles.

Its storage lies in the cache, apart from the machine's own. Every instruction is cached as a layer, so a Dockerfile
that installs its dependencies before it copies the sources is rebuilt in seconds after a change of the sources.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cluster.archive import Image
from cluster.command import run
from cluster.errors import ClusterError
from cluster.layout import cache_dir

PYTHON_BASE = "localhost/drivetrain-python:bookworm"
_SUITE = "bookworm"
_PACKAGES = ("python3", "python3-pip", "python3-venv", "ca-certificates")
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# The official image has `python` and lets pip install into it; Debian's Python has neither.
_LIKE_THE_OFFICIAL_IMAGE = """
ln -s ../../bin/python3 "$1/usr/local/bin/python"
rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
"""


def python_base() -> str:
    """The stand-in for the official Python image, made with debootstrap once (2.5 min); returns its name."""
    recipe = hashlib.sha256(repr((_SUITE, _PACKAGES, _LIKE_THE_OFFICIAL_IMAGE)).encode()).hexdigest()[:12]
    tag = f"{PYTHON_BASE}-{recipe}"
    if not exists(tag):
        print(f"making {tag} with debootstrap, usually 150 s ...", flush=True)
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            root = f"{folder}/root"
            command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, root]
            run(command, timeout=1200)
            run(["sh", "-ec", _LIKE_THE_OFFICIAL_IMAGE, "sh", root])
            container = _buildah("from", "scratch").strip()
            _buildah("add", "--quiet", container, root, "/", timeout=300)
            _buildah("config", "--cmd", "python", "--env", "LANG=C.UTF-8", container)
            _buildah("commit", "--quiet", "--rm", container, tag, timeout=300)
    _buildah("tag", tag, PYTHON_BASE)
    return PYTHON_BASE


def build(name: str, dockerfile: Path, context: Path, arguments: Mapping[str, str] | None = None) -> str:
    """Build `dockerfile` as the image `name`; its output goes to ours. Returns the name.

    The machine's CA bundle and pip settings are there during the build only, so that pip works behind whatever proxy
    or index the machine itself uses, and none of it stays in the image.
    """
    if not dockerfile.is_file():
        raise ClusterError(f"there is no {dockerfile}")
    pip_cache = cache_dir() / "cluster-pip"
    pip_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write(_pip_settings())
        settings.flush()
        volumes = {str(pip_cache): "/root/.cache/pip", settings.name: "/etc/pip.conf:ro"}
        if _CA_BUNDLE.exists():
            volumes[str(_CA_BUNDLE)] = f"{_CA_BUNDLE}:ro"
        command = ["bud", "--layers", "--format=oci", "--file", str(dockerfile), "--tag", name]
        command += [f"--volume={source}:{place}" for source, place in volumes.items()]
        command += [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
        _buildah(*command, str(context), timeout=3600, show=True)
    return name


def also_named(name: str, other: str) -> str:
    """Give a built image another name, which is returned."""
    _buildah("tag", name, other)
    return other


def exists(name: str) -> bool:
    """Whether the image has been built."""
    names = [each for image in json.loads(_buildah("images", "--json") or "[]") for each in image.get("names") or []]
    return name in names


def built(name: str) -> Image:
    """The image as buildah keeps it: its documents, and its layers as folders."""
    storage = _folder() / "storage"
    records = json.loads((storage / "overlay-images" / "images.json").read_text()) if exists(name) else []
    record = next((each for each in records if name in each.get("names", ())), None)
    if record is None:
        raise ClusterError(f"image {name} is not built; run: python -m cluster image {name} --file ...")
    below = {
        each["id"]: each.get("parent", "")
        for each in json.loads((storage / "overlay-layers" / "layers.json").read_text())
    }
    layers: list[Path] = []
    layer = record["layer"]
    while layer:
        layers.insert(0, storage / "overlay" / layer / "diff")
        layer = below[layer]
    documents = json.loads(_buildah("inspect", "--type", "image", name))
    return Image(name, documents["Manifest"].encode(), documents["Config"].encode(), layers)


def _folder() -> Path:
    folder = cache_dir() / "cluster-images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _buildah(*arguments: str, timeout: float = 60, show: bool = False) -> str:
    storage = ["--root", str(_folder() / "storage"), "--runroot", str(_folder() / "run"), "--storage-driver", "overlay"]
    # chroot: no user namespace and no runc are asked for, so it works as root anywhere.
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    return run(["buildah", *storage, *arguments], env=environment, timeout=timeout, show=show)


def _pip_settings() -> str:
    """The machine's own index and certificates, as a pip.conf."""
    lines = ["[global]", "root-user-action = ignore"]
    if _CA_BUNDLE.exists():
        lines.append(f"cert = {_CA_BUNDLE}")
    for line in run(["python3", "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "default-timeout"):
            lines.append(f"{option} = {value.strip(chr(39))}")
    return "\n".join(lines) + "\n"
