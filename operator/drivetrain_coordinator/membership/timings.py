"""How long the membership machine waits for what. Seconds; docs/protocol.md names the reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """All waits of the machine in one place, so that tests can shorten them."""

    silence: float = 3.0
    """A connected launcher that said nothing for so long is as good as disconnected; in large jobs, for three
    heartbeats."""
    heartbeat: float = 0.5
    """So often a launcher speaks that knows no news; less often ..."""
    heartbeats_heard: float = 2048.0
    """... where all together would say more than this in a second, which is a third of a coordinator's time."""
    closed: float = 1.0
    """A closed connection may be a blip: so long may a launcher take to come back, unless ranks report faults too."""
    stall: float = 3.0
    """No step for so long (or twice the usual time of a step): the epoch makes no progress."""
    stock_gone: float = 15.0
    """A worker that is out of reach, of a script that says nothing of its steps, is given up after so long: it may well
    run on, and to go on without it starts all ranks again."""
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
    deaf: float = 2.0
    """A rank of which its launcher heard nothing for so long may be elsewhere by now, and is not known to wait."""
    standstill: float = 5.0
    """People are told of a standstill after so long, or ..."""
    standstill_steps: float = 10.0
    """... after so many usual steps, or ..."""
    standstill_soon: float = 15.0
    """... after this, if that is sooner, but not before ..."""
    standstill_steps_slow: float = 4.0
    """... so many usual steps, and ..."""
    standstill_long: float = 60.0
    """... not before this, where nothing has a usual length (see standstill.py)."""
    holdup: float = 1.0
    """Between two looks at who holds the others up in every step."""
    no_progress: float = 600.0
    """A job that does not say more stands still for so long before ranks are killed for it, or ..."""
    no_progress_steps: float = 20.0
    """... for so many usual steps, and ..."""
    no_progress_first: float = 1800.0
    """... not less than this before the first step of a membership, and ..."""
    no_progress_long: float = 3600.0
    """... than this, where nothing has a usual length."""
    flush: float = 0.005
    """Late rendezvous keys are told after so long, if not all members put again before."""
    resend: float = 1.0
    """An order that shows no effect is repeated after so long, then at doubling intervals."""
    beat: float = 0.25
    """Upper bound between two looks at the clock."""
    crowd: int = 256
    """A look at all rules takes time with the number of launchers: with more than these ..."""
    look_per_launcher: float = 50e-6
    """... news waits for the next one so long for each, or thousands that come at once would keep it looking."""

    def heartbeat_of(self, launchers: int) -> float:
        """Seconds between two words of each of so many."""
        return max(self.heartbeat, launchers / self.heartbeats_heard)

    def between_looks(self, launchers: int) -> float:
        """Seconds; 0 for most jobs."""
        return launchers * self.look_per_launcher if launchers > self.crowd else 0.0
