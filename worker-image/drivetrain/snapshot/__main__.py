"""`python -m drivetrain.snapshot`."""

import sys

from drivetrain.snapshot.hand.command import main

sys.exit(main())
