"""Objects that somebody has made by hand, with right checksums: whoever reads them neither goes round for ever nor
reads anything that lies elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.frames import sealed
from drivetrain.snapshot.keys import Seat
from drivetrain.snapshot.names import BaseName, run_name
from drivetrain.snapshot.storage.local import Local
from unit.snapshot.memory import Memory
from unit.snapshot.ranks import Rank


def test_runs_that_go_on_from_each_other() -> None:
    storage = Memory()
    for run, before in ((1, 2), (2, 2), (3, 2)):
        told = {"run": run, "epoch": (0, 0), "from": {"run": before, "step": 0}}
        storage.create(run_name(run), [sealed(told)])
    assert [span.run for span in Found.of(storage).lineage] == [3, 2]


def test_a_pack_is_read_where_its_base_is_and_nowhere_else(tmp_path: Path) -> None:
    storage = Local(tmp_path / "ours")
    storage.create(run_name(1), [sealed({"run": 1, "epoch": (0, 0), "from": None})])
    rank = Rank(storage, Seat(1, (0, 0), 0, 1))
    rank.base(0)
    rank.bases.thread.drain(5.0)
    rank.end()
    base = BaseName(1, 0, (0, 0))
    pack = storage.read(base.pack(0, 1, 0))
    (tmp_path / "theirs").write_bytes(pack)
    told = {"name": "../theirs", "bytes": len(pack), "sha256": hashlib.sha256(pack).hexdigest()}
    share = sealed({"packs": [told], "units": [], "last": 0})
    manifest = {"run": 1, "epoch": (0, 0), "first": 0, "last": 0, "world": 1, "bytes": 0}
    storage.delete([base.share(0, 1), base.manifest])
    storage.create(base.share(0, 1), [share])
    storage.create(base.manifest, [sealed({**manifest, "shares": [hashlib.sha256(share).hexdigest()]})])
    found = Found.of(storage)
    assert [point.base for point in found.points()] == [base]
    assert found.verified() is None
    assert "another one's name" in found.damaged[str(base)]
