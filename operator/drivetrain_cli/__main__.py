"""`python -m drivetrain_cli`, for a checkout without installed commands."""

import sys

from drivetrain_cli.main import main

sys.exit(main())
