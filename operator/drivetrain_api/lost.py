"""What a launcher tells the operator: POSTed to `<reports>/v1/lost` about once a second, while it is true."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from drivetrain_api.messages import PROTOCOL_MAX


class LostCoordinator(BaseModel):
    """The coordinator that had welcomed this launcher cannot be reached any more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    protocol: int = PROTOCOL_MAX
    job_uid: str = Field(max_length=64)
    pod_uid: str = Field(max_length=64)
    term: int = Field(ge=1, le=2**31 - 1)
    """Of the coordinator that is lost."""
