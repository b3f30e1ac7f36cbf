"""What did recovery cost so far, in this process?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """All of it."""

    recomputed_steps: int = 0
    """Steps that were interrupted here and tried again."""
    redone_steps: int = 0
    """Steps that a peer had committed and this member had not: taken over with the peer's state."""
    joins: int = 0
    """Newcomers that got the state of this membership (counted once, by the giver)."""
    states_received: int = 0
    skipped_steps: int = 0
    """Steps whose gradient overflowed fp16."""
    memberships: int = 0
    corruptions: int = 0
    """How often this rank held other bits than its peers, and took theirs."""
