"""`make bench-energy`: carbon of our plans beside the optimum and beside others, in all zones, good and bad."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean

from bench.energy import closed, fleets, report, single, unknown
from bench.energy.zones import cov, trace, zones

WORKERS = 2


def main() -> int:
    """Measure, and print one line of figures last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=18, help="of zones, jobs and what goes wrong (default: 18)")
    parser.add_argument("--every", type=int, default=single.EVERY, help="hours between starts (default: 7)")
    parser.add_argument("--repeats", type=int, default=1, help="closed loops of each start and shortfall (default: 1)")
    parser.add_argument("--fleets", type=int, default=3, help="sets of 40 jobs in each of four zones (default: 3)")
    parser.add_argument(
        "--trace", type=Path, action="append", default=[], help="CSV of hourly timestamp,g_per_kwh: a zone more"
    )
    given = parser.parse_args()
    grids = zones(given.seed) | {path.stem: trace(path) for path in given.trace}
    took = fleets.seconds_for(1000, 168)
    with ProcessPoolExecutor(WORKERS) as pool:
        parts = [pool.submit(single.measure, {zone: values}, given.every, 8) for zone, values in grids.items()]
        looped = {
            zone: pool.submit(closed.zone, values, given.seed, given.every, given.repeats)
            for zone, values in grids.items()
        }
        shared = {
            (zone, seed): pool.submit(fleets.measure, grids[zone], seed)
            for zone in ("mixed", "solar", "wind", "nuclear-gas")
            for seed in range(given.fleets)
        }
        tried = pool.submit(unknown.compared, grids, (2.0, 8.0, 24.0), 1, given.seed)
        cells = {key: cell for part in parts for key, cell in part.result().items()}
        outcomes = {zone: one.result() for zone, one in looped.items()}
        some = {key: one.result() for key, one in shared.items()}
    report.single(cells, {zone: cov(values) for zone, values in grids.items()})
    report.closed(outcomes)
    report.fleets(some)
    print("\nwithout a profile, grams over those of a known curve, by hours of work:", *tried.result(), sep="\n")
    print()
    for name, kind in (("workers × caps, power of GPUs only", "caps"), ("workers alone, without hosts", "workers")):
        print(f"{name}: {_beside_scaler(cells, kind):.3f} of CarbonScaler's")
    print(f"safety: {mean(one.cost for one in outcomes.values()):.2f} points on average")
    print(
        f"vs_lp={max(cell.worst_lp for cell in cells.values()):.4f}"
        f" vs_carbonscaler={_beside_scaler(cells, 'workers+host'):.3f}"
        f" vs_carbonscaler_caps={_beside_scaler(cells, 'caps+host'):.3f}"
        f" missed={sum(one.missed for one in outcomes.values())} runs={sum(one.runs for one in outcomes.values())}"
        f" jobs_vs_lp={mean(one.ours for one in some.values()):.3f}"
        f" regret_no_forecast={mean(one.history for one in outcomes.values()):.3f}"
        f" plan_1000x168_s={took:.2f}"
    )
    return 0


def _beside_scaler(cells: single.Cells, kind: str) -> float:
    return mean(cell.ratio("ours", "carbonscaler") for (this, *_), cell in cells.items() if this == kind)


if __name__ == "__main__":
    sys.exit(main())
