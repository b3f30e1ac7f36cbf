from __future__ import annotations

from pathlib import Path

import pytest

from unit.nodeagent.fake_cards import Cards, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build(tmp_path_factory.mktemp("nvml"))
    if built is None:
        pytest.skip("there is no C compiler here, and the library in NVIDIA's place is C")
    return built


@pytest.fixture
def cards(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Cards:
    root = tmp_path / "cards"
    root.mkdir()
    monkeypatch.setenv("FAKE_NVML", str(root))
    return Cards(root, library)
