"""What all parts of energy.yaml have in common: camelCase, strict, and a name that is not known is an error."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """Frozen, so that two documents can be compared part by part: what has not changed keeps what it knows."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


def _time_zone(name: str) -> str:
    from zoneinfo import ZoneInfo  # reads files: only where a zone is named

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone of the IANA list, such as Europe/Berlin") from None
    return name


def _file(name: str) -> str:
    if name in (".", ".."):
        raise ValueError("is the name of a file")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""Of a source, a tariff, a domain."""
ZoneName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][-_.A-Za-z0-9]{0,62}$")]
"""Of a part of the grid, as power domains and jobs call it: DE, US-CAL-CISO, CAISO_NORTH."""
FileName = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$"), AfterValidator(_file)]
"""A key of a Secret or a ConfigMap: a file in the folder that it is mounted at."""
Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$", max_length=2048)]
"""Without user, query or fragment: credentials are files."""
TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_time_zone)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
"""ISO 4217, such as EUR."""

__all__ = ["Currency", "FileName", "Name", "Part", "TimeZone", "Url", "ZoneName"]
