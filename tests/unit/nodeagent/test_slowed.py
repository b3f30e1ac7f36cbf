"""Which of NVML's reasons for lower clocks are a card's own trouble?"""

from __future__ import annotations

import pytest

from drivetrain_nodeagent.nvml import Nvml
from unit.nodeagent.fake_cards import Cards

REASONS = {
    "idle": (0x1, False),
    "clocks that somebody set": (0x2, False),
    "a power cap": (0x4, False),
    "hardware": (0x8, True),
    "heat, by the driver": (0x20, True),
    "heat, by the card": (0x40, True),
    "the brake of its board": (0x80, True),
    "a power cap and heat": (0x44, True),
}


@pytest.mark.parametrize(("bits", "slowed"), REASONS.values(), ids=REASONS)
def test_heat_and_its_board_slow_a_card(cards: Cards, bits: int, slowed: bool) -> None:
    cards.add()
    cards.slow(bits)
    nvml = Nvml(str(cards.library))
    assert [nvml.slowed(device) for device in nvml.devices()] == [slowed]


def test_who_cannot_tell_is_not_slowed(cards: Cards) -> None:
    cards.add()
    nvml = Nvml(str(cards.library))
    assert [nvml.slowed(device) for device in nvml.devices()] == [False]
