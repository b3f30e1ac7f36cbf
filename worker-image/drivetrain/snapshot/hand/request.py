"""What does the tool want of a training script that it runs? That it restores a step, writes it to a file, and ends.

Only the script can make the model and the optimizer that the steps since a base are applied to again. It is run as its
user would, alone, and finds this in its environment; `run.batches()` then does what is asked instead of training.
Knows nothing of torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

ENV_EXPORT: Final = "DRIVETRAIN_EXPORT"
SAFETENSORS: Final = "safetensors"
DCP: Final = "dcp"
FORMATS: Final = (SAFETENSORS, DCP)
_OF_A_RANK: Final = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RUN_ID"),
)
"""What would make the script one of several."""


@dataclass(frozen=True, slots=True)
class Request:
    """One export."""

    to: str
    """File or folder."""
    format: str
    told: str
    """A file for what has become of it."""
    step: int | None = None
    """None: the newest."""
    storage: str | None = None
    """None: where the job or the script keeps its snapshots."""

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Of the script."""
        kept = {name: value for name, value in inherited.items() if name not in _OF_A_RANK}
        return {**kept, ENV_EXPORT: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Request | None:
        """None: this process is to train."""
        text = os.environ.get(ENV_EXPORT)
        return None if text is None else cls(**json.loads(text))

    def tell(self, what: Mapping[str, Any]) -> None:
        """In the script: what has become of it."""
        with open(self.told, "w", encoding="utf-8") as file:
            json.dump(dict(what), file)
