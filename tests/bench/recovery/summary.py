"""The result: a line for each mode, a table by kind of fault, torchrun beside it, and the last line."""

from __future__ import annotations

from collections import Counter
from statistics import median

from bench.recovery.faults import APART
from bench.recovery.jobs import BATCH, SCRIPT
from bench.recovery.outcome import Outcome, Totals
from bench.torchrun import torchrun_recovery

LOSS_BAND = 0.05
"""How far the final loss (mean of the last 20 steps) may lie from the uninterrupted run's; it starts at about 2.5."""


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def mode_summary(mode: str, totals: Totals, expected_loss: float) -> None:
    """Print what one mode's jobs came to, and add to its problems what is wrong with it."""
    band = [
        f"final loss {loss:.4f} is further than {LOSS_BAND} from the uninterrupted run's"
        for loss in totals.losses
        if not abs(loss - expected_loss) <= LOSS_BAND
    ]
    totals.problems += band
    members = f"members equal in {totals.equal_members}/{totals.jobs} jobs, "
    members += f"bitwise as uninterrupted {totals.bitwise}/{totals.jobs}"
    if mode.startswith("zero"):
        members = "each member has a part of the state"
    print(
        f"{mode}: {len(totals.outcomes)} faults in {totals.jobs} jobs, counts {dict(totals.counts)}, "
        f"survivors {totals.survivors} (changed {totals.survivors_changed}), "
        f"{members}, "
        f"final loss {[round(loss, 4) for loss in totals.losses]} "
        f"(uninterrupted {expected_loss:.4f}, band {LOSS_BAND}), "
        f"largest rank {max(totals.peak_mb, default=0)} MB"
    )
    for problem in [*totals.lost, *totals.problems]:
        print(f"PROBLEM {problem}")


def summary(modes: dict[str, Totals], torchrun_runs: int) -> int:
    """Print everything; 1 if anything was wrong, whatever the times were."""
    outcomes = [outcome for totals in modes.values() for outcome in totals.outcomes]
    _table(outcomes)
    for mode, totals in modes.items():
        times = _seconds(totals.outcomes)
        if times:
            print(
                f"{mode}: p50 {1e3 * median(times):.0f}, p95 {1e3 * percentile(times, 0.95):.0f} ms (n={len(times)}), "
                f"lost_steps={len(totals.lost)}"
            )
    killed = _seconds(outcomes)
    kills = sum(each.kind != "blip" for each in outcomes)
    hangs = sum(each.seconds is None for each in outcomes)
    lost = sum(len(totals.lost) for totals in modes.values())
    deterministic = modes.get("deterministic", Totals())
    tuned = torchrun_recovery(SCRIPT, torchrun_runs, BATCH) if torchrun_runs else float("nan")
    p95 = 1e3 * percentile(killed, 0.95) if killed else float("nan")
    print(
        f"recovery_p95_ms={p95:.0f} max_ms={1e3 * max(killed, default=0):.0f} kills={kills} hangs={hangs} "
        f"lost_steps={lost} bitwise={deterministic.bitwise}/{deterministic.jobs} torchrun_tuned_ms={tuned:.0f} "
        f"ratio={tuned / p95:.1f}"
    )
    wrong = hangs or lost or deterministic.bitwise != deterministic.jobs
    return 1 if wrong or any(totals.problems for totals in modes.values()) else 0


def _seconds(outcomes: list[Outcome]) -> list[float]:
    return [each.seconds for each in outcomes if each.kind not in APART and each.seconds is not None]


def _table(outcomes: list[Outcome]) -> None:
    kinds = Counter(each.kind for each in outcomes)
    print(f"{'kind':<14}{'n':>5}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'raw p50':>9}{'step p50':>10}")
    for kind in sorted(kinds, key=lambda kind: (kind in APART, kind)):
        back = [each for each in outcomes if each.kind == kind and each.seconds is not None]
        times = [each.seconds for each in back if each.seconds is not None]
        if times:
            raw = median(each.raw for each in back if each.raw is not None)
            step = median(each.step_seconds for each in back)
            print(
                f"{kind:<14}{kinds[kind]:>5}{1e3 * median(times):>9.0f}{1e3 * percentile(times, 0.95):>9.0f}"
                f"{1e3 * max(times):>9.0f}{1e3 * raw:>9.0f}{1e3 * step:>10.0f}"
            )
    print(f"not in the figures over all kills: {', '.join(APART)}")
