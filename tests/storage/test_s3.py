"""S3, as a real server has it, does what `StorageContract` asks of every storage."""

from __future__ import annotations

import time

import pytest

from drivetrain.snapshot.storage import Dated, Storage
from drivetrain.snapshot.storage.s3 import S3
from storage.contract import StorageContract
from storage.contract_log import LogContract


class TestS3(StorageContract, LogContract):
    @pytest.fixture
    def storage(self, s3: S3) -> Storage:
        return s3

    def test_when_it_was_written(self, storage: Storage) -> None:
        storage.create("log/a", [b"x"])
        assert isinstance(storage, Dated)
        (name,), (when,) = zip(*storage.modified("log/").items(), strict=True)
        assert name == "log/a"
        assert abs(when - time.time()) < 600

    def test_listings_and_deletions_of_many(self, storage: Storage) -> None:
        """More than one answer has, and than one request takes."""
        names = [f"log/{number:04}" for number in range(1100)]
        for name in names:
            storage.create(name, [b"x"])
        assert sorted(storage.list("log/")) == names
        storage.delete(names)
        assert storage.list("") == {}
