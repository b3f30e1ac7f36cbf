"""Gradients get to where they are sent from, large ones one by one and small ones many at once."""

from __future__ import annotations

import torch
from torch import nn

from drivetrain.comm.arrivals import Arrivals
from drivetrain.comm.wait import Interrupt
from drivetrain.parallel.layout import Layout


def test_gradients_of_several_micro_batches_add_up_in_their_places() -> None:
    model = nn.Linear(200, 200)  # a weight of 160 kB, and a small bias
    layout = Layout(model)
    flat = torch.full((layout.gradients,), float("nan"))
    places = [flat[slot.start : slot.stop].view(slot.parameter.shape) for slot in layout.slots]
    complete: list[int] = []
    arrivals = Arrivals(layout, lambda slot: places[slot.index], lambda slot: complete.append(slot.index))
    inputs = torch.randn(2, 8, 200)
    for _ in range(2):
        complete.clear()
        flat.fill_(float("nan"))
        arrivals.begin(Interrupt())
        model(inputs[0]).square().sum().backward()
        assert not complete
        arrivals.arm()
        model(inputs[1]).square().sum().backward()
        assert sorted(complete) == [0, 1]
        arrivals.move()
        arrivals.rest()
        assert arrivals.has_all
        assert all(slot.parameter.grad is places[slot.index] for slot in layout.slots)
        expected = torch.autograd.grad(model(inputs.flatten(0, 1)).square().sum(), [s.parameter for s in layout.slots])
        for place, gradient in zip(places, expected, strict=True):
            torch.testing.assert_close(place, gradient)
