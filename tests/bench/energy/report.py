"""What `make bench-energy` prints before its last line: all zones, the bad ones too."""

from __future__ import annotations

from statistics import mean

from bench.energy.closed import Outcome
from bench.energy.fleets import JOBS, NODES, Fleet
from bench.energy.single import Cells

NAMES = ("agnostic", "suspend_resume", "best_static", "carbonscaler")


def single(cells: Cells, covs: dict[str, float]) -> None:
    """One job, perfect forecast."""
    heads = "".join(f"{name:>16}" for name in NAMES) + f"{'worst start':>13}{'node-hours':>12}{'(CarbonSc.)':>12}"
    for kind in dict.fromkeys(kind for kind, *_ in cells):
        print(f"\n{kind}: grams of ours over those of …, node-hours over agnostic's; means over profiles and slacks")
        print(f"{'zone':<13}{'CoV':>5}{heads}")
        for zone, varies in covs.items():
            here = [cell for (this, _, place, _), cell in cells.items() if (this, place) == (kind, zone)]
            ratios = "".join(f"{mean(cell.ratio('ours', name) for cell in here):>16.3f}" for name in NAMES)
            nodes = "".join(f"{mean(cell.nodes(who) for cell in here):>12.2f}" for who in ("ours", "carbonscaler"))
            print(f"{zone:<13}{varies:>5.2f}{ratios}{max(cell.worst_scaler for cell in here):>13.4f}{nodes}")
    for other in ("agnostic", "carbonscaler"):
        print(f"\nworst cells beside {other}: grams over its grams, node-hours over agnostic's")
        for key, cell in sorted(cells.items(), key=lambda item: -item[1].ratio("ours", other))[:4]:
            print(f"  {' '.join(map(str, key))} h: {cell.ratio('ours', other):.3f}, {cell.nodes('ours'):.2f}")


def closed(outcomes: dict[str, Outcome]) -> None:
    """In closed loop."""
    print(
        "\nclosed loop: profiles 0–20 % too fast, noise up to 20 %, workers that rejoin; margin 10 %, reserve 2 hours"
    )
    heads = f"{'safety, points':>16}{'history only':>14}{'worst':>8}{'±30 % off':>11}{'plans/job':>11}"
    print(f"{'zone':<13}{'runs':>7}{'missed':>8}{heads}")
    for zone, one in outcomes.items():
        print(
            f"{zone:<13}{one.runs:>7}{one.missed:>8}{one.cost:>16.2f}{one.history:>14.3f}{one.worst_history:>8.2f}"
            f"{one.noisy:>11.3f}{one.plans:>11.1f}"
        )


def fleets(some: dict[tuple[str, int], Fleet]) -> None:
    """Jobs that share nodes."""
    print(f"\n{JOBS} jobs on {NODES} nodes, grams over the optimum's (of somebody who knew all jobs)")
    for (zone, seed), one in some.items():
        print(
            f"{zone:<13}{seed:>3}  ours {one.ours:.3f} (all known at once {one.at_once:.3f}), missed {one.missed};"
            f" CarbonScaler first come {one.scaler:.3f}, missed {one.scaler_missed}"
        )


__all__ = ["closed", "fleets", "single"]
