"""Tensor parallelism: which of a model's layers work on a part of their weights, by `model.tp_plan`.

The plan maps patterns of module names (fnmatch) to styles:
    colwise          an nn.Linear with a part of the outputs
    colwise_gather   the same, then all ranks gather the outputs: for the last layer
    rowwise          an nn.Linear with a part of the inputs, whose partial outputs are summed: after colwise layers
    split            any module; each rank goes on with a part of its output's sequence (sequence parallelism)
    sequence         any module inside that region, such as a norm: its gradients are summed
With a `split` in the plan, colwise layers gather the sequence and rowwise layers cut it. All else is computed by all
ranks alike, which is checked in the first step of each membership. See communication.py for the communication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.errors import UsageError
from drivetrain.parallel.absent import Absent, Door
from drivetrain.parallel.agreement import different_losses
from drivetrain.parallel.blocks import in_backward
from drivetrain.parallel.tensor.communication import (
    SEQUENCE,
    Copy,
    Gather,
    GatherAlike,
    Reduce,
    ReduceScatter,
    Split,
    all_reduce,
)

_STYLES: Final = ("colwise", "colwise_gather", "rowwise", "split", "sequence")
_TOLERANCE: Final = 1e-3
_DIVIDED: Final = "divided"
_SPLIT: Final = "split"


class TensorParallel:
    """The layers of one model that are divided over the ranks of a group."""

    def __init__(self, model: nn.Module, degree: int) -> None:
        self.degree = degree
        self.divided: dict[nn.Parameter, int] = {}
        """Along which dimension each divided parameter is cut."""
        self._group: Transport | None = None
        self._entered: tuple[torch.Tensor, torch.Tensor] | None = None
        self._norms: dict[nn.Parameter, float] | None = None
        """Of this rank's gradients of what all ranks have alike, while that is checked."""
        plan = _resolved(model, getattr(model, "tp_plan", None))
        self._modules = {module: name for name, module in model.named_modules()}
        _refuse_reversed(self._modules, plan)
        self._sequence = "split" in plan.values()
        self._owners: dict[nn.Parameter, set[nn.Module]] = {}
        """The divided layers that a divided parameter belongs to."""
        self.absent = Absent()
        self.draws: str | None = None
        """Where random numbers were drawn for parts, in the first step of a membership: not as one rank would."""
        self._states: dict[str, torch.Tensor] = {}
        """Of the random numbers, where divided layers and the split region began."""
        self.partial: set[nn.Parameter] = set()
        """What all ranks have alike, and use each for a part of the sequence."""
        for module, style in plan.items():
            self._install(module, style)
            if style == "sequence" or (style == "rowwise" and self._sequence):
                self.partial |= {each for each in module.parameters() if each not in self.divided}
        self._refuse_tied(model)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad or parameter in self.divided:
                self._refuse_indivisible(name, parameter)
            elif parameter in self.partial:
                parameter.register_hook(self._summed)
            else:
                parameter.register_hook(lambda gradient, parameter=parameter: self._noted(parameter, gradient))
        self._names = {parameter: name for name, parameter in model.named_parameters()}

    def _install(self, module: nn.Module, style: str) -> None:
        if style == "split":
            module.register_forward_hook(lambda _module, _args, output: self._split(output))
            return
        if style == "sequence":
            own = list(module.parameters())
            module.register_forward_pre_hook(lambda *_: self.absent.open(Door.LAYER, own), prepend=True)
            module.register_forward_hook(lambda *_: self.absent.close(Door.LAYER, own), always_call=True)
            return
        assert isinstance(module, nn.Linear)
        weight, bias = module._parameters.get("weight"), module.bias
        if weight is None:
            raise UsageError(
                f"model.tp_plan: the weight of {self._modules[module]} is no parameter (weight_norm or pruning makes "
                "it of others), so it cannot be divided"
            )
        self._divide(module, weight, 1 if style == "rowwise" else 0)
        if isinstance(bias, nn.Parameter) and style != "rowwise":
            self._divide(module, bias, 0)
        forward: Callable[[torch.Tensor], torch.Tensor] = self._rowwise(module)
        if style != "rowwise":
            forward = self._colwise(module, gathers=style == "colwise_gather")
        module.forward = forward  # type: ignore[method-assign,assignment]

    def _divide(self, module: nn.Linear, parameter: nn.Parameter, dim: int) -> None:
        if self.divided.setdefault(parameter, dim) != dim:
            raise UsageError(
                f"model.tp_plan: {self._modules[module]} shares a weight with a layer that is divided the other way"
            )
        self._owners.setdefault(parameter, set()).add(module)

    def _refuse_tied(self, model: nn.Module) -> None:
        """A divided parameter must be divided wherever it is used."""
        for name, module in model.named_modules():
            for each in module.parameters(recurse=False):
                owners = self._owners.get(each)
                if owners is not None and module not in owners:
                    other = self._modules[next(iter(owners))]
                    raise UsageError(
                        f"model.tp_plan: {other} is divided, and {name or 'the model'} uses the same parameter whole; "
                        "divide both or none"
                    )

    def _refuse_indivisible(self, name: str, parameter: nn.Parameter) -> None:
        dim = self.divided.get(parameter)
        if dim is not None and parameter.shape[dim] % self.degree:
            raise UsageError(
                f"training.parallel.tensor is {self.degree}, which does not divide dimension {dim} of {name}, shape "
                f"{tuple(parameter.shape)}"
            )

    # --- layers -----------------------------------------------------------------------------------------------------

    def _colwise(self, module: nn.Linear, *, gathers: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(value: torch.Tensor) -> torch.Tensor:
            group = self._group
            if group is None:
                return F.linear(value, module.weight, module.bias)
            self._refuse_width(module, value, module.in_features, "the whole")
            self._look(_SPLIT, f"dropout, or the like, in the split region before {self._modules[module]}")
            entered = self._enter(group, value)
            self._note(_DIVIDED)
            with self._here(module):
                output = F.linear(entered, module.weight, module.bias)
            result: torch.Tensor = GatherAlike.apply(output, group, output.dim() - 1) if gathers else output
            return result

        return forward

    def _refuse_width(self, module: nn.Linear, value: torch.Tensor, width: int, what: str) -> None:
        if value.shape[-1] != width:
            style = "colwise" if width == module.in_features else "rowwise"
            raise UsageError(
                f"model.tp_plan: {self._modules[module]} is {style}, so it must be given {what} of its "
                f"{module.in_features} features, which is {width}, and got {value.shape[-1]}; rowwise layers come "
                "after colwise ones"
            )

    def _rowwise(self, module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(value: torch.Tensor) -> torch.Tensor:
            group = self._group
            if group is None:
                return F.linear(value, module.weight, module.bias)
            self._refuse_width(module, value, module.in_features // self.degree, "a part")
            self._look(_DIVIDED, f"dropout, or the like, in the divided layers before {self._modules[module]}")
            self._look(_SPLIT, f"dropout, or the like, in the split region before {self._modules[module]}")
            with self._here(module):
                output = F.linear(value, module.weight)
            summed: torch.Tensor = (
                ReduceScatter.apply(output, group, SEQUENCE) if self._sequence else Reduce.apply(output, group)
            )
            with self._here(module):
                return summed if module.bias is None else summed + module.bias

        return forward

    @contextmanager
    def _here(self, module: nn.Linear) -> Iterator[None]:
        """What this rank has of a layer may be used inside."""
        own = [module.weight] if module.bias is None else [module.weight, module.bias]
        self.absent.open(Door.LAYER, own)
        try:
            yield
        finally:
            self.absent.close(Door.LAYER, own)

    def _note(self, region: str) -> None:
        """A region begins in which ranks have different parts."""
        if self._norms is not None and not in_backward():
            self._states[region] = torch.get_rng_state()

    def _look(self, region: str, told: str) -> None:
        """It ends, or goes on."""
        before = self._states.get(region) if self._norms is not None and not in_backward() else None
        if before is not None and not torch.equal(before, torch.get_rng_state()):
            self.draws = told

    def _enter(self, group: Transport, value: torch.Tensor) -> torch.Tensor:
        """The input of a colwise layer; of several with the same input (query, key, value) only once."""
        if self._entered is None or self._entered[0] is not value:
            whole = Gather.apply(value, group, SEQUENCE) if self._sequence else Copy.apply(value, group)
            self._entered = (value, whole)
        return self._entered[1]

    def _split(self, output: torch.Tensor) -> torch.Tensor:
        if self._group is None:
            return output
        self._note(_SPLIT)
        part: torch.Tensor = Split.apply(output, self._group, SEQUENCE)
        return part

    # --- gradients --------------------------------------------------------------------------------------------------

    def _summed(self, gradient: torch.Tensor) -> torch.Tensor:
        """Of a parameter that each rank used for a part of the sequence."""
        return gradient if self._group is None else all_reduce(self._group, gradient)

    def _noted(self, parameter: nn.Parameter, gradient: torch.Tensor) -> None:
        if self._norms is not None:
            self._norms[parameter] = self._norms.get(parameter, 0.0) + float(gradient.norm())

    # --- a step -----------------------------------------------------------------------------------------------------

    def begin(self, group: Transport | None, *, check: bool = False) -> None:
        """Layers work on parts from here on. `check`: see whether all ranks compute the rest alike."""
        self._group = group
        self._norms = {} if check else None
        self._entered = None
        if check:
            self.draws, self._states = None, {}

    def end(self, loss: float = 0.0) -> None:
        """The step, or the evaluation, is over. `loss`: of this rank's share. Raises `UsageError`, on all ranks of the
        group, if their losses or their common gradients differ."""
        group, norms, self._norms, self._entered = self._group, self._norms, None, None
        if group is not None and norms is not None:
            mine = [loss, *(norms.get(parameter, 0.0) for parameter in self._names)]
            table = torch.stack(group.all_gather(torch.tensor(mine, dtype=torch.float64)))
            losses, table = table[:, 0], table[:, 1:]
            if bool(losses.amax() - losses.amin() > _TOLERANCE * losses.abs().amax()):
                self._group = None
                raise UsageError(different_losses(", ".join(f"{each:.6g}" for each in losses.tolist())))
            apart = (table.amax(0) - table.amin(0)) > _TOLERANCE * table.amax(0)
            if bool(apart.any()):
                name = list(self._names.values())[int(apart.nonzero()[0, 0])]
                self._group = None
                raise UsageError(
                    f"model.tp_plan: the ranks have different gradients of {name}, which none of its patterns covers; "
                    "a module between colwise and rowwise layers must be divided, one in the split region is 'sequence'"
                )
        self._group = None

    def abandon(self) -> None:
        """The step was interrupted."""
        self._group, self._norms, self._entered = None, None, None

    def whole(self) -> None:
        """The parameters are whole again."""
        self._group = None


def _resolved(model: nn.Module, plan: Any) -> dict[nn.Module, str]:
    """The style of each module. Raises `UsageError`."""
    if not isinstance(plan, Mapping) or not plan:
        raise UsageError(
            "training.parallel.tensor needs model.tp_plan, which maps patterns of module names to styles, for example "
            '{"layers.*.query": "colwise", "layers.*.out": "rowwise"}'
        )
    found: dict[nn.Module, str] = {}
    for pattern, style in plan.items():
        matching = [(name, module) for name, module in model.named_modules() if fnmatchcase(name, pattern)]
        if style not in _STYLES:
            raise UsageError(f"model.tp_plan[{pattern!r}]: no style {style!r}; there are {', '.join(_STYLES)}")
        if not matching:
            raise UsageError(f"model.tp_plan[{pattern!r}]: the model has no such module")
        for name, module in matching:
            if style in ("colwise", "colwise_gather", "rowwise") and type(module) is not nn.Linear:
                raise UsageError(f"model.tp_plan[{pattern!r}]: {name} is no nn.Linear but {type(module).__name__}")
            found[module] = style
    return found


def _refuse_reversed(names: Mapping[nn.Module, str], plan: Mapping[nn.Module, str]) -> None:
    """Raises `UsageError` for rowwise layers before colwise ones, by the order in which the model has them. That may
    differ from the order in which they are called: who writes the plan in that order is believed."""
    in_model = [module for module in names if plan.get(module) in ("colwise", "rowwise")]
    in_plan = [module for module, style in plan.items() if style in ("colwise", "rowwise")]
    for parent in dict.fromkeys(names[each].rpartition(".")[0] for each in in_model):
        inside = {each for each in in_model if names[each].rpartition(".")[0] == parent}
        wrong = _reversed([each for each in in_model if each in inside], plan)
        if wrong is not None and _reversed([each for each in in_plan if each in inside], plan) is not None:
            raise UsageError(
                f"model.tp_plan: {names[wrong]} is rowwise, and the layer before it is not colwise: a rowwise layer "
                "takes the part of the features that a colwise one has made (if they are called in another order, "
                "write the plan in that one)"
            )


def _reversed(modules: Sequence[nn.Module], plan: Mapping[nn.Module, str]) -> nn.Module | None:
    """The first rowwise layer that no colwise one comes before, if a colwise one is left over at the end."""
    divided, found = False, None
    for each in modules:
        if plan[each] == "rowwise" and not divided:
            found = found or each
        divided = plan[each] == "colwise"
    return found if divided else None
