"""The smallest model that groks: symbols on a line, a fixed sum, a trained decoder; and what theory says of it.

Ten symbols have learned positions. A pair's positions are added, and an MLP decodes the sum into a target vector of
the answer. It can generalise only if the positions become equally spaced: then every parallelogram E_i + E_n = E_j +
E_m with i + n = j + m closes. The representation quality index (RQI) is the share that do.

References
----------
Liu et al. 2022, "Towards Understanding Grokking: An Effective Theory of Representation Learning", sections 2-3 and
appendix (RQI, ideal accuracy, effective loss, four phases).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = [
    "AdditionRecipe",
    "AdditionRun",
    "effective_loss",
    "ideal_accuracy",
    "parallelograms",
    "phase_diagram",
    "phase_of",
    "rqi",
    "train_addition",
]

GAP = 1000
"""Steps by which the test accuracy lags behind in grokking, and does not in comprehension."""


def parallelograms(n: int) -> Int64[Tensor, "parallelogram corner"]:
    """All (i, j, k, m) with i + j = k + m and i < k <= m < j: two different unordered pairs of one sum."""
    rows = [
        (i, s - i, k, s - k)
        for s in range(2 * n - 1)
        for i, k in itertools.combinations(range(max(0, s - n + 1), s // 2 + 1), 2)
    ]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 4)


def _gaps(positions: Tensor, corners: Tensor) -> Tensor:
    i, j, k, m = corners.T
    return positions[i] + positions[j] - positions[k] - positions[m]


def rqi(positions: Float[Tensor, "symbol d"], *, threshold: float = 0.01) -> float:
    """The share of parallelograms that close: mean squared gap below the threshold, positions standardised.

    Raises
    ------
    InputError
        There are fewer than three symbols (no parallelogram), or a coordinate does not vary.
    """
    corners = parallelograms(len(positions))
    if not len(corners):
        raise InputError(f"{len(positions)} symbols have no parallelogram; at least 3 are needed")
    x = positions.double()
    spread = x.std(0, unbiased=False)
    if (spread == 0).any():
        raise InputError("a coordinate is the same for all symbols: positions cannot be standardised")
    gaps = _gaps((x - x.mean(0)) / spread, corners)
    return float((gaps.square().mean(1) < threshold).double().mean())


def effective_loss(positions: Float[Tensor, "symbol d"], train: Sequence[tuple[int, int]]) -> float:
    """The sum of squared gaps over parallelograms of training pairs, over the sum of squared positions."""
    corners = _training_parallelograms(len(positions), train)
    x = positions.double()
    return float(_gaps(x, corners).square().sum() / x.square().sum())


def _training_parallelograms(n: int, train: Sequence[tuple[int, int]]) -> Tensor:
    known = {tuple(sorted(pair)) for pair in train}
    keep = [(i, j, k, m) for i, j, k, m in parallelograms(n).tolist() if (i, j) in known and (k, m) in known]
    return torch.tensor(keep, dtype=torch.int64).view(-1, 4)


def ideal_accuracy(n: int, train: Sequence[tuple[int, int]]) -> float:
    """The accuracy on all unordered pairs that the training pairs imply, the network's representation being ideal.

    A pair counts as known if it is a training pair, or is tied to one by a parallelogram that closes whenever the
    parallelograms of the training pairs do (a linear consequence of theirs).
    """
    corners = _training_parallelograms(n, train)
    rows = _equations(n, corners)
    rank = int(torch.linalg.matrix_rank(rows)) if len(rows) else 0
    known = {tuple(sorted(pair)) for pair in train}
    reached = set(known)
    for i, j, k, m in parallelograms(n).tolist():
        one, other = (i, j), (k, m)
        if (one in known) == (other in known):
            continue
        equation = _equations(n, torch.tensor([[i, j, k, m]]))
        if int(torch.linalg.matrix_rank(torch.cat([rows, equation]))) == rank:
            reached |= {one, other}
    return len(reached) / (n * (n + 1) / 2)


def _equations(n: int, corners: Tensor) -> Tensor:
    rows = torch.zeros(len(corners), n, dtype=torch.float64)
    for column, sign in zip(corners.T, (1.0, 1.0, -1.0, -1.0), strict=True):
        rows[torch.arange(len(corners)), column] += sign
    return rows


def phase_of(train_step: int | None, test_step: int | None, *, gap: int = GAP) -> str:
    """The phase of a run by the steps at which training and test accuracy pass their threshold (None: never).

    Both reached, the test less than ``gap`` later: comprehension; later: grokking; training only: memorisation;
    neither: confusion. A test accuracy that comes first is comprehension too.
    """
    if train_step is None:
        return "confusion" if test_step is None else "comprehension"
    if test_step is None:
        return "memorisation"
    return "comprehension" if test_step - train_step < gap else "grokking"


@dataclass(frozen=True, kw_only=True, repr=False)
class AdditionRecipe(Shown):
    """How the toy is trained."""

    n_symbols: int = 10
    n_train: int = 45
    """Of the n (n + 1) / 2 unordered pairs."""
    d: int = 1
    """Width of the positions."""
    spread: float = 0.1
    """Standard deviation of the initial positions."""
    width: int = 200
    d_target: int = 30
    lr: float = 1e-3
    """Of the positions."""
    decoder_lr: float = 1e-4
    weight_decay: float = 0.0
    """Of the decoder."""
    steps: int = 5000
    threshold: float = 0.9
    check_every: int = 25

    def __post_init__(self) -> None:
        n_pairs = self.n_symbols * (self.n_symbols + 1) // 2
        if not 0 < self.n_train <= n_pairs:
            raise InputError(
                f"n_train must lie in 1..{n_pairs} for {self.n_symbols} symbols, got {self.n_train}"
            )
        if min(self.steps, self.check_every, self.d) < 1:
            raise InputError("steps, check_every and d must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AdditionRun(Shown):
    """What became of one training of the toy."""

    recipe: AdditionRecipe
    seed: int
    positions: Float[Tensor, "symbol d"]
    train: tuple[tuple[int, int], ...]
    curve: tuple[tuple[int, float, float, float], ...]
    """Step, training accuracy, accuracy on all pairs, RQI."""
    ideal: float
    """See :func:`ideal_accuracy`."""
    phase: str

    @property
    def accuracy(self) -> float:
        """The last accuracy on all pairs."""
        return self.curve[-1][2]

    @property
    def rqi(self) -> float:
        """The last RQI."""
        return self.curve[-1][3]

    def to_frame(self) -> pd.DataFrame:
        """A row per check of the training."""
        import pandas as pd

        return pd.DataFrame(list(self.curve), columns=pd.Index(["step", "train_accuracy", "accuracy", "rqi"]))

    def plot(self) -> go.Figure:
        """Accuracies and the RQI over the steps."""
        from interp.plots import Series, lines

        table = self.to_frame()
        series = [
            Series(name=name, y=table[name].to_numpy()) for name in ["train_accuracy", "accuracy", "rqi"]
        ]
        return lines(table["step"].tolist(), series, x_title="step", y_title="share")

    def first(self, column: int, threshold: float) -> int | None:
        """The first step at which a column of the curve reaches a threshold."""
        return next((int(row[0]) for row in self.curve if row[column] >= threshold), None)


def train_addition(*, seed: int = 0, recipe: AdditionRecipe | None = None) -> AdditionRun:
    """Train the toy (full batch, AdamW, tanh decoder) and say which phase the run belongs to.

    An answer is right when the decoded vector is nearest to the target of the right sum. Cost: ``steps`` passes of
    ``n_train`` rows; 5000 steps take about 10 CPU seconds.
    """
    recipe = recipe or AdditionRecipe()
    generator = torch.Generator().manual_seed(seed)
    n = recipe.n_symbols
    pairs = list(itertools.combinations_with_replacement(range(n), 2))
    order = torch.randperm(len(pairs), generator=generator)
    grid = torch.tensor(pairs)
    train = order[: recipe.n_train]
    targets = torch.randn(2 * n - 1, recipe.d_target, generator=generator)
    positions = nn.Parameter(torch.randn(n, recipe.d, generator=generator) * recipe.spread)
    decoder = _decoder(recipe, generator)
    optimiser = torch.optim.AdamW(
        [
            {"params": [positions], "lr": recipe.lr, "weight_decay": 0.0},
            {"params": decoder.parameters(), "lr": recipe.decoder_lr, "weight_decay": recipe.weight_decay},
        ]
    )
    answer = grid.sum(1)
    curve = []
    for step in range(1, recipe.steps + 1):
        optimiser.zero_grad(set_to_none=True)
        out = decoder(positions[grid[train, 0]] + positions[grid[train, 1]])
        (out - targets[answer[train]]).square().mean().backward()
        optimiser.step()
        if step % recipe.check_every == 0 or step == recipe.steps:
            with torch.no_grad():
                out = decoder(positions[grid[:, 0]] + positions[grid[:, 1]])
                right = (torch.cdist(out, targets).argmin(1) == answer).double()
            curve.append((step, float(right[train].mean()), float(right.mean()), rqi(positions.detach())))
    known = tuple(pairs[i] for i in train.tolist())
    run = AdditionRun(
        recipe=recipe, seed=seed, positions=positions.detach(), train=known, curve=tuple(curve),
        ideal=ideal_accuracy(n, known), phase="",
    )  # fmt: skip
    steps = [run.first(column, recipe.threshold) for column in (1, 2)]
    return replace(run, phase=phase_of(steps[0], steps[1]))


def _decoder(recipe: AdditionRecipe, generator: torch.Generator) -> nn.Sequential:
    sizes = (recipe.d, recipe.width, recipe.width, recipe.d_target)
    layers: list[nn.Module] = []
    for d_in, d_out in itertools.pairwise(sizes):
        linear = nn.Linear(d_in, d_out)
        with torch.no_grad():  # torch's default, from a generator of our own
            for parameter in linear.parameters():
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) / d_in**0.5)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def phase_diagram(
    decoder_lrs: Sequence[float],
    weight_decays: Sequence[float],
    *,
    recipe: AdditionRecipe | None = None,
    seed: int = 0,
    workers: int = 1,
) -> list[list[str]]:
    """The phase of a run at each decoder learning rate (rows) and weight decay (columns).

    ``workers`` processes share the work; the result does not depend on how many.
    """
    base = recipe or AdditionRecipe()
    cells = [
        (AdditionRecipe(**{**asdict(base), "decoder_lr": lr, "weight_decay": decay}), seed)
        for lr in decoder_lrs
        for decay in weight_decays
    ]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            phases = list(pool.map(_phase, cells))
    else:
        phases = [_phase(cell) for cell in cells]
    width = len(weight_decays)
    return [phases[i * width : (i + 1) * width] for i in range(len(decoder_lrs))]


def _phase(cell: tuple[AdditionRecipe, int]) -> str:
    torch.set_num_threads(1)
    return train_addition(recipe=cell[0], seed=cell[1]).phase
