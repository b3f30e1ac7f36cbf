"""Images: what they consist of, and the archive (an OCI layout in a tar) by which containerd learns of one."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """An image: its two documents byte for byte, and where its layers are.

    `folders` holds the unpacked layers, the base first, for an image that was built here; `blobs` the packed ones, by
    digest, for an image that was not.
    """

    name: str
    manifest: bytes
    config: bytes
    folders: Sequence[Path] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    def chain(self) -> list[str]:
        """The name under which containerd keeps each layer on top of those below it."""
        return chain_ids(json.loads(self.config)["rootfs"]["diff_ids"])

    def write_to(self, stream: IO[bytes]) -> None:
        """Write the archive. Layers that are unpacked folders are not in it."""
        descriptor = {**_descriptor(_MANIFEST, self.manifest), "annotations": {"io.containerd.image.name": self.name}}
        blobs = {_digest(self.manifest): self.manifest, _digest(self.config): self.config, **self.blobs}
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
            _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode())
            for digest, content in blobs.items():
                _add(archive, f"blobs/{digest.replace(':', '/')}", content)


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The image specification's ChainIDs: each names a layer together with all those below it."""
    chain = list(diff_ids[:1])
    for each in diff_ids[1:]:
        chain.append(_digest(f"{chain[-1]} {each}".encode()))
    return chain


def image_of_one_program(program: Path, name: str) -> Image:
    """An image that holds only the static program `program`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        _add(archive, program.name, program.read_bytes(), mode=0o755)
    layer = gzip.compress(raw.getvalue(), mtime=0)
    config = _encode(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(raw.getvalue())]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, config),
        "layers": [_descriptor(_LAYER, layer)],
    }
    return Image(name, _encode(manifest), config, blobs={_digest(layer): layer})


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
