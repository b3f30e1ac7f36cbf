"""A node that is too hot: capped step by step, then left; and cool again."""

from drivetrain_energy.power.caps import Limits
from drivetrain_energy.power.heat import Heat, Level, read

LIMIT = 85.0


def run(heat: Heat, readings: list[tuple[float, float | None]]) -> tuple[Heat, list[str]]:
    events = []
    for time, celsius in readings:
        turn = read(heat, time, celsius, LIMIT)
        heat = turn.heat
        events += [turn.event] if turn.event else []
    return heat, events


def every(start: int, end: int, celsius: float | None) -> list[tuple[float, float | None]]:
    return [(float(second), celsius) for second in range(start, end, 2)]


def test_capped_at_once_with_an_event() -> None:
    heat, events = run(Heat(), [(0, 86)])
    assert (heat.level, heat.cap(Limits(100, 400))) == (Level.CAPPED, 325)
    assert events == ["86 °C, 85 °C allowed: its cards are capped"]


def test_lower_and_lower_and_then_its_jobs_are_to_leave() -> None:
    heat, events = run(Heat(), every(0, 100, 90))
    assert (heat.level, heat.cap(Limits(100, 400))) == (Level.CAPPED, 100)
    heat, more = run(heat, every(100, 240, 90))
    assert heat.level is Level.DRAIN
    assert more == ["90 °C, 85 °C allowed at the least cap: jobs are to leave"]
    assert len(events) == 1


def test_a_cap_that_helps_is_enough() -> None:
    heat, _ = run(Heat(), [(0, 86), *every(2, 400, 83)])
    assert (heat.level, heat.step) == (Level.CAPPED, 1)


def test_cool_again_step_by_step() -> None:
    heat, _ = run(Heat(), every(0, 64, 90))
    assert heat.step == 3
    heat, events = run(heat, every(64, 400, 70))
    assert heat.level is Level.FINE
    assert events == ["70 °C: cool again"]


def test_what_cannot_be_read_changes_nothing() -> None:
    heat, _ = run(Heat(), [(0, 90)])
    assert run(heat, every(2, 500, None)) == (heat, [])


def test_jobs_come_back_to_a_node_that_is_cool() -> None:
    heat, events = run(Heat(Level.DRAIN, 4, 0.0), every(0, 400, 60))
    assert heat.level is Level.FINE
    assert events == ["60 °C: cool again"]
