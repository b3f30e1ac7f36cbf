"""One step of training: cut the batch, run forward and backward, exchange, read, agree.

It names no technique: how a batch is cut, how a replica runs it and how replicas come to one gradient are the job's
strategy (strategy.py). Nothing here changes parameters or optimizer, so an attempt that is interrupted leaves only what
`restore` puts back. The caller (operation.py) owns the transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from torch.nn import Parameter

from drivetrain import rng
from drivetrain.closing import Closed
from drivetrain.comm.transport import Transport
from drivetrain.data.shares import Share
from drivetrain.parallel.agreement import Reduced
from drivetrain.parallel.division import Place, Seat
from drivetrain.parallel.hooked import Hooked
from drivetrain.parallel.layout import ERROR, FLAG, LOSS, NAMES, NORMALISE, NUMBERS, WEIGHT
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.strategy import Strategy
from drivetrain.parallel.tally import Tail
from drivetrain.state import TrainingState
from drivetrain_api.holdup import Stage


class TrainingStep:
    """The steps of one model."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.state = TrainingState()
        """What an attempt may touch is put back from here."""
        self.hooked = Hooked()
        """What the script does to gradients."""
        self.bytes_of_step = 0
        """Payload that the last step brought to this rank."""
        self._place = Place(None)
        self._shares: list[Share] = []
        """Of this rank in the step."""

    def attempt(
        self,
        transport: Transport | None,
        step: int,
        forward: Forward,
        change_pending: bool,
        needs_norm: bool,
        phase: int = 0,
    ) -> Reduced:
        """Compute and exchange the gradients of a step, or of one of its phases. On return `.grad` of what the
        optimizer updates holds the sum over the global batch.

        Raises `Interrupted`; then call `restore`. Until `settle`, it can be called on success, too.
        """
        strategy, division = self._strategy, self._strategy.division
        before = transport.payload_bytes if transport is not None else 0
        place = self._enter(transport, step, forward) if phase == 0 else self._go_on(transport)
        told_by_script: dict[str, float] = {}
        if place.idle:
            self._clear()
            reduced = division.hear(change_pending)
        else:
            used, reduced = self._reduce(place, step, forward, change_pending)
            told_by_script = self.hooked.call(
                strategy.model, strategy.exchange, strategy.unchanged, strategy.training.seed, step
            )
            reduced = division.agree(reduced, strategy.exchange, used, change_pending, needs_norm=needs_norm)
        reduced = replace(reduced, metrics=self._metrics(reduced) | told_by_script)
        strategy.verification.compare(division.mesh, step, reduced.loss, self._gradients())
        sent = transport.payload_bytes - before if transport is not None else 0
        self.bytes_of_step = sent if phase == 0 else self.bytes_of_step + sent
        strategy.buffers.conclude()
        return reduced

    def _enter(self, transport: Transport | None, step: int, forward: Forward) -> Place:
        strategy, tally = self._strategy, self._strategy.tally
        self.state.begin()
        tally.begin(transport)
        whole = strategy.sharded is None or strategy.sharded.part == (0, 0)
        strategy.verification.begin(transport, due=whole and step == strategy.first())
        told = transport is not None and strategy.tells_in_band

        def compare_with(replicas: int) -> None:
            with tally.noting(failures=told):
                strategy.verification.compute(step, forward, strategy.shares.streams(replicas))

        self._place = strategy.division.enter(transport, step, forward, compare_with)
        if not self._place.idle:
            self._shares = strategy.shares.of(self._place.data, step)
            strategy.source.expect(step, [part for share in self._shares for part in share.parts])
            strategy.spending.computed(sum(len(share.samples) for share in self._shares))
        strategy.spending.part = strategy.division.mesh.stage if strategy.division.mesh is not None else 0
        return self._place

    def _go_on(self, transport: Transport | None) -> Place:
        """To another phase, with the same shares."""
        self._strategy.buffers.go_on()
        self._strategy.tally.begin(transport)
        return self._place

    def _reduce(
        self, place: Place, step: int, forward: Forward, change_pending: bool
    ) -> tuple[Sequence[bool], Reduced]:
        """By slot, which parameters have a gradient anywhere; and what this rank's replicas know."""
        strategy, tally, exchange = self._strategy, self._strategy.tally, self._strategy.exchange
        shares = self._shares
        exchange.begin(place.data, step)
        told = place.data is not None and strategy.tells_in_band
        with rng.apart(), strategy.shares.timed(shares):
            for number, share in enumerate(shares):
                tally.open(change_pending, again=number > 0)
                with tally.noting(failures=told):
                    if tally.failure is None:
                        with strategy.unchanged:
                            strategy.division.run(share, exchange, forward, step)
                        exchange.end_share()
                        tally.buffers.computed()
                strategy.spending.stage(Stage.EXCHANGE)
                exchange.collect(partial(tally.close, samples=len(share.samples)))
        tally.buffers.end_shares()
        tail = exchange.finish()
        strategy.spending.stage(Stage.UPDATE)
        if float(tail[ERROR]) > 0:
            raise Closed(tally.failure)
        strategy.division.complete(tail)
        numbers = tail[:NUMBERS].tolist()
        wrong = tally.wrong(step, numbers)
        if wrong is not None:
            raise Closed(wrong) if told else wrong
        return strategy.layout.read_used(tail), self._read(place.data, step, tail, numbers)

    def _read(self, data: Transport | None, step: int, tail: Tail, numbers: list[float]) -> Reduced:
        """What the replicas' numbers add up to; their gradients become the mean, and their buffers everybody's."""
        strategy, tally = self._strategy, self._strategy.tally
        tally.refuse_different_streams(step, numbers)
        tally.take_buffers(tail, numbers, data, strategy.shares.first_rank(data.world if data is not None else 1))
        weight = numbers[WEIGHT]
        if numbers[NORMALISE] > 0:
            for _, each in self._gradients():
                if each.grad is not None:
                    each.grad.div_(weight)
            for copied in strategy.exchange.copied:
                copied.div_(weight)
        return Reduced(numbers[LOSS] / weight, weight, numbers[NAMES:], numbers[FLAG] > 0, norm=None)

    def _metrics(self, reduced: Reduced) -> dict[str, float]:
        """All ranks' means, by name."""
        strategy, mesh = self._strategy, self._strategy.division.mesh
        return strategy.tally.metrics.means(
            reduced.sums, reduced.weight, strategy.layout.dtype, speaks=mesh is None or mesh.speaks
        )

    def _gradients(self) -> Iterator[tuple[Parameter, Parameter]]:
        """The model's parameters, each with what has its gradient here after the exchange."""
        exchange = self._strategy.exchange
        yield from exchange.held
        yield from ((each, each) for each in exchange.rows)

    def _clear(self) -> None:
        for parameter in self._strategy.model.parameters():
            parameter.grad = None

    # --- around it ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """What the attempt did is what all ranks have."""
        self.state.settle()

    def restore(self) -> None:
        """Undo what an attempt left behind that came to nothing."""
        self.state.undo()
        self._strategy.abandon()
        self._strategy.tally.forget()
        self._clear()

    def evaluating(self, transport: Transport | None, live: Sequence[int]) -> AbstractContextManager[Seat]:
        """The model can be called meanwhile, on all ranks alike. All ranks call this. Raises `Interrupted`."""
        return self._strategy.division.evaluating(transport, live, self._strategy.exchange)
