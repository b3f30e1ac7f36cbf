"""What scripts that are run as under torchrun may import, to tell how far they are: `docs/frameworks.md`.

Nothing here makes a script one of Drivetrain's own, and nothing imports a framework unless it is asked for. Outside of
a job all of it does nothing.
"""

from drivetrain.integrations.progress import report

__all__ = ["report"]
