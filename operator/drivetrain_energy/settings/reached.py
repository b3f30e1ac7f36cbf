"""What it takes to be heard by a Prometheus, or by what stands before one: a token, a CA of the site's own, a tenant.

What is secret is the name of a file; what stands in the settings anybody may read who may read ConfigMaps.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from drivetrain_energy.settings.model import FileName, Part, Url

HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")]
"""A token of RFC 9110: no space, no colon, no end of a line."""
HeaderValue = Annotated[str, Field(pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,1022}[\x21-\x7e])?$")]
"""Printable ASCII in one line, without spaces around it."""
OURS: Final = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
        "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Of the request itself."""
SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


class Reached(Part):
    """A Prometheus, or what answers as one: Thanos, Mimir, a gateway."""

    base_url: Url = Field(alias="baseURL")
    token_file: FileName | None = Field(default=None, description="A bearer token.")
    ca_file: FileName | None = Field(
        default=None, description="Certificates in PEM of who may sign its own, in place of those of the image."
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, max_length=16, description="Sent with each request, such as X-Scope-OrgID: a tenant."
    )
    header_files: dict[HeaderName, FileName] = Field(
        default_factory=dict, max_length=16, description="The same of headers whose values are secret."
    )

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        if self.ca_file is not None and not self.base_url.startswith("https://"):
            raise ValueError("caFile is for a baseURL that begins with https://")
        names = [name.lower() for name in (*self.headers, *self.header_files)]
        for name in names:
            if name in OURS:
                raise ValueError(f"headers, headerFiles: {name} is not for settings to say")
            if names.count(name) > 1:
                raise ValueError(f"headers, headerFiles: {name} stands there twice")
        if hidden := SECRET & {name.lower() for name in self.headers}:
            raise ValueError(f"headers: {min(hidden)} is secret: tokenFile or headerFiles name its file")
        if self.token_file is not None and "authorization" in names:
            raise ValueError("tokenFile, headerFiles: only one of them can say authorization")
        return self


__all__ = ["Reached"]
