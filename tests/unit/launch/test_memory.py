"""The kernel's counter of kills for memory, in both layouts of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivetrain.launch.memory import MemoryKills, out_of_memory_kills


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 1\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        ("oom_kill_disable 0\nunder_oom 0\n", 0),
        ("", 0),
    ],
)
def test_the_counter_is_read(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "events").write_text(text)
    assert out_of_memory_kills((tmp_path / "absent", tmp_path / "events")) == expected


def test_each_kill_is_noticed_once_and_none_from_before(tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.write_text("oom_kill 2\n")
    kills = MemoryKills((events,))
    assert not kills.happened()
    events.write_text("oom_kill 3\n")
    assert kills.happened()
    assert not kills.happened()


def test_without_a_cgroup_there_is_none(tmp_path: Path) -> None:
    assert out_of_memory_kills((tmp_path / "absent",)) == 0
