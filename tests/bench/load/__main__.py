"""`make load`: as many launchers and jobs as are declared, on one coordinator and one operator; strangers beside."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.load import coordinator, operator
from cluster.down import down
from cluster.layout import kubeconfig
from cluster.up import up


def main() -> int:
    """Measure, and print one line of figures last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launchers", type=int, default=4096, help="on one coordinator; 0: none (default: 4096)")
    parser.add_argument("--jobs", type=int, default=5000, help="on one operator; 0: none (default: 5000)")
    parser.add_argument("--strangers", type=int, default=2000, help="hostile connections (default: 2000)")
    given = parser.parse_args()
    figures = []
    if given.launchers:
        one = asyncio.run(coordinator.measure(given.launchers, given.strangers))
        figures.append(f"coordinator_rss_mb={one.rss_mb:.0f} coordinator_delay_p99_ms={coordinator.delay_ms(one):.0f}")
    if given.jobs:
        mine = not kubeconfig().exists()
        try:
            if mine:
                up(1)
            with tempfile.TemporaryDirectory() as folder:
                figures.append(operator.line(asyncio.run(operator.measure(given.jobs, given.strangers, Path(folder)))))
        finally:
            if mine:
                down()
    print(" ".join(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
