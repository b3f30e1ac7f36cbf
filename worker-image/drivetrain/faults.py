"""Named points at which tests and benchmarks may stop, kill or delay this very process.

In production no handler is installed and a point costs one comparison. The names are the vocabulary of the recovery
benchmark: `bucket` (a gradient bucket was handed to the transport), `gathering` (so were the last of the step),
`reduced` (all gradients are in, nothing is applied), `copied` (also those of another rank's part), `readied` (this rank
could make its update), `heard` (so could all), `committed` (the update is applied), `forming` (a new process group is
being built), `decided` (it is known whether an update of the last one is made), `copying` (state is on its way to a
peer), `promoted` (a spare became a member), `ready` (waits for a membership), `last` (the last step's gradients are
in).
"""

from collections.abc import Callable

Handler = Callable[[str, int], None]
"""Called with the point's name and the step in flight."""

_handler: Handler | None = None


def install(handler: Handler | None) -> None:
    """Call `handler` at every point from now on; None takes it away."""
    global _handler
    _handler = handler


def point(name: str, step: int) -> None:
    """Tell the installed handler, if any, that execution reached `name` at `step`."""
    if _handler is not None:
        _handler(name, step)
