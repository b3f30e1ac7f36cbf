"""The job cache keeps the newest object, whoever delivers it, in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from drivetrain_operator.act.jobs import JobCache, JobKey, Watcher

KEY = JobKey("team", "a")


def an_object(
    uid: str = "u1", version: int = 1, name: str = "a", created: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": {**metadata, "creationTimestamp": created}}


@dataclass
class Seen:
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def cache(self) -> JobCache:
        return JobCache(
            Watcher(
                lambda _, obj: self.changed.append(obj["metadata"]["resourceVersion"]),
                lambda _, uid: self.gone.append(uid),
            )
        )


@pytest.mark.parametrize(
    ("name", "versions", "kept", "changes"),
    [
        ("in order", [1, 2], "2", ["1", "2"]),
        ("our write came before its event", [5, 3, 5], "5", ["5"]),
        ("numbers, not text", [9, 10], "10", ["9", "10"]),
    ],
)
def test_the_newest_version_stays(name: str, versions: list[int], kept: str, changes: list[str]) -> None:
    seen = Seen()
    cache = seen.cache()
    for version in versions:
        cache.put(an_object(version=version))
    found = cache.get(KEY)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == kept
    assert seen.changed == changes


def test_a_deleted_job_does_not_come_back_with_a_late_answer() -> None:
    seen = Seen()
    cache = seen.cache()
    cache.put(an_object(version=1))
    cache.remove(KEY, "u1")
    assert not cache.put(an_object(version=2))
    assert cache.get(KEY) is None
    assert seen.gone == ["u1"]
    assert cache.key_of_uid("u1") is None


def test_a_namesake_replaces_its_predecessor_and_outlives_late_news_of_it() -> None:
    seen = Seen()
    cache = seen.cache()
    cache.put(an_object("u1", 1))
    cache.put(an_object("u2", 7, created="2026-01-01T00:00:01Z"))
    assert seen.gone == ["u1"]
    cache.put(an_object("u1", 9))
    cache.remove(KEY, "u1")
    found = cache.get(KEY)
    assert found is not None
    assert found["metadata"]["uid"] == "u2"
    assert cache.key_of_uid("u2") == KEY


def test_a_live_list_finds_ghosts_but_keeps_what_is_newer_than_itself() -> None:
    seen = Seen()
    cache = seen.cache()
    cache.put(an_object("ghost", 3, name="ghost"))
    cache.put(an_object("fresh", 12, name="fresh"))
    cache.replace([an_object("u1", 5)], "10")
    assert sorted(key.name for key in cache.jobs()) == ["a", "fresh"]
    assert seen.gone == ["ghost"]
