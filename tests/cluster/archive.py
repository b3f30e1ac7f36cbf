"""Image archives as containerd imports them: an OCI layout in a tar, streamed, with only the blobs that are missing."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """One layer: the digest of its blob, and of what is in it (the two differ if it is compressed)."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class Image:
    """An image in an OCI layout folder."""

    folder: Path
    name: str
    manifest: dict[str, Any]  # the descriptor, as the index lists it

    @classmethod
    def read(cls, folder: Path, name: str) -> "Image":
        """The only image in `folder`, to be known as `name`."""
        (manifest,) = json.loads((folder / "index.json").read_text())["manifests"]
        return cls(folder, name, manifest)

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        algorithm, _, value = digest.partition(":")
        return self.folder / "blobs" / algorithm / value

    def content(self) -> dict[str, Any]:
        """The image's manifest."""
        found: dict[str, Any] = json.loads(self.blob(self.manifest["digest"]).read_text())
        return found

    def layers(self) -> list[Layer]:
        """Its layers, the base first."""
        content = self.content()
        config = json.loads(self.blob(content["config"]["digest"]).read_text())
        diff_ids = config["rootfs"]["diff_ids"]
        return [
            Layer(each["digest"], each["size"], diff) for each, diff in zip(content["layers"], diff_ids, strict=True)
        ]

    def write_to(self, stream: IO[bytes], without: Collection[str] = ()) -> None:
        """Write the archive, leaving out the layers with the digests in `without`."""
        content = self.content()
        digests = [self.manifest["digest"], content["config"]["digest"]]
        digests += [each["digest"] for each in content["layers"] if each["digest"] not in without]
        annotations = {"io.containerd.image.name": self.name}
        index = {"schemaVersion": 2, "manifests": [{**self.manifest, "annotations": annotations}]}
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
            _add(archive, "index.json", json.dumps(index).encode())
            for digest in dict.fromkeys(digests):
                path = self.blob(digest)
                archive.add(path, arcname=str(path.relative_to(self.folder)))


def chain_id(diff_ids: list[str]) -> str:
    """The name under which containerd keeps an unpacked stack of layers (image-spec, "Layer ChainID")."""
    chain, *rest = diff_ids
    for each in rest:
        chain = "sha256:" + hashlib.sha256(f"{chain} {each}".encode()).hexdigest()
    return chain


def image_of_one_program(program: Path, name: str, folder: Path) -> Image:
    """Make an image that holds only the static program `program`, into the new OCI layout `folder`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        _add(archive, program.name, program.read_bytes(), mode=0o755)
    layer = gzip.compress(raw.getvalue(), mtime=0)
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(raw.getvalue())]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _store(folder, CONFIG, json.dumps(config).encode()),
        "layers": [_store(folder, LAYER + "+gzip", layer)],
    }
    return Image(folder, name, _store(folder, MANIFEST, json.dumps(manifest).encode()))


def _store(folder: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = _digest(content)
    path = folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
