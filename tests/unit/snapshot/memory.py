"""A storage in memory that fails as storages do, on purpose and by a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from drivetrain.snapshot.errors import Exists, Missing, StorageError
from drivetrain.snapshot.storage import Chunks


class Memory:
    """`fault(name)` is asked before each write: None lets it be; "refuse" writes nothing; "lose" writes it and says
    that it could not; "tear" writes a part of it, and says so."""

    def __init__(self, fault: Callable[[str], str | None] = lambda name: None, seed: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault = fault
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return "memory"

    def create(self, name: str, chunks: Chunks) -> None:
        with self._lock:
            fault = self.fault(name)
            if fault == "refuse":
                raise StorageError(f"cannot write {name}: No space left on device (ENOSPC)")
            if name in self.objects:
                raise Exists(f"{name} is there already")
            data = b"".join(bytes(each) for each in chunks)
            if fault == "tear":
                self.objects[name] = data[: self._rng.randrange(len(data))]
                raise StorageError(f"cannot write {name}: the machine is gone")
            self.objects[name] = data
            if fault == "lose":
                raise StorageError(f"cannot write {name}: no answer")

    def read(self, name: str) -> bytes:
        with self._lock:
            if name not in self.objects:
                raise Missing(f"there is no {self}/{name}")
            return self.objects[name]

    def list(self, prefix: str) -> dict[str, int]:
        with self._lock:
            found = [(name, len(data)) for name, data in self.objects.items() if name.startswith(prefix)]
        self._rng.shuffle(found)
        return dict(found)

    def delete(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                self.objects.pop(name, None)


class Changing(Memory):
    """One whose objects may change, and have times: the number of the write, 0 for what was there before."""

    def __init__(self, fault: Callable[[str], str | None] = lambda name: None, seed: int = 0) -> None:
        super().__init__(fault, seed)
        self._times: dict[str, float] = {}
        self._writes = 0

    def replace(self, name: str, chunks: Chunks) -> None:
        with self._lock:
            if self.fault(name) == "refuse":
                raise StorageError(f"cannot write {name}: No space left on device (ENOSPC)")
            self.objects[name] = b"".join(bytes(each) for each in chunks)
            self._writes += 1
            self._times[name] = float(self._writes)

    def read_part(self, name: str, offset: int, length: int) -> bytes:
        return self.read(name)[offset : offset + length]

    def modified(self, prefix: str) -> dict[str, float]:
        return {name: self._times.get(name, 0.0) for name in self.list(prefix)}
