"""Adding numbers digit by digit, most significant first: a one-layer transformer learns the columns, not the cascade.

A question is ``12345+67890=080235``: the answer's first digit has to be known before any of the lower ones is written.
Each answer digit is the base sum of its column (BA), and one more if a carry comes in: from the next lower column
itself (UC1), or through columns that sum to nine and hand it on (US9). What comes in through a *run* of nines cannot be
seen from any fixed number of columns, and such runs are rare: networks learn the short ones, and guess on the long.

Head and position ablations show where each answer digit is computed: at the token before it, nowhere else.

References
----------
Quirke and Barez 2024, "Understanding addition in transformers" (subtasks, ablations by head and position, cascading
nines).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from interp.edits import ablate
from interp.errors import InputError
from interp.models.loading import load
from interp.runs.progress import progress as bar
from interp.showing import Shown
from interp.tables import tidy
from interp.toys.networks import Shape, Transformer

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = [
    "TASKS",
    "Ablations",
    "DigitRecipe",
    "DigitRun",
    "Scores",
    "ablations",
    "answers",
    "attended_columns",
    "carries",
    "problems",
    "questions",
    "scores",
    "tasks",
    "train_digits",
]

PLUS, EQUALS = 10, 11
TASKS = ("BA", "UC1", "MS9", "US9", "MS9+", "US9+")
"""What an answer digit takes, by the run of nines below its column (none, one, more) and whether a carry comes through
it: no (BA, MS9, MS9+) or yes (UC1, US9, US9+: the cascade)."""
Digits = Int64[Tensor, "batch column"]
Answers = Int64[Tensor, "batch digit"]


def problems(n: int, *, n_digits: int, nines: float, generator: torch.Generator) -> tuple[Digits, Digits]:
    """Random addends, most significant digit first; each column is made to sum to nine with probability ``nines``."""
    a = torch.randint(10, (n, n_digits), generator=generator)
    b = torch.randint(10, (n, n_digits), generator=generator)
    return a, torch.where(torch.rand(n, n_digits, generator=generator) < nines, 9 - a, b)


def answers(a: Digits, b: Digits) -> Answers:
    """The digits of a + b, one more than the addends have."""
    carry, out = torch.zeros_like(a[:, 0]), []
    for column in (a + b).flip(1).T:
        total = column + carry
        out.append(total % 10)
        carry = total // 10
    return torch.stack([*out, carry], 1).flip(1)


def questions(a: Digits, b: Digits) -> Int64[Tensor, "batch pos"]:
    """Token rows ``a + b = answer``: digits are themselves, plus is 10, equals 11."""
    sign = torch.full((len(a), 1), PLUS)
    return torch.cat([a, sign, b, sign + 1, answers(a, b)], 1)


def carries(a: Digits, b: Digits) -> tuple[Answers, Answers]:
    """For each answer digit: the run of nines below its column, and whether (0 or 1) a carry comes in through it."""
    sums = a + b
    run, carry = torch.zeros_like(sums[:, 0]), torch.zeros_like(sums[:, 0])
    runs, carried = [run], [carry]
    for column in sums.flip(1).T:
        nine = column == 9
        carry = torch.where(nine, carry, (column > 9).long())
        run = torch.where(nine, run + 1, 0)
        runs.append(run)
        carried.append(carry)
    return torch.stack(runs[::-1], 1), torch.stack(carried[::-1], 1)


def tasks(a: Digits, b: Digits) -> Answers:
    """The number in :data:`TASKS` of what each answer digit takes."""
    run, carry = carries(a, b)
    return 2 * run.clip(max=2) + carry


@dataclass(frozen=True, kw_only=True, repr=False)
class DigitRecipe(Shown):
    """The network and its training."""

    n_digits: int = 5
    d_model: int = 96
    n_heads: int = 3
    d_mlp: int = 384
    n_layers: int = 1
    steps: int = 3000
    batch: int = 64
    lr: float = 3e-3
    warmup: int = 100
    """Steps; the rate then falls linearly to a tenth."""
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    enriched: float = 0.2
    """The share of batches with more nines, as published."""
    nines: float = 0.2
    """There, the probability of each column to be made a nine."""
    check_every: int = 100

    def __post_init__(self) -> None:
        if min(self.n_digits, self.steps, self.batch, self.warmup, self.check_every) < 1:
            raise InputError("n_digits, steps, batch, warmup and check_every must be at least 1")
        if not (0 <= self.enriched <= 1 and 0 <= self.nines <= 1):
            raise InputError(f"enriched and nines are shares, got {self.enriched} and {self.nines}")

    @property
    def shape(self) -> Shape:
        """The network's sizes; the last answer digit is never read."""
        return Shape(
            d_vocab=12, n_ctx=3 * self.n_digits + 2, n_layers=self.n_layers, d_model=self.d_model,
            n_heads=self.n_heads, d_mlp=self.d_mlp,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DigitRun(Shown):
    """A trained network and the loss of each answer digit along the way."""

    module: Transformer = field(repr=False)
    recipe: DigitRecipe
    seed: int
    curve: Float64[Tensor, "check digit"]
    """The mean loss in nats of each answer digit since the last check; the most significant first."""

    def order_of_learning(self, *, below: float = 0.1) -> list[int]:
        """The check (from 0) from which each answer digit's loss stays below so many nats; their count if never."""
        high = self.curve >= below
        return [int(column.nonzero()[-1]) + 1 if column.any() else 0 for column in high.T]

    def to_frame(self) -> pd.DataFrame:
        """A row per check and answer digit."""
        n_checks, n_digits = self.curve.shape
        return tidy({"check": range(n_checks), "digit": range(n_digits)}, loss=self.curve.numpy())

    def plot(self) -> go.Figure:
        """The loss of each answer digit over the checks."""
        from interp.plots import Series, lines

        series = [Series(name=f"A{i}", y=column.numpy()) for i, column in enumerate(self.curve.T)]
        return lines(list(range(len(self.curve))), series, x_title="check", y_title="loss (nats)")


def train_digits(
    *, seed: int = 0, recipe: DigitRecipe | None = None, progress: bool | None = None
) -> DigitRun:
    """Train on fresh questions; the loss is that of the answer's digits. Cost: about 20 CPU ms a step."""
    recipe = recipe or DigitRecipe()
    generator = torch.Generator().manual_seed(seed)
    module = Transformer(recipe.shape, generator=generator)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / recipe.warmup) * (1 - 0.9 * step / recipe.steps)
    )
    since, curve = torch.zeros(recipe.n_digits + 1, dtype=torch.float64), []
    for step in bar(range(1, recipe.steps + 1), total=recipe.steps, desc="train digits", enabled=progress):
        more = float(torch.rand(1, generator=generator)) < recipe.enriched
        a, b = problems(
            recipe.batch, n_digits=recipe.n_digits, nines=recipe.nines if more else 0.0, generator=generator
        )
        loss = _losses(module, a, b).mean(0)
        optimiser.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimiser.step()
        schedule.step()
        since += loss.detach().double()
        if step % recipe.check_every == 0:
            curve.append(since / recipe.check_every)
            since = torch.zeros_like(since)
    table = torch.stack(curve) if curve else since.new_zeros(0, len(since))
    return DigitRun(module=module.eval(), recipe=recipe, seed=seed, curve=table)


def _losses(module: Transformer, a: Tensor, b: Tensor) -> Tensor:
    """Nats [batch, digit]."""
    ids, n = questions(a, b), a.shape[1]
    logits = module(ids[:, :-1])[:, 2 * n + 1 :]
    return cross_entropy(logits.flatten(0, 1), ids[:, 2 * n + 2 :].flatten(), reduction="none").view(
        len(a), -1
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Scores(Shown):
    """How often a network is right; nan where a count is nought."""

    exact: float
    """The share of questions with every digit right."""
    by_digit: Float64[Tensor, " digit"]
    by_task: Float64[Tensor, "digit task"]
    """Of each answer digit, by :data:`TASKS`."""
    by_run: Float64[Tensor, "run carry"]
    """Of all answer digits, by the run of nines below them, and whether a carry comes through it. A network that cannot
    tell has a row that sums to 1, whatever it prefers."""
    n_by_task: Int64[Tensor, "digit task"]
    n_by_run: Int64[Tensor, "run carry"]

    def to_frame(self) -> pd.DataFrame:
        """A row per answer digit and task: how often it is right, of how many."""
        axes = {"digit": range(len(self.by_digit)), "task": TASKS}
        return tidy(axes, accuracy=self.by_task.numpy(), n=self.n_by_task.numpy())

    def plot(self) -> go.Figure:
        """Accuracy by answer digit and task."""
        from interp.plots import heatmap

        rows = [f"A{i}" for i in range(len(self.by_digit))]
        return heatmap(self.by_task.numpy(), rows=rows, columns=TASKS, unit="accuracy", span=(0.0, 1.0))


def scores(network: Callable[[Tensor], Tensor], a: Digits, b: Digits) -> Scores:
    """Accuracies on given questions; ``network`` maps token rows to logits. Cost: one forward pass."""
    right = _right(network, a, b)
    run, carry = carries(a, b)
    n_digits = right.shape[1]
    by_task, n_by_task = _shares(right, tasks(a, b), len(TASKS))
    by_run, n_by_run = _shares(right.reshape(-1, 1), (2 * run + carry).reshape(-1, 1), 2 * n_digits)
    return Scores(
        exact=float(right.all(1).double().mean()),
        by_digit=right.double().mean(0),
        by_task=by_task,
        by_run=by_run.view(n_digits, 2),
        n_by_task=n_by_task,
        n_by_run=n_by_run.view(n_digits, 2),
    )


@torch.no_grad()
def _right(network: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Bool[Tensor, "batch digit"]:
    ids, n = questions(a, b), a.shape[1]
    return network(ids[:, :-1])[:, 2 * n + 1 :].argmax(-1) == ids[:, 2 * n + 2 :]


def _shares(right: Tensor, kind: Tensor, n_kinds: int) -> tuple[Tensor, Tensor]:
    """The share that is right in each column and kind, and how many there are."""
    one = nn.functional.one_hot(kind, n_kinds).double()  # [question, column, kind]
    count = one.sum(0)
    return (one * right[..., None]).sum(0) / count, count.long()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ablations(Shown):
    """What is lost when a component's output is replaced by its mean over questions."""

    components: tuple[str, ...]
    """``a0.h0`` ... the heads, ``m0`` the MLP."""
    positions: tuple[str, ...]
    """What stands at each position: ``D0`` the most significant digit, ``+``, ``D'0`` ..., ``=``, ``A0`` ..."""
    whole: Float64[Tensor, " digit"]
    """Accuracy of each answer digit with nothing ablated."""
    by_position: Float64[Tensor, "component position digit"]
    """Accuracy of each answer digit with a component ablated at one position."""
    by_task: Float64[Tensor, "component task"]
    """Accuracy on each of :data:`TASKS` over all digits, the component ablated at every position."""
    whole_by_task: Float64[Tensor, " task"]

    @property
    def useful(self) -> list[tuple[str, str]]:
        """Components with the positions at which ablating them costs some digit a hundredth of accuracy or more."""
        lost = (self.whole - self.by_position).amax(2) >= 0.01
        return [(self.components[i], self.positions[j]) for i, j in lost.nonzero().tolist()]

    def to_frame(self) -> pd.DataFrame:
        """Accuracy by task: a row for the whole network and one per ablated component."""
        import pandas as pd

        rows = torch.cat([self.whole_by_task[None], self.by_task]).numpy()
        return pd.DataFrame(rows, index=["whole", *self.components], columns=list(TASKS))

    def plot(self) -> go.Figure:
        """Mean accuracy lost, by component and position."""
        from interp.plots import heatmap

        lost = (self.whole - self.by_position).mean(2)
        return heatmap(
            lost.numpy(), rows=self.components, columns=self.positions, unit="accuracy lost", x_title="position",
            span=(0.0, max(float(lost.max()), 1e-9)),
        )  # fmt: skip


def ablations(module: Transformer, a: Digits, b: Digits) -> Ablations:
    """Mean-ablate every head and MLP, at every position alone and at all of them.

    The mean is over the given questions, by position. Cost: (heads + 1) (positions + 1) forward passes a layer.
    """
    model, shape, n = load(module, prove=False), module.shape, a.shape[1]
    ids = questions(a, b)[:, :-1]
    heads = [(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    places = {f"a{layer}.h{head}": (f"blocks.{layer}.attn.hook_z", head) for layer, head in heads}
    places |= {f"m{layer}": (f"blocks.{layer}.hook_mlp_out", None) for layer in range(shape.n_layers)}
    reference = model.capture(ids, sorted({site for site, _ in places.values()}))

    def without(component: str, position: int | None = None) -> Tensor:
        site, head = places[component]
        edit = ablate(site, how="mean", reference=reference, over="position", head=head, position=position)
        return _right(lambda rows: model.logits(rows, edits=[edit]), a, b)

    def pooled(right: Tensor) -> Tensor:
        return _shares(right.reshape(-1, 1), tasks(a, b).reshape(-1, 1), len(TASKS))[0][0]

    whole, positions = _right(model.logits, a, b), range(ids.shape[1])
    one = [[without(name, p).double().mean(0) for p in positions] for name in places]
    return Ablations(
        components=tuple(places),
        positions=tuple(
            name.format(i)
            for name in ("D{}", "+", "D'{}", "=", "A{}")
            for i in range(n if "{" in name else 1)
        ),
        whole=whole.double().mean(0),
        by_position=torch.stack([torch.stack(row) for row in one]),
        by_task=torch.stack([pooled(without(name)) for name in places]),
        whole_by_task=pooled(whole),
    )


@torch.no_grad()
def attended_columns(module: Transformer, a: Digits, b: Digits) -> Float64[Tensor, "head digit column"]:
    """Mean attention of the first layer's heads, from the position that predicts an answer digit, to both digits of
    each column; the rest goes to other tokens."""
    ids, n = questions(a, b), a.shape[1]
    site = "blocks.0.attn.hook_pattern"
    pattern = load(module, prove=False).capture(ids[:, :-1], [site])[site].double().mean(0)
    rows = pattern[:, 2 * n + 1 :]
    return rows[..., :n] + rows[..., n + 1 : 2 * n + 1]
