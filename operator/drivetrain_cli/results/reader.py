"""What lies in a folder, and its bytes. Sent as text to `python3 -c` in a pod that sees the folder, whatever image it
has: so it needs Python 3.8 and its library, and nothing of ours. Used on this machine, too.

    list FOLDER                 a line of JSON for each file: name, size, time
    read FOLDER NAME OFFSET     its bytes from there on; then, to stderr, a line of JSON: size, time, sha256 of it all
    where FOLDER                a line of JSON: where that is
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

BLOCK = 1 << 20


def entries(folder: str) -> Iterator[tuple[str, int, float]]:
    """(name, size, time) of each file below. What is half-written (.NAME.tmp) does not count."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if file.startswith(".") and file.endswith(".tmp"):
                continue
            path = os.path.join(parent, file)
            try:
                about = os.stat(path)
            except OSError:
                continue  # a link to nothing, or gone by now
            if stat.S_ISREG(about.st_mode):
                yield os.path.relpath(path, folder), about.st_size, about.st_mtime


def copy(path: str, offset: int, write: Callable[[bytes], object]) -> tuple[int, float, str]:
    """Hands out its bytes from `offset` on; returns (size, time, sha256) of what was read."""
    total, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return size, os.fstat(file.fileno()).st_mtime, total.hexdigest()
            total.update(block)
            if size + len(block) > offset:
                write(block[max(0, offset - size) :])
            size += len(block)


def main(arguments: Sequence[str]) -> int:
    """Exit code: 3 if there is nothing of this name."""
    what, folder = arguments[0], arguments[1]
    if what == "where":
        print(json.dumps({"folder": os.path.realpath(folder)}))
    elif what == "list":
        for name, size, time in entries(folder):
            print(json.dumps({"name": name, "size": size, "time": time}))
    else:
        try:
            size, time, total = copy(os.path.join(folder, arguments[2]), int(arguments[3]), sys.stdout.buffer.write)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return 3
        sys.stdout.flush()
        print(json.dumps({"size": size, "time": time, "sha256": total}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"{error.filename or sys.argv[2]}: {error.strerror}")
