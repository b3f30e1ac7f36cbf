"""PURE: a plan as a picture: workers over time, with the intensity of the grid behind them. An SVG of its own, without
script, for light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

from drivetrain_api.older_python import UTC
from drivetrain_energy.job.plan import Plan
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Slot

WIDE: Final = 960.0
HIGH: Final = 320.0
LEFT: Final = 52.0
RIGHT: Final = WIDE - 52.0
TOP: Final = 44.0
BOTTOM: Final = HIGH - 40.0
TICKS: Final = 6
STYLE: Final = """
svg { background: #fff; font: 12px system-ui, sans-serif; fill: #222; }
.grid { stroke: #ddd; } .grams { fill: #b8860b; fill-opacity: .22; }
.workers { fill: none; stroke: #1a66cc; stroke-width: 2.5; } .left { fill: #1a66cc; } .right { fill: #8a6508; }
.deadline { stroke: #c22; stroke-width: 2; stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) {
  svg { background: #16181c; fill: #ddd; } .grid { stroke: #3a3d44; } .grams { fill: #e0b040; }
  .workers { stroke: #6ab0ff; } .left { fill: #6ab0ff; } .right { fill: #e0b040; }
}
"""


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is shown: from when to when, up to how many workers and how much intensity."""

    start: float
    end: float
    workers: int
    intensity: float

    def x(self, time: float) -> float:
        return LEFT + (RIGHT - LEFT) * (min(max(time, self.start), self.end) - self.start) / (self.end - self.start)


def picture(name: str, plan: Plan, request: Request) -> str:
    """The whole file."""
    end = max(plan.finish, min(plan.deadline, request.now + 3 * (plan.finish - request.now) + 3600)) + 1
    signal = request.signal
    near = [slot for slot in signal.slots if slot.end > request.now and slot.start < end] if signal is not None else []
    frame = _Frame(
        request.now,
        end,
        max([1, *(slot.workers for slot in plan.slots)]),
        max((slot.value for slot in near), default=0.0) or 1.0,
    )
    unit = signal.unit if near and signal is not None else ""
    parts = [*_grid(), *_grams(frame, near), _workers(frame, plan), *_deadline(frame, plan), *_times(frame)]
    parts += [*_scale(frame, bool(near)), _text(LEFT, 18, "workers", "left", "start")]
    parts += [_text(RIGHT, 18, unit, "right", "end"), _text(WIDE / 2, 18, name, "", "middle")]
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE:g} {HIGH:g}" role="img" aria-labelledby="t d"'
    told = f'<title id="t">Plan of {escape(name)}</title><desc id="d">{escape(plan.why)}</desc>'
    return f"<svg {head}>{told}<style>{STYLE}</style>{''.join(parts)}</svg>\n"


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _grid() -> Iterator[str]:
    for quarter in range(5):
        y = _y(quarter / 4)
        yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _grams(frame: _Frame, near: Sequence[Slot]) -> Iterator[str]:
    for slot in near:
        left, right = frame.x(slot.start), frame.x(slot.end)
        top = _y(max(0.0, slot.value) / frame.intensity)
        size = f'width="{right - left:.1f}" height="{BOTTOM - top:.1f}"'
        yield f'<rect class="grams" x="{left:.1f}" y="{top:.1f}" {size}/>'


def _workers(frame: _Frame, plan: Plan) -> str:
    path = f"M{frame.x(frame.start):.1f},{BOTTOM:.1f}"
    for slot in plan.slots:
        if slot.start >= plan.finish:
            break
        y = _y(slot.workers / frame.workers)
        path += f" L{frame.x(slot.start):.1f},{y:.1f} L{frame.x(min(slot.end, plan.finish)):.1f},{y:.1f}"
    return f'<path class="workers" d="{path} L{frame.x(plan.finish):.1f},{BOTTOM:.1f}"/>'


def _deadline(frame: _Frame, plan: Plan) -> Iterator[str]:
    if plan.deadline <= frame.end:
        x = frame.x(plan.deadline)
        yield f'<line class="deadline" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BOTTOM}"/>'
        yield _text(x - 4, TOP - 6, "deadline", "", "end")


def _times(frame: _Frame) -> Iterator[str]:
    form = "%a %H:%M" if frame.end - frame.start > 600 else "%H:%M:%S"
    for tick in range(TICKS + 1):
        at = frame.start + (frame.end - frame.start) * tick / TICKS
        yield _text(frame.x(at), HIGH - 14, datetime.fromtimestamp(at, UTC).strftime(form), "", "middle")


def _scale(frame: _Frame, has_grams: bool) -> Iterator[str]:
    step = max(1, -(-frame.workers // 8))
    for count in {*range(0, frame.workers, step), frame.workers}:
        yield _text(LEFT - 8, _y(count / frame.workers) + 4, str(count), "left", "end")
    for quarter in range(5) if has_grams else ():
        yield _text(RIGHT + 8, _y(quarter / 4) + 4, f"{frame.intensity * quarter / 4:.0f}", "right", "start")


__all__ = ["picture"]
