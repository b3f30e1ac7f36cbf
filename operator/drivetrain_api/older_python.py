"""What Python 3.10 lacks, under the names that newer ones have. Our own images have a newer one; an image of a user's
may have this one (spec.runtimeFrom). Everything else is written for the newest."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from datetime import UTC
    from enum import StrEnum
else:
    from datetime import timezone
    from enum import Enum

    UTC = timezone.utc

    class StrEnum(str, Enum):
        """A string in every respect, also when it is formatted."""

        __str__ = str.__str__
        __format__ = str.__format__


__all__ = ["UTC", "StrEnum"]
