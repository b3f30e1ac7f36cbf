"""Results seen from a pod: its reader lists them, and hands out their bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from drivetrain_api.constants import WORKER_CONTAINER
from drivetrain_cli.cluster import Cluster
from drivetrain_cli.errors import CliError
from drivetrain_cli.results.execute import Ended, execute
from drivetrain_cli.results.source import Copied, Cut, Entry, Write, entry_of
from drivetrain_operator.kube.resources import Object

MISSING: Final = 3
"""Exit code of a reader that is asked for what is not there."""


class Remote:
    """Through a pod that stands there (`pod.py`)."""

    def __init__(self, cluster: Cluster, pod: Object, reader: Sequence[str], place: str) -> None:
        """`reader`: the command, without what is asked; `place`: for people."""
        self._cluster = cluster
        self._pod = pod
        self._reader = reader
        self._place = place

    def __str__(self) -> str:
        return self._place

    async def entries(self) -> list[Entry]:
        text = bytearray()
        ended = await self._asked(["list"], text.extend)
        if ended.code:
            raise CliError(f"{self}: {_last_line(ended) or f'its reader ended with {ended.code}'}")
        return sorted(map(entry_of, bytes(text).decode().splitlines()), key=lambda entry: entry.name)

    async def read(self, name: str, offset: int, write: Write) -> Copied:
        ended = await self._asked(["read", name, str(offset)], write)
        if ended.code == MISSING:
            raise CliError(f"{name} is not there any more")
        if ended.code:
            raise Cut(f"{name}: {_last_line(ended) or f'its reader ended with {ended.code}'}")
        said: dict[str, Any] = json.loads(_last_line(ended))
        return Copied(int(said["size"]), str(said["sha256"]))

    async def _asked(self, words: Sequence[str], write: Write) -> Ended:
        # A folder's reader takes it as the second word.
        command = [*self._reader[:-1], words[0], self._reader[-1], *words[1:]]
        return await execute(self._cluster.client, self._pod, WORKER_CONTAINER, command, write)


def _last_line(ended: Ended) -> str:
    return next(iter(reversed(ended.stderr.strip().splitlines())), "")
