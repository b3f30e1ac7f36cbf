"""`python -m drivetrain_operator.reports.rotate [--finish] < old.json > new.json`: the root Secret's successor.

Without `--finish`, with a new root beside the old one; with it, without the old one. It reads and writes the JSON of a
Secret and talks to nobody: see docs/operations.md for the whole procedure.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from drivetrain_operator.reports.credentials import BadRoot
from drivetrain_operator.reports.trust import rotated_secret


def main() -> int:
    """0; 1 if what came in cannot be rotated, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="rotate", description="Reads a root Secret as JSON, writes its successor.")
    parser.add_argument("--finish", action="store_true", help="drop the previous root: no job has it any more")
    given = parser.parse_args()
    try:
        stored = json.load(sys.stdin)
        renewed = rotated_secret(stored if isinstance(stored, dict) else {}, datetime.now(UTC), finish=given.finish)
    except (ValueError, BadRoot) as error:
        print(f"rotate: {error}", file=sys.stderr)
        return 1
    print(json.dumps(renewed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
