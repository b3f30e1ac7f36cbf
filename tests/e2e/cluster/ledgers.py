"""How do ledgers survive the pods that wrote them? By hard links, made while the pods live.

A pod's /tmp is an emptyDir, which lies on this machine below its node's folder. A link keeps the file, and all that is
written to it later, when the kubelet removes the pod: also on a node that is cut off, where kubectl reaches nothing.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.layout import run_dir

_PLACE = "kubelet/pods/*/volumes/kubernetes.io~empty-dir/tmp"
_EVERY_SECONDS = 0.1


def folders() -> list[Path]:
    """/tmp of all worker pods that exist on some node now."""
    return list((run_dir() / "nodes").glob(f"*/{_PLACE}"))


class Collector:
    """Links the ledgers of one job into `folder` as they appear. A context manager."""

    def __init__(self, job_uid: str, folder: Path) -> None:
        self._pattern = f"ledger-{job_uid}-*.jsonl"
        self._folder = folder
        self._known: set[Path] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledgers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            for source in (run_dir() / "nodes").glob(f"*/{_PLACE}/{self._pattern}"):
                if source not in self._known:
                    self._known.add(source)
                    pod_uid = source.parents[3].name
                    with suppress(FileNotFoundError):  # the pod went in this very moment; then it did nothing yet
                        os.link(source, self._folder / f"ledger-{pod_uid}-{source.name}")
