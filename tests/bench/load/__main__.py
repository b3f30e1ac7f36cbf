"""`make load`: as many launchers and jobs as are declared, on one coordinator and one operator; strangers beside."""

from __future__ import annotations

import argparse
import asyncio
import sys

from bench.load import coordinator


def main() -> int:
    """Measure, and print one line of figures last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launchers", type=int, default=4096, help="on one coordinator (default: 4096)")
    parser.add_argument("--strangers", type=int, default=2000, help="hostile connections (default: 2000)")
    given = parser.parse_args()
    one = asyncio.run(coordinator.measure(given.launchers, given.strangers))
    print(f"coordinator_rss_mb={one.rss_mb:.0f} loop_delay_p99_ms={coordinator.delay_ms(one):.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
