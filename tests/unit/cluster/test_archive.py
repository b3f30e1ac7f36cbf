"""The archives that containerd imports."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from cluster.archive import Image, chain_ids, image_of_one_program


def _unpack(image: Image) -> dict[str, bytes]:
    stream = io.BytesIO()
    image.write_to(stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        found = {}
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
        return found


def test_an_archive_is_whole_and_every_blob_is_what_its_name_says(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF not really")
    files = _unpack(image_of_one_program(program, "localhost/pause:1"))

    blobs = {name.rpartition("/")[2]: content for name, content in files.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs.items())

    (descriptor,) = json.loads(files["index.json"])["manifests"]
    assert descriptor["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    manifest = json.loads(blobs[descriptor["digest"].removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    (layer,) = manifest["layers"]
    raw = gzip.decompress(blobs[layer["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(raw).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(raw)) as content:
        assert content.getmember("pause").mode == 0o755
    assert config["config"]["Entrypoint"] == ["/pause"]


def test_chain_ids_follow_the_image_specification() -> None:
    """ChainID(A|B|C) = sha256(ChainID(A|B) + " " + C), written out once more."""
    a, b, c = ("sha256:" + letter * 64 for letter in "abc")

    def link(below: str, layer: str) -> str:
        return "sha256:" + hashlib.sha256(f"{below} {layer}".encode()).hexdigest()

    assert chain_ids([a, b, c]) == [a, link(a, b), link(link(a, b), c)]
    assert chain_ids([]) == []
