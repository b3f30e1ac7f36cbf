"""Trainings of a small transformer: one through drivetrain, one in plain torch with the whole batch at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from drivetrain.data.order import samples_of_step
from drivetrain.optim.named import named_optimizer
from drivetrain.parallel.loss import Loss
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeOptimizer
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
    """A small one. `odd`: its head is tied to its embedding, a part of each layer is computed outside of it, one layer
    is computed again in backward, and two share a parameter."""

    def __init__(self, plan: dict[str, str], depth: int = 2, *, odd: bool = False) -> None:
        super().__init__()
        self.tp_plan = plan
        self.odd = odd
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS, bias=not odd)
        if odd:
            self.head.weight = self.tokens.weight
            self.scale = nn.Parameter(torch.tensor(0.7))
            self.get_submodule("layers.1.up").bias = self.get_submodule("layers.0.up").bias

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        hidden = self.tokens(words)
        for number, layer in enumerate(self.layers):
            if self.odd and number == 1:
                hidden = checkpoint(layer, hidden, use_reentrant=False)
            elif self.odd:
                hidden = self.scale * hidden + layer(hidden)
            else:
                hidden = layer(hidden)
        out: torch.Tensor = self.head(self.norm(hidden))
        return out


def forward(model: nn.Module, words: torch.Tensor) -> torch.Tensor:
    """The mean loss."""
    return F.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())


def weighted(model: nn.Module, words: torch.Tensor) -> Loss:
    """The same with weights and a metric."""
    out = model(words[:, :-1]).flatten(0, 1)
    wanted = words[:, 1:].flatten()
    each = F.cross_entropy(out, wanted, reduction="none") * (1 + wanted % 3)
    right = (out.argmax(1) == wanted).sum()
    return Loss(each.sum(), float((1 + wanted % 3).sum()), {"right": float(right)})


def make(case: Case, plan: dict[str, str]) -> Transformer:
    """The model of a case, initialised alike everywhere."""
    torch.manual_seed(11)
    return Transformer(plan, 6 if case.pipeline is not None else 2, odd=case.model == "odd")


def by_drivetrain(pipe: Pipe, case: Case, plan: dict[str, str]) -> Outcome:
    """Train as one of `pipe.world` ranks."""
    model = make(case, plan)
    before = copied(model)
    run = Run(settings(case), None)
    run.prepare(model=model, optimizer=lambda parameters: make_optimizer(case, parameters), data=Text())
    losses, norms, metrics = [], [], []
    for batch in run.batches():
        result = run.step(batch, weighted if case.loss == "weighted" else forward)
        losses.append(result.loss)
        norms.append(result.grad_norm)
        metrics.append(result.metrics)
    evaluation = run.evaluate(Text(), weighted if case.loss == "weighted" else forward, batch=20)
    extra = kept(run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        run.save(path)
        after = torch.load(path, weights_only=True)["model"] if path.exists() else {}
    run.finish()
    return Outcome(before, after, losses, norms, metrics, "", (evaluation.loss, evaluation.metrics), dict(extra))


def from_file_to_file(pipe: Pipe, case: Case, folder: Path) -> tuple[int, Outcome]:
    """Train from `folder`'s file to the end and save there, and once on the way."""
    model = make(case, PLAN)
    before = copied(model)
    run = Run(settings(case), None)
    run.prepare(model=model, optimizer=lambda p: make_optimizer(case, p), data=Text(), resume=folder / "model.pt")
    first = -1
    for batch in run.batches():
        first = batch.step if first < 0 else first
        run.step(batch, forward)
        if batch.step == 3:
            run.save(folder / "model.pt")  # and goes on
    run.save(folder / "model.pt")
    run.finish()
    return first, Outcome(before, torch.load(folder / "model.pt", weights_only=True)["model"], [], [], [])


def by_torch(case: Case) -> Outcome:
    """The whole batch in one process."""
    model = make(case, PLAN)
    before = copied(model)
    optimizer = (
        named_optimizer(case.named, model.parameters()) if case.named else make_optimizer(case, model.parameters())
    )
    data = Text()
    losses: list[float] = []
    norms: list[float | None] = []
    for step in range(case.steps):
        words = data.words[samples_of_step(step, case.batch, len(data), case.seed)]
        found = weighted(model, words) if case.loss == "weighted" else forward(model, words)
        loss = found.sum / found.weight if isinstance(found, Loss) else found
        optimizer.zero_grad()
        loss.backward()
        norms.append(None if case.clip is None else float(nn.utils.clip_grad_norm_(model.parameters(), case.clip)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return Outcome(before, copied(model), losses, norms, [])


def assert_as_one_process(world: int, plan: dict[str, str], case: Case) -> None:
    """So many ranks train as one process does; all of them are told the same."""
    reference = by_torch(case)
    outcomes: list[Outcome] = together(by_drivetrain, world, case, plan)
    assert outcomes[0].distance(reference) <= (1e-4 if case.named else 1e-5)  # LAMB's ratios carry rounding on
    for outcome in outcomes:
        assert outcome.losses == pytest.approx(reference.losses, rel=1e-4)
        assert outcome.evaluation == outcomes[0].evaluation
        assert outcome.metrics == outcomes[0].metrics
        if case.clip is not None:
            assert outcome.norms == pytest.approx(reference.norms, rel=1e-4)
    assert (case.loss == "weighted") == ("right" in outcomes[0].metrics[-1])
