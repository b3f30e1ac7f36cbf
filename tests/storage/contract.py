"""What every storage must do, whatever it is made of. A subclass for each says by the fixture `storage` which."""

from __future__ import annotations

import threading

import pytest

from drivetrain.snapshot.errors import Exists, Missing, StorageError
from drivetrain.snapshot.storage import Files, Storage, write_own


class StorageContract:
    """The tests."""

    def test_an_object_is_created_once_and_read_back(self, storage: Storage) -> None:
        assert storage.list("") == {}
        storage.create("log/1/a.seg", [b"ab", memoryview(b"c")])
        assert storage.read("log/1/a.seg") == b"abc"
        with pytest.raises(Exists):
            storage.create("log/1/a.seg", [b"other"])
        assert storage.read("log/1/a.seg") == b"abc"
        with pytest.raises(Missing):
            storage.read("log/1/b.seg")

    def test_a_listing_has_what_begins_so(self, storage: Storage) -> None:
        names = ["runs/000001.json", "log/000001/000001.000001/1-2.r0of1.seg", "log/000001/000001.000001/3-4.r0of1.seg"]
        for number, name in enumerate(names):
            storage.create(name, [bytes(number)])
        assert storage.list("") == {name: number for number, name in enumerate(names)}
        assert list(storage.list("runs/")) == names[:1]
        assert sorted(storage.list("log/000001/000001.000001/")) == names[1:]
        assert list(storage.list("log/000001/000001.000001/3")) == names[2:]
        assert storage.list("base/") == {}

    def test_what_is_deleted_is_gone_and_the_rest_is_not(self, storage: Storage) -> None:
        for name in ("a/1", "a/2", "b/1"):
            storage.create(name, [b"x"])
        storage.delete(["a/1", "b/1", "b/none", "none/at/all"])
        assert list(storage.list("")) == ["a/2"]
        storage.delete([])
        storage.create("a/1", [b"again"])
        assert storage.read("a/1") == b"again"

    def test_bytes_come_back_as_they_are(self, storage: Storage) -> None:
        large = bytes(range(256)) * 4096 * 5
        storage.create("large", [large[:1], memoryview(large)[1:3_000_000], large[3_000_000:]])
        assert storage.read("large") == large
        assert storage.list("large") == {"large": len(large)}
        storage.create("empty", [])
        assert storage.read("empty") == b""

    def test_a_file_of_people_is_replaced_and_read_in_parts(self, storage: Storage) -> None:
        assert isinstance(storage, Files)
        with pytest.raises(Missing):
            storage.read_part("a/model.pt", 0, 5)
        storage.replace("a/model.pt", [b"first"])
        storage.replace("a/model.pt", [b"the ", memoryview(b"second")])
        assert storage.list("") == {"a/model.pt": 10}
        assert storage.modified("a/").keys() == {"a/model.pt"}
        parts = [storage.read_part("a/model.pt", offset, 4) for offset in (0, 4, 8, 10, 12)]
        assert parts == [b"the ", b"seco", b"nd", b"", b""]
        storage.replace("a/model.pt", [])
        assert storage.read("a/model.pt") == b""

    def test_of_many_at_once_one_is_first(self, storage: Storage) -> None:
        told: list[str] = []
        gate = threading.Barrier(6)

        def create(who: str) -> None:
            gate.wait()
            try:
                storage.create("runs/000001.json", [who.encode() * 1000])
                told.append(who)
            except Exists:
                pass

        threads = [threading.Thread(target=create, args=(f"writer-{number}",)) for number in range(6)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        assert len(told) == 1
        assert storage.read("runs/000001.json") == told[0].encode() * 1000

    def test_ones_own_object_is_written_again_without_harm(self, storage: Storage) -> None:
        write_own(storage, "log/a", [b"mine"])
        write_own(storage, "log/a", [b"mine"])
        write_own(storage, "log/a", [b"mine, as it should be"])
        assert storage.read("log/a") == b"mine, as it should be"

    def test_it_says_where_it_is(self, storage: Storage) -> None:
        with pytest.raises(StorageError, match="runs/none") as caught:
            storage.read("runs/none")
        assert str(storage) in str(caught.value)
