"""Models with odd parameters, buffers and ways to compute: 12 numbers to 5 classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Base(nn.Module):
    """12 numbers to 5 classes by way of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.middle = nn.Linear(16, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))
        return out


class Scalars(Base):
    """Parameters without dimensions, with one element, and a bare one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.shift = nn.Parameter(torch.zeros(1))
        self.table = nn.ParameterDict({"a": nn.Parameter(torch.ones(16)), "b": nn.Parameter(torch.zeros(1, 16))})
        self.more = nn.ParameterList([nn.Parameter(torch.ones(5)) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x)) * self.table["a"] + self.table["b"]
        out: torch.Tensor = self.last(hidden) * self.scale + self.shift
        scaled: torch.Tensor = out * self.more[0] * self.more[1]
        return scaled


class Transposed(Base):
    """Dense, but not in the usual order in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first.weight = nn.Parameter(self.first.weight.detach().t().contiguous().t())
        self.middle.weight = nn.Parameter(self.middle.weight.detach().t().contiguous().t())


class Gaps(Base):
    """A parameter with gaps in memory, and one that is a part of a larger tensor."""

    def __init__(self) -> None:
        super().__init__()
        room = torch.zeros(16, 32)
        room[:, ::2] = self.middle.weight.detach()
        self.middle.weight = nn.Parameter(room[:, ::2])
        self.last.bias = nn.Parameter(torch.zeros(9)[2:7])


class TiedByData(Base):
    """Two parameters in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(16, 16)
        self.again.weight.data = self.middle.weight.data

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.again(torch.tanh(self.middle(torch.tanh(self.first(x))))))
        out: torch.Tensor = self.last(hidden)
        return out


class BufferOfWeight(Base):
    """A buffer in the memory of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("alias", self.middle.weight.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.alias, torch.Tensor)
        hidden = torch.tanh(self.first(x))
        out: torch.Tensor = self.last(torch.tanh(self.middle(hidden)) + 0.1 * F.linear(hidden, self.alias))
        return out


class Images(nn.Module):
    """Convolutions, as images in the last dimension's order."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, (3, 2))
        self.last = nn.Linear(4 * 1 * 3, 5)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.view(-1, 1, 3, 4).to(memory_format=torch.channels_last)
        hidden = torch.tanh(self.two(torch.tanh(self.one(image))))
        out: torch.Tensor = self.last(hidden.flatten(1))
        return out


class Tied(Base):
    """Two layers with one weight, and a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(16, 16)
        self.again.weight = self.middle.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.again(torch.tanh(self.middle(torch.tanh(self.first(x))))))
        out: torch.Tensor = self.last(hidden + F.linear(hidden, self.middle.weight))
        return out


class Normed(Base):
    """torch's parametrizations."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.middle)
        nn.utils.parametrizations.orthogonal(self.first)


class Gru(nn.Module):
    """A recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 8, 2, batch_first=True)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.rnn(x.view(-1, 3, 4))[0][:, -1])
        return out


class Unused(Base):
    """A layer that is never used, and one that is in some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        if self.gate:
            hidden = torch.tanh(self.middle(hidden))
        out: torch.Tensor = self.last(hidden)
        return out

    gate = True


class Constant(Base):
    """Large, small, expanded, not persistent, of whole numbers and of truth values: none of them changes."""

    mask: torch.Tensor
    large: torch.Tensor
    hidden: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(16).expand(300, 16))
        self.register_buffer("large", torch.linspace(0, 1, 40_000))
        self.register_buffer("hidden", torch.ones(16) * 0.5, persistent=False)
        self.register_buffer("numbers", torch.arange(7))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("nothing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x)) * self.mask[0] + self.hidden * self.large[17]
        out: torch.Tensor = self.last(hidden)
        return out


class Counting(Base):
    """Changes in forward by what does not depend on the samples: in place, by another tensor, by .data, expanded."""

    calls: torch.Tensor
    hidden: torch.Tensor
    whole: torch.Tensor
    spread: torch.Tensor
    queue: torch.Tensor
    assigned: torch.Tensor
    late: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("assigned", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.register_buffer("whole", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("spread", torch.zeros(1).expand(6))
        self.register_buffer("queue", torch.zeros(30_000))
        self.register_buffer("late", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                self.calls += 1
                self.assigned = self.assigned + 0.5
                self.hidden.data += 1
                self.whole.add_(2)
                dense = self.spread[:1]
                dense += 1
                at = int(self.calls)
                self.queue.data[at * 10 : at * 10 + 10] = at
                if at > 4:
                    self.late = torch.full((4,), float(at))
        scale = 1 + 0.01 * self.calls + 0.01 * self.hidden[0] + 0.01 * self.spread[3]
        out: torch.Tensor = self.last(torch.tanh(self.first(x)) * scale)
        return out


class Coming(Base):
    """Its buffers come and go in forward: made by the first call, hidden, deleted, set to None, made persistent."""

    calls: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            if "calls" not in self._buffers:
                self.register_buffer("calls", torch.zeros(()))
            self.calls += 1
            at = int(self.calls)
            if at == 3:
                self.last.register_buffer("late", torch.full((3,), float(at)), persistent=False)
                self.middle.register_buffer("brief", torch.ones(2))
            elif at == 5:
                self.last.register_buffer("late", torch.full((4,), float(at)))
                del self.middle.brief
            elif at == 7:
                self.last.register_buffer("late", None)
                self.middle.register_buffer("large", torch.linspace(0, 1, 40_000))
            elif at > 7:
                self.middle.get_buffer("large")[at] = 1
        out: torch.Tensor = self.last(torch.tanh(self.first(x)) * (1 + 0.01 * self.calls))
        return out


class Calls(nn.Module):
    """Counts them."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        return x * (1 + 0.01 * self.calls)


class Growing(Base):
    """The script adds modules to it."""

    added: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        out: torch.Tensor = self.last(self.added(hidden) if hasattr(self, "added") else hidden)
        return out


class Views(Base):
    """Buffers that are conjugate or negative views of what lies in memory: one is constant, one is changed."""

    turned: torch.Tensor
    turning: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turned", torch.full((3,), 0.5 + 0.25j).conj())
        self.register_buffer("negative", torch.full((3,), 1 - 2j).conj().imag)
        self.register_buffer("turning", torch.full((20_000,), 1j).conj())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.turning += 1
        scale = self.turned.imag[0] + 0.01 * self.turning.real[7]
        out: torch.Tensor = self.last(torch.tanh(self.first(x)) * scale)
        return out


class Averaging(Base):
    """Has a frozen parameter that the script changes."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Parameter(torch.zeros(16, 12), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x) + 0.1 * F.linear(x, self.average))
        out: torch.Tensor = self.last(hidden)
        return out


class Switching(Base):
    """Computes otherwise in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        out: torch.Tensor = self.last(hidden if self.training else hidden * 0.5)
        return out


class Lora(nn.Module):
    """A frozen layer in half precision, and a small trained one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(12, 16).bfloat16().requires_grad_(False)
        self.down = nn.Linear(12, 2, bias=False)
        self.up = nn.Linear(2, 16, bias=False)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.base(x.bfloat16()).float() + self.up(self.down(x))
        out: torch.Tensor = self.last(torch.tanh(hidden))
        return out


class Double(Base):
    """In float64."""

    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double())


class Complex(Base):
    """Works with complex numbers inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.fft.rfft(torch.tanh(self.first(x)))
        out: torch.Tensor = self.last(torch.fft.irfft(hidden * 0.5, 16))
        return out
