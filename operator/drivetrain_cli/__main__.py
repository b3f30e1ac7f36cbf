"""`python -m drivetrain_cli`, for a checkout without installed commands."""

import sys

try:
    from drivetrain_cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # while it was still importing
    sys.exit(130)
