"""How often has the kernel killed something of this container because its memory limit was reached?

Kubernetes says OOMKilled only when that took the container's first process, which is the launcher; a rank uses more
memory, so the kernel picks it, and all that is left of the reason is this counter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FILES: Final = (
    Path("/sys/fs/cgroup/memory.events"),  # cgroup v2
    Path("/sys/fs/cgroup/memory/memory.oom_control"),  # cgroup v1
)


class MemoryKills:
    """Notices kills since it was made: make it before the first rank, which may be dead before all is imported."""

    def __init__(self, files: tuple[Path, ...] = _FILES) -> None:
        self._files = files
        self._seen = out_of_memory_kills(files)

    def happened(self) -> bool:
        """Whether there was one since this was last asked."""
        before, self._seen = self._seen, out_of_memory_kills(self._files)
        return self._seen > before


def out_of_memory_kills(files: tuple[Path, ...] = _FILES) -> int:
    """The counter, since the container began; 0 where there is none."""
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
