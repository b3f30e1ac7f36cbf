"""`python -m drivetrain.snapshot`."""

import sys

from drivetrain.snapshot.hand.command import main

if __name__ == "__main__":
    sys.exit(main())
