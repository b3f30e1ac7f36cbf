"""Tensor parallelism: ranks that share layers train as one process would, alone and with the other kinds."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.errors import UsageError
from drivetrain.optim.named import named_optimizer
from drivetrain.parallel.tensor import TensorParallel
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeOptimizer, RuntimePrecision
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Outcome, copied, kept, make_optimizer, settings

LAMB = RuntimeOptimizer(name="lamb", lr=0.01, eps=1e-4, weight_decay=0.01)
LARS = RuntimeOptimizer(name="lars", lr=1.0, weight_decay=0.01, trust_coefficient=0.02)
WIDTH, HEADS, TIME, TOKENS = 16, 4, 8, 24

PLAN = {
    "layers.*.query": "colwise",
    "layers.*.key": "colwise",
    "layers.*.value": "colwise",
    "layers.*.out": "rowwise",
    "layers.*.up": "colwise",
    "layers.*.down": "rowwise",
    "head": "colwise_gather",
}
SEQUENCE_PLAN = {**PLAN, "tokens": "split", "layers.*.norm?": "sequence", "norm": "sequence"}


class Text:
    """Numbered words with a rule to learn: each is the sum of the two before it."""

    def __init__(self) -> None:
        words = torch.randint(0, TOKENS, (97, TIME + 1), generator=torch.Generator().manual_seed(7))
        for at in range(2, TIME + 1):
            words[:, at] = (words[:, at - 1] + words[:, at - 2]) % TOKENS
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.words[index]


class Layer(nn.Module):
    """Attention and a feed-forward part; its heads are as many as its weights say."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(hidden)
        query, key, value = (
            part(normed).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(mixed.transpose(1, 2).flatten(2))
        out: torch.Tensor = hidden + self.down(F.gelu(self.up(self.norm2(hidden))))
        return out


class Transformer(nn.Module):
    """A small one."""

    def __init__(self, plan: dict[str, str]) -> None:
        super().__init__()
        self.tp_plan = plan
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        hidden = self.tokens(words)
        for layer in self.layers:
            hidden = layer(hidden)
        out: torch.Tensor = self.head(self.norm(hidden))
        return out


def forward(model: nn.Module, words: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())


def by_drivetrain(pipe: Pipe, case: Case, plan: dict[str, str]) -> Outcome:
    """Train as one of `pipe.world` ranks."""
    torch.manual_seed(11)
    model = Transformer(plan)
    before = copied(model)
    run = Run(settings(case), None)
    run.prepare(model=model, optimizer=lambda parameters: make_optimizer(case, parameters), data=Text())
    losses, norms = [], []
    for batch in run.batches():
        result = run.step(batch, forward)
        losses.append(result.loss)
        norms.append(result.grad_norm)
    evaluation = run.evaluate(Text(), forward, batch=20)
    extra = kept(run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        run.save(path)
        after = torch.load(path)["model"] if path.exists() else {}
    run.finish()
    return Outcome(before, after, losses, norms, [], "", (evaluation.loss, evaluation.metrics), dict(extra))


def by_torch(case: Case) -> Outcome:
    """The whole batch in one process."""
    torch.manual_seed(11)
    model = Transformer(PLAN)
    before = copied(model)
    optimizer = (
        named_optimizer(case.named, model.parameters()) if case.named else make_optimizer(case, model.parameters())
    )
    data = Text()
    losses: list[float] = []
    norms: list[float | None] = []
    for step in range(case.steps):
        loss = forward(model, data.words[samples_of_step(step, case.batch, len(data), case.seed)])
        optimizer.zero_grad()
        loss.backward()
        norms.append(None if case.clip is None else float(nn.utils.clip_grad_norm_(model.parameters(), case.clip)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return Outcome(before, copied(model), losses, norms, [])


CASES = {
    "tensor": (2, PLAN, Case(tensor=2)),
    "4 ranks a layer": (4, PLAN, Case(tensor=4, optimizer="adam", batch=10)),
    "data and tensor": (4, PLAN, Case(tensor=2, optimizer="adam", clip=0.5, batch=25)),
    "sequence, Adam, clipping, micro-batches": (
        2, SEQUENCE_PLAN, Case(tensor=2, optimizer="adam", clip=0.5, microbatches=2),
    ),
    "sequence, an idle rank": (3, SEQUENCE_PLAN, Case(tensor=2, optimizer="adam", clip=0.5)),
    "sequence, data and tensor, LAMB": (4, SEQUENCE_PLAN, Case(tensor=2, named=LAMB, batch=25)),
    "sequence, LARS": (2, SEQUENCE_PLAN, Case(tensor=2, named=LARS)),
    "ZeRO 1": (4, PLAN, Case(tensor=2, zero=1, optimizer="adam", clip=0.5, bucket_bytes=2000)),
    "sequence, ZeRO 2, LAMB": (4, SEQUENCE_PLAN, Case(tensor=2, zero=2, named=LAMB)),
    "sequence, ZeRO 3": (4, SEQUENCE_PLAN, Case(tensor=2, zero=3, optimizer="adam", clip=0.5, microbatches=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name: str) -> None:
    world, plan, case = CASES[name]
    reference = by_torch(case)
    outcomes: list[Outcome] = together(by_drivetrain, world, case, plan)
    assert outcomes[0].distance(reference) <= (1e-4 if case.named else 1e-5)  # LAMB's ratios carry rounding on
    for outcome in outcomes:
        assert outcome.losses == pytest.approx(reference.losses, rel=1e-4)
        assert outcome.evaluation == outcomes[0].evaluation
        if case.clip is not None:
            assert outcome.norms == pytest.approx(reference.norms, rel=1e-4)


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_mixed_precision(compute: Any) -> None:
    case = Case(tensor=2, precision=RuntimePrecision(compute=compute), zero=1)
    assert 0 < together(by_drivetrain, 4, case, SEQUENCE_PLAN)[0].distance(by_torch(case)) < 0.02


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_every_rank_keeps_its_part(zero: int) -> None:
    outcomes = together(by_drivetrain, 4, Case(tensor=2, optimizer="adam", steps=2, zero=zero), PLAN)
    divided = sum(each.weight.numel() for each in Transformer(PLAN).modules() if isinstance(each, nn.Linear))
    whole = sum(each.numel() for each in Transformer(PLAN).parameters())
    biases = 2 * (4 * WIDTH + 3 * WIDTH) + TOKENS
    part = (divided + biases) / 2 + (whole - divided - biases)
    for outcome in outcomes:
        assert outcome.extra["state"] == pytest.approx(2 * part / (2 if zero else 1), abs=24)
        assert outcome.extra["parameters"] == pytest.approx(part / (2 if zero == 3 else 1), abs=24)


def halves(pipe: Pipe, case: Case, folder: Path) -> tuple[int, Outcome]:
    """Train from `folder`'s file to the end and save there."""
    torch.manual_seed(11)
    model = Transformer(PLAN)
    before = copied(model)
    run = Run(settings(case), None)
    run.prepare(
        model=model,
        optimizer=lambda parameters: make_optimizer(case, parameters),
        data=Text(),
        resume=folder / "model.pt",
    )
    first = -1
    for batch in run.batches():
        first = batch.step if first < 0 else first
        run.step(batch, forward)
        if batch.step == 3:
            run.save(folder / "model.pt")  # and goes on
    run.save(folder / "model.pt")
    run.finish()
    return first, Outcome(before, torch.load(folder / "model.pt")["model"], [], [], [])


def test_a_file_goes_on_with_other_parts(tmp_path: Path) -> None:
    case = Case(optimizer="adam", steps=16)
    together(halves, 4, replace(case, tensor=2, zero=3, steps=8), tmp_path)
    together(halves, 2, replace(case, tensor=2, steps=12), tmp_path)
    first, outcome = together(halves, 2, case, tmp_path)[0]
    assert first == 12
    assert outcome.distance(by_torch(case)) <= 1e-5


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (None, "training.parallel.tensor needs model.tp_plan"),
        ({"layers.*.out": "diagonal"}, "no style 'diagonal'; there are colwise, colwise_gather, rowwise"),
        ({"layer.*.out": "rowwise"}, "the model has no such module"),
        ({"tokens": "colwise"}, "tokens is no nn.Linear but Embedding"),
    ],
)
def test_a_wrong_plan_is_refused(plan: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        TensorParallel(Transformer(plan), 2)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UsageError, match=r"does not divide dimension 0 of layers\.0\.query\.weight, shape \(16, 16\)"):
        TensorParallel(Transformer(PLAN), 3)


def incomplete(pipe: Pipe, plan: dict[str, str]) -> str:
    """What a script is told whose plan leaves something out."""
    case = Case(tensor=2, steps=2)
    run = Run(settings(case), None)
    run.prepare(model=Transformer(plan), optimizer=lambda p: make_optimizer(case, p), data=Text())
    try:
        for batch in run.batches():
            run.step(batch, forward)
    except UsageError as error:
        return str(error)
    return "nothing"


def test_a_plan_that_leaves_something_out_is_found_out() -> None:
    for told in together(incomplete, 2, SEQUENCE_PLAN):
        assert told == "nothing"
    left_out = {name: style for name, style in SEQUENCE_PLAN.items() if name != "norm"}
    for told in together(incomplete, 2, left_out):
        assert told.startswith("model.tp_plan: the ranks have different gradients of norm.weight")


def test_too_few_ranks() -> None:
    (told,) = together(incomplete, 1, PLAN)
    assert told == "training.parallel.tensor is 2, but there is only one rank"
