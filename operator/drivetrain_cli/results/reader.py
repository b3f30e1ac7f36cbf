"""What lies in a folder, and its bytes. Sent as text to `python3 -c` in a pod that sees the folder, whatever image it
has: so it needs Python 3.8 and its library, and nothing of ours. Used on this machine, too.

Links are followed to files and folders that are in the folder themselves, such as `latest` to `checkpoint-500`, and to
none outside: whoever writes there could have the files of whoever reads.

    list FOLDER                 a line of JSON for each file: name, size, time; link, if its name leads through one
    read FOLDER NAME OFFSET     its bytes from there on; then, to stderr, a line of JSON: size, time, sha256 of it all
    where FOLDER                a line of JSON: where that is
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

BLOCK = 1 << 20


MAX_LINKED = 100_000
"""So many files at most are listed a second time, because a link leads to their folder."""


class Found:
    """A file: its name, size and time and, if a link leads to it, where it really is in the folder."""

    def __init__(self, name: str, about: os.stat_result, link: str = "") -> None:
        self.name, self.size, self.time, self.link = name, about.st_size, about.st_mtime, link


def entries(folder: str) -> Iterator[Found]:
    """All files below, those behind links to folders last. What is half-written (.NAME.tmp) does not count, nor does
    what a link has outside of the folder."""
    root, links = os.path.realpath(folder), []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from files_of(root, parent, sorted(files), os.path.relpath(parent, folder))
        links += [path for path in (os.path.join(parent, name) for name in folders) if os.path.islink(path)]
    yield from itertools.islice((found for path in links for found in behind(root, folder, path)), MAX_LINKED)


def behind(root: str, folder: str, path: str) -> Iterator[Found]:
    """What the folder has to which the link at `path` leads. Links to folders in there have names of their own."""
    target = os.path.realpath(path)
    if not within(root, target) or within(target, os.path.realpath(os.path.dirname(path))):
        return  # outside, or a folder that the link itself is in
    for parent, folders, files in os.walk(target):
        folders.sort()
        place = os.path.join(os.path.relpath(path, folder), os.path.relpath(parent, target))
        for found in files_of(root, parent, sorted(files), place):
            real = os.path.realpath(os.path.join(parent, os.path.basename(found.name)))
            found.link = os.path.relpath(real, root)
            yield found


def files_of(root: str, parent: str, files: Sequence[str], place: str) -> Iterator[Found]:
    """Of one folder, which is called `place`."""
    for file in files:
        if file.startswith(".") and file.endswith(".tmp"):
            continue
        path = os.path.join(parent, file)
        try:
            about = os.stat(path)
        except OSError:
            continue  # a link to nothing or to itself, or gone by now
        link = os.path.realpath(path) if os.path.islink(path) else ""
        if stat.S_ISREG(about.st_mode) and (not link or within(root, link)):
            yield Found(os.path.normpath(os.path.join(place, file)), about, link and os.path.relpath(link, root))


def within(folder: str, path: str) -> bool:
    """Both without links in them. Also if it is the folder itself."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def copy(folder: str, name: str, offset: int, write: Callable[[bytes], object]) -> tuple[int, float, str]:
    """Hands out its bytes from `offset` on; returns (size, time, sha256) of what was read. What is not in the folder is
    not found, whatever links lead there."""
    total, size = hashlib.sha256(), 0
    with open(os.path.join(folder, name), "rb") as file:
        if not within(os.path.realpath(folder), os.path.realpath(f"/proc/self/fd/{file.fileno()}")):
            raise FileNotFoundError(errno.ENOENT, "a link leads out of the results", name)
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
        for found in entries(folder):
            print(json.dumps({key: value for key, value in vars(found).items() if key != "link" or value}))
    else:
        try:
            size, time, total = copy(folder, arguments[2], int(arguments[3]), sys.stdout.buffer.write)
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
