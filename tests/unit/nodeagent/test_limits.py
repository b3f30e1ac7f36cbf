"""Which limit stands in the end: within the card's own, never above what was there, never against somebody else's."""

from pathlib import Path

import pytest

from drivetrain_nodeagent.errors import JournalError, NvmlMissing
from drivetrain_nodeagent.guardian import restore
from drivetrain_nodeagent.journal import Journal
from drivetrain_nodeagent.limits import Limits
from drivetrain_nodeagent.nvml import Nvml
from unit.nodeagent.fake_cards import Cards

CARD = "GPU-gpu0"


class Agent:
    def __init__(self, cards: Cards, journal: Path) -> None:
        self.nvml = Nvml(str(cards.library))
        self.devices = self.nvml.devices()
        self.limits = Limits(self.nvml, Journal(journal))

    def cap(self, watts: float | None) -> float | None:
        return self.limits.apply(self.devices, {} if watts is None else {CARD: watts})[CARD]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "limits.json"


@pytest.mark.parametrize(
    ("former", "cap", "stands", "ours"),
    [
        (400, 250, 250, 250),
        (400, 20, 100, 100),
        (400, 9000, 400, None),
        (300, 350, 300, None),
        (300, 300, 300, None),
        (300, 250.4, 250.4, 250.4),
    ],
)
def test_a_cap(cards: Cards, journal: Path, former: float, cap: float, stands: float, ours: float | None) -> None:
    cards.add(limit=former)
    agent = Agent(cards, journal)
    assert agent.cap(cap) == ours
    assert cards.limit() == stands
    assert agent.cap(None) is None
    assert cards.limit() == former
    assert Journal(journal).entries() == {}


def test_caps_one_after_another_keep_the_former_limit(cards: Cards, journal: Path) -> None:
    cards.add(limit=350)
    agent = Agent(cards, journal)
    for cap in (300, 200, 340, 120):
        assert agent.cap(cap) == cap == cards.limit()
    agent.cap(None)
    assert cards.limit() == 350


def test_a_limit_that_somebody_else_sets_stays(cards: Cards, journal: Path) -> None:
    cards.add()
    agent = Agent(cards, journal)
    agent.cap(250)
    cards.set_limit(320)
    agent.cap(None)
    assert cards.limit() == 320


def test_a_limit_that_somebody_else_sets_is_the_one_that_is_given_back(cards: Cards, journal: Path) -> None:
    cards.add()
    agent = Agent(cards, journal)
    agent.cap(250)
    cards.set_limit(320)
    assert agent.cap(250) == 250
    agent.cap(None)
    assert cards.limit() == 320


def test_a_lower_limit_that_somebody_else_sets_is_not_raised(cards: Cards, journal: Path) -> None:
    cards.add()
    agent = Agent(cards, journal)
    agent.cap(250)
    cards.set_limit(150)
    assert agent.cap(250) is None
    assert cards.limit() == 150


def test_a_former_limit_that_the_card_takes_no_more(cards: Cards, journal: Path) -> None:
    cards.add()
    Agent(cards, journal).cap(250)
    cards.add(limit=250, most=360, default=360)
    restore(journal, str(cards.library))
    assert cards.limit() == 360


def test_a_card_that_refuses_does_not_keep_others_from_theirs(cards: Cards, journal: Path) -> None:
    cards.add(0)
    cards.add(1)
    agent = Agent(cards, journal)
    cards.fault("refuse", "nvmlDeviceSetPowerManagementLimit", 4)
    agent.limits.apply(agent.devices, {CARD: 250, "GPU-gpu1": 250})
    cards.mend()
    found = agent.limits.apply(agent.devices, {CARD: 250, "GPU-gpu1": 250})
    assert found == {CARD: 250, "GPU-gpu1": 250}
    assert (cards.limit(0), cards.limit(1)) == (250, 250)


def test_a_card_that_is_gone_is_forgotten(cards: Cards, journal: Path) -> None:
    cards.add(0)
    cards.add(1)
    agent = Agent(cards, journal)
    agent.limits.apply(agent.devices, {"GPU-gpu1": 250})
    for file in (cards.root / "gpu1").iterdir():
        file.unlink()
    (cards.root / "gpu1").rmdir()
    restore(journal, str(cards.library))
    assert Journal(journal).entries() == {}


def test_a_journal_that_cannot_be_read_is_said_and_nothing_is_changed(cards: Cards, journal: Path) -> None:
    cards.add(limit=250)
    journal.write_text('{"GPU-gpu0": ')
    with pytest.raises(JournalError, match=r"limits\.json"):
        restore(journal, str(cards.library))
    assert cards.limit() == 250


def test_no_journal_no_change(cards: Cards, tmp_path: Path) -> None:
    cards.add()
    agent = Agent(cards, tmp_path / "limits.json")
    (tmp_path / "limits.new").mkdir()
    with pytest.raises(JournalError, match=r"limits\.json"):
        agent.cap(250)
    assert cards.limit() == 400


def test_no_driver(tmp_path: Path) -> None:
    with pytest.raises(NvmlMissing, match=r"libnothing\.so"):
        Nvml("libnothing.so")


def test_a_journal_of_a_node_whose_driver_is_gone(journal: Path) -> None:
    journal.write_text('{"GPU-gpu0": {"former": 400, "ours": [250]}}')
    restore(journal, "libnothing.so")
    assert set(Journal(journal).entries()) == {CARD}
