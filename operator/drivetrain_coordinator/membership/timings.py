"""How long the membership machine waits for what. Seconds; docs/protocol.md names the reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """All waits of the machine in one place, so that tests can shorten them."""

    silence: float = 3.0
    """A connected launcher that said nothing for so long is as good as disconnected."""
    closed: float = 1.0
    """A closed connection may be a blip: so long may a launcher take to come back, unless ranks report faults too."""
    stall: float = 3.0
    """No step for so long (or twice the usual time of a step): the epoch makes no progress."""
    fault_wait: float = 1.0
    """After a fault with all members seemingly alive: time for a proof of death to arrive."""
    join_batch: float = 0.5
    """Newcomers wait so long for other newcomers."""
    arrival_wait: float = 10.0
    """First epoch of an elastic job: time since the last arrival after which it starts with fewer than it wanted."""
    gather: float = 2.0
    """A new term waits so long after the last arrival for launchers that hand over what they know."""
    deadline: float = 10.0
    """Time to acknowledge an epoch, and ..."""
    deadline_per_member: float = 0.02
    """... more of it for every member; doubled per failure ..."""
    deadline_limit: float = 120.0
    """... up to here."""
    formed_factor: float = 6.0
    """A group must stand, states copied, within so many deadlines after its table."""
    no_progress: float = 900.0
    """No step for so long although the group stands: ranks that are not waiting for others are killed."""
    flush: float = 0.005
    """Late rendezvous keys are told after so long, if not all members put again before."""
    resend: float = 1.0
    """An order that shows no effect is repeated after so long, then at doubling intervals."""
    beat: float = 0.25
    """Upper bound between two looks at the clock."""
