"""How does code on this disk become a job? Everything here is pure but `sources`, which reads it."""

from drivetrain_cli.pack.objects import Wish, default_name, objects
from drivetrain_cli.pack.sources import Code, read

__all__ = ["Code", "Wish", "default_name", "objects", "read"]
