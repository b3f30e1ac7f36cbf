"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is; and the first text in a fresh clone waits for a table of
# Unicode to be made. pytest-timeout ends what hangs.
settings.register_profile("drivetrain", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("drivetrain")
