"""Run histories by seed: `python -m unit.coordinator.sim SEED [COUNT [FAULT,FAULT...]]`; one seed prints a trace."""

from __future__ import annotations

import sys
import time
from collections import Counter

from unit.coordinator.sim.clock import Violation
from unit.coordinator.sim.world import World


def main() -> int:
    """0 if no invariant broke."""
    first = int(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    focus = tuple(sys.argv[3].split(",")) if len(sys.argv) > 3 else ()
    counts: Counter[str] = Counter()
    failed = 0
    started = time.process_time()
    for seed in range(first, first + count):
        world = World(seed, trace=count == 1, focus=focus)
        try:
            world.run()
        except Violation as error:
            failed += 1
            if failed <= 10:
                print(error)
        counts.update(world.clock.counts)
    seconds = time.process_time() - started
    print(f"{count} histories, {failed} violations, {1000 * seconds / count:.2f} ms each")
    for name, number in sorted(counts.items()):
        print(f"{number:9d} {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
