"""RAPL and hwmon, from folders as Linux has them."""

from pathlib import Path

import pytest

from drivetrain_nodeagent.sensors import Rapl, hottest


def zone(sys: Path, name: str, kind: str, energy: int, most: int = 262_143_328_850) -> Path:
    folder = sys / "class" / "powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


def test_packages_and_memory_count_and_their_parts_do_not(tmp_path: Path) -> None:
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
    }
    for name, kind in zones.items():
        zone(tmp_path, name, kind, 0)
    rapl = Rapl(tmp_path)
    assert rapl.read() == {"package-0": 0, "dram-0": 0, "package-1": 0}
    for name, kind in zones.items():
        zone(tmp_path, name, kind, 5_000_000)
    assert rapl.read() == {"package-0": 5, "dram-0": 5, "package-1": 5}


@pytest.mark.parametrize(("before", "after", "joules"), [(10, 3_000_010, 3), (9_000_000, 999_999, 2), (5, 5, 0)])
def test_a_counter_goes_round(tmp_path: Path, before: int, after: int, joules: float) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", before, most=9_999_999)
    rapl = Rapl(tmp_path)
    rapl.read()
    zone(tmp_path, "intel-rapl:0", "package-0", after, most=9_999_999)
    assert rapl.read() == {"package-0": pytest.approx(joules)}


def test_a_counter_that_may_not_be_read_now_is_not_counted_as_nothing(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    rapl = Rapl(tmp_path)
    rapl.read()
    (folder / "energy_uj").write_text("")
    assert rapl.read() == {"package-0": 0}
    (folder / "energy_uj").write_text("4000000")
    assert rapl.read() == {"package-0": 3}


def test_no_rapl_and_no_sensors(tmp_path: Path) -> None:
    assert Rapl(tmp_path).read() == {}
    assert hottest(tmp_path) is None


def test_the_hottest_that_is_connected(tmp_path: Path) -> None:
    chip = tmp_path / "class" / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    for index, value in enumerate(("45000", "71500", "255000", "-128000", "broken")):
        (chip / f"temp{index}_input").write_text(value)
    assert hottest(tmp_path) == 71.5
