"""`python -m drivetrain.results`: what lies at the URL of a job's storage. `drivetrain get` runs it in a pod.

list URL                 a line of JSON for each file: name, size, time
read URL NAME OFFSET     its bytes from there on; then, to stderr, a line of JSON: size, sha256 of all of it
bring URL FOLDER [NAME]  copies a file, a folder or all to a folder of this machine, after a list of all
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from drivetrain.results.copying import parts_of
from drivetrain.results.place import files_of
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage import Files
from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.runtime import RuntimeSpec, RuntimeStorage

_MISSING: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 3 if there is nothing of this name."""
    what, url, *rest = sys.argv[1:] if arguments is None else arguments
    told = RuntimeSpec.model_validate_json(os.environ.get(ENV_SPEC, "{}")).storage
    place = (told or RuntimeStorage(folder="/")).model_copy(update={"url": url})
    try:
        storage = files_of(place)
        if what == "read":
            return _read(storage, rest[0], int(rest[1]))
        sizes = _list(storage)
        if what == "bring":
            _bring(storage, sizes, Path(rest[0].removeprefix("to:")), rest[1] if len(rest) > 1 else "")
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _list(storage: Files) -> dict[str, int]:
    sizes, times = storage.list(""), storage.modified("")
    for name in sorted(sizes):
        print(json.dumps({"name": name, "size": sizes[name], "time": times.get(name, 0.0)}))
    return sizes


def _read(storage: Files, name: str, offset: int) -> int:
    sizes = storage.list(name)
    if name not in sizes:
        return _MISSING
    total = hashlib.sha256()
    at = 0
    for part in parts_of(storage, name, sizes[name]):
        total.update(part)
        if at + len(part) > offset:
            sys.stdout.buffer.write(part[max(0, offset - at) :])
        at += len(part)
    sys.stdout.flush()
    print(json.dumps({"size": at, "sha256": total.hexdigest()}), file=sys.stderr)
    return 0


def _bring(storage: Files, sizes: dict[str, int], folder: Path, wanted: str) -> None:
    for name, size in sizes.items():
        if wanted and name != wanted and not name.startswith(f"{wanted}/"):
            continue
        if any(part in ("", ".", "..") for part in name.split("/")):
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for part in parts_of(storage, name, size):
                file.write(part)


if __name__ == "__main__":
    sys.exit(main())
