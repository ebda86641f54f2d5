"""Chaining operations through a global workspace: a router learns to add by calling "input, increment ..., output".

Three modules that know nothing of addition share one workspace, which holds a number or nothing. *Input* writes there
what is seen, which is the first addend at the first step and nothing later; *increment* replaces what is there by its
successor; *output* hands it out and ends the trial. A controller, an LSTM that sees the second addend only, chooses a
module at every step. What it has learned is a program, and the trace of its choices is that program's text: a chain
that works on sums that no training pair had.

The choices are probabilities, and no choice depends on the content of the workspace, so the distribution of the answer
over all routes is an exact sum (:meth:`Workspace.forward`): nothing is sampled, training is plain maximum likelihood.

References
----------
Chateau-Laurent and VanRullen 2025, "Learning to chain operations by routing information through a global neuronal
workspace" (arXiv 2503.01906): input, increment and output modules, an LSTM controller, unseen additions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError
from interp.showing import Shown
from interp.tables import tidy
from interp.toys.networks import Shape, Transformer

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = [
    "MODULES",
    "RoutingTrace",
    "Sets",
    "Workspace",
    "WorkspaceRecipe",
    "WorkspaceRun",
    "additions",
    "train_workspace",
]

MODULES = ("input", "increment", "output")
TINY = 1e-12
"""Added to probabilities under a logarithm: at the start long chains have less."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RoutingTrace(Shown):
    """What the controller chose for one addition, step by step."""

    a: int
    b: int
    gates: Float[Tensor, "step module"]
    """The probability of each of :data:`MODULES`."""
    route: tuple[str, ...]
    """The likeliest module of each step, up to the first output."""
    workspace: tuple[int | None, ...]
    """What the workspace holds after each step of that route."""
    answer: int | None
    """What is handed out; None where the route never reaches a full workspace and output."""

    @property
    def decisiveness(self) -> float:
        """The probability of the route: the product of its gates."""
        rows = torch.arange(len(self.route))
        chosen = torch.tensor([MODULES.index(name) for name in self.route], dtype=torch.int64)
        return float(self.gates.double()[rows, chosen].prod())

    def plot(self) -> go.Figure:
        """The gates as a heatmap, a row per module, a column per step of the route."""
        from interp.plots import heatmap

        return heatmap(
            self.gates[: len(self.route)].T.numpy(),
            rows=MODULES,
            columns=[f"{step}: {self._held(value)}" for step, value in enumerate(self.workspace, start=1)],
            title=f"{self.a} + {self.b}",
            x_title="step: workspace after it",
            unit="probability",
            span=(0.0, 1.0),
        )

    def to_frame(self) -> pd.DataFrame:
        """A row per step and module: the gate's probability."""
        gates = self.gates.detach().numpy()
        return tidy({"step": range(1, len(gates) + 1), "module": MODULES}, probability=gates)

    @staticmethod
    def _held(value: int | None) -> str:
        return "empty" if value is None else str(value)


class Workspace(nn.Module):
    """The controller, its gates, and the three modules around the workspace.

    Parameters
    ----------
    n_digits
        Addends are 0 .. n_digits - 1; the workspace holds 0 .. 2 n_digits - 2.
    d_hidden
        Width of the controller.
    learned
        Whether the increment, else given as the successor, is a table of transition probabilities to be learned too.
    """

    def __init__(
        self,
        *,
        n_digits: int = 10,
        d_hidden: int = 32,
        learned: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(n_digits, d_hidden) < 1:
            raise InputError(f"n_digits and d_hidden must be at least 1, got {n_digits} and {d_hidden}")
        self.n_digits, self.n_values, self.n_steps = n_digits, 2 * n_digits - 1, n_digits + 2
        self.controller = nn.LSTMCell(n_digits, d_hidden)
        self.gate = nn.Linear(d_hidden, len(MODULES))
        _draw(self, generator)
        successor = torch.eye(self.n_values).roll(1, 1)
        successor[-1] = 0  # the largest number has none
        self.register_buffer("successor", successor)
        size = (self.n_values, self.n_values)
        self.table = nn.Parameter(torch.randn(size, generator=generator) * 0.1) if learned else None

    def gates(self, b: Int64[Tensor, " batch"]) -> Float[Tensor, "batch step module"]:
        """The probability of each module at each step; it depends on the second addend alone."""
        x = nn.functional.one_hot(b, self.n_digits).to(self.gate.weight)
        state, steps = None, []
        for _ in range(self.n_steps):
            state = self.controller(x, state)
            steps.append(self.gate(state[0]).softmax(-1))
        return torch.stack(steps, 1)

    def increment(self) -> Float[Tensor, "value value"]:
        """The probability of each content of the workspace after an increment, by the content before it."""
        return self.get_buffer("successor") if self.table is None else self.table.softmax(-1)

    def forward(self, ids: Int64[Tensor, "batch addend"]) -> Float[Tensor, "batch value"]:
        """The probability of each answer over all routes; what is missing to 1 has none (empty, or never handed out).

        Cost: ``n_steps`` passes of the controller.
        """
        a, b = ids.T
        gates, increment = self.gates(b), self.increment()
        first = nn.functional.one_hot(a, self.n_values).to(increment)
        held = torch.zeros_like(first)  # the probability that this is in the workspace, and the trial goes on
        answer = torch.zeros_like(first)
        for step in range(self.n_steps):
            take, add, give = gates[:, step].split(1, dim=1)
            answer = answer + give * held
            held = add * (held @ increment)
            if step == 0:
                held = held + take * first
        return answer

    @torch.no_grad()
    def trace(self, a: int, b: int) -> RoutingTrace:
        """Follow the likeliest module at every step.

        Raises
        ------
        InputError
            An addend is no digit.
        """
        if not (0 <= a < self.n_digits and 0 <= b < self.n_digits):
            raise InputError(f"addends are 0 to {self.n_digits - 1}, got {a} and {b}")
        gates = self.gates(torch.tensor([b]))[0]
        table = self.increment()
        route: list[str] = []
        held: list[int | None] = []
        value: int | None = None
        for choice in gates.argmax(1).tolist():
            route.append(MODULES[choice])
            if route[-1] == "input":
                value = a if len(route) == 1 else None
            elif route[-1] == "increment" and value is not None:
                row = table[value]
                value = int(row.argmax()) if float(row.sum()) > 0 else None
            held.append(value)
            if route[-1] == "output":
                break
        answer = value if route[-1] == "output" else None
        return RoutingTrace(a=a, b=b, gates=gates, route=tuple(route), workspace=tuple(held), answer=answer)


def _draw(module: nn.Module, generator: torch.Generator | None) -> None:
    """Uniform weights of the usual width, from a generator of our own."""
    with torch.no_grad():
        for parameter in module.parameters():
            width = parameter.shape[-1] if parameter.ndim > 1 else len(parameter)
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) / width**0.5)


class Recurrent(nn.Module):
    """The rival: an LSTM that reads both addends and answers with a softmax over all sums."""

    def __init__(self, n_digits: int, d_hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n_digits = n_digits
        self.cell = nn.LSTMCell(n_digits, d_hidden)
        self.read = nn.Linear(d_hidden, 2 * n_digits - 1)
        _draw(self, generator)

    def forward(self, ids: Int64[Tensor, "batch addend"]) -> Float[Tensor, "batch value"]:
        """The probability of each sum."""
        state = None
        for column in ids.T:
            state = self.cell(nn.functional.one_hot(column, self.n_digits).to(self.read.weight), state)
        assert state is not None
        return self.read(state[0]).softmax(-1)


class Attentive(nn.Module):
    """The other rival: a one-layer transformer on ``a b =``."""

    def __init__(self, n_digits: int, d_model: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n_values = 2 * n_digits - 1
        shape = Shape(d_vocab=self.n_values + 1, n_ctx=3, d_model=d_model, n_heads=4, d_mlp=4 * d_model)
        self.inner = Transformer(shape, generator=generator)

    def forward(self, ids: Int64[Tensor, "batch addend"]) -> Float[Tensor, "batch value"]:
        """The probability of each sum."""
        equals = torch.full((len(ids), 1), self.n_values)
        return self.inner(torch.cat([ids, equals], 1))[:, -1, : self.n_values].softmax(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sets:
    """Pairs of addends [pair, addend]."""

    train: Int64[Tensor, "pair addend"]
    interpolation: Int64[Tensor, "held_out addend"]
    """Held out among sums of the training range."""
    extrapolation: Int64[Tensor, "larger addend"]
    """All pairs with a larger sum than any training pair has."""


def additions(n_digits: int, *, largest: int, held_out: float, seed: int) -> Sets:
    """Every pair of digits once: sums above ``largest`` are for extrapolation, a share of the others is held out.

    Pairs (0, b), (a, 0) and (a, 1) are never held out: every second addend has to occur in training, and every number
    with its successor.

    Raises
    ------
    InputError
        A set would be empty.
    """
    grid = torch.tensor(list(itertools.product(range(n_digits), repeat=2)))
    within = grid[grid.sum(1) <= largest]
    free = ((within[:, 0] > 0) & (within[:, 1] > 1)).nonzero()[:, 0]
    n = round(held_out * len(within))
    if not 0 < n <= len(free) or largest < n_digits - 1 or len(within) == len(grid):
        raise InputError(
            f"held_out {held_out} and largest {largest} leave no set of pairs for one of training, interpolation "
            f"and extrapolation (largest must lie in {n_digits - 1}..{2 * n_digits - 3})"
        )
    chosen = torch.zeros(len(within), dtype=torch.bool)
    chosen[free[torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))[:n]]] = True
    return Sets(
        train=within[~chosen], interpolation=within[chosen], extrapolation=grid[grid.sum(1) > largest]
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class WorkspaceRecipe(Shown):
    """The task and its training."""

    n_digits: int = 10
    largest: int = 12
    """The largest sum in training."""
    held_out: float = 0.25
    d_hidden: int = 32
    learned: bool = False
    """Whether the increment is learned with the controller."""
    ones_first: int = 0
    """Steps on the pairs with a second addend of 0 or 1 alone, before the others join them."""
    lr: float = 1e-2
    steps: int = 600
    rivals: tuple[str, ...] = ("lstm", "transformer")
    rival_lr: float = 3e-3

    def __post_init__(self) -> None:
        for name in self.rivals:
            if name not in ("lstm", "transformer"):
                raise InputError(f"no rival {name!r} (rivals: lstm, transformer)")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class WorkspaceRun(Shown):
    """A trained workspace beside networks that answer in one go, trained on the same pairs."""

    module: Workspace
    sets: Sets
    accuracy: dict[str, dict[str, float]]
    """By network (``workspace``, the rivals), then by set: ``train``, ``interpolation``, ``extrapolation``."""
    n_parameters: dict[str, int]
    curve: tuple[tuple[int, float], ...] = field(repr=False)
    """Step, loss of the workspace in nats."""

    def to_frame(self) -> pd.DataFrame:
        """A row per network and set: the accuracy, and the number of parameters."""
        sets = list(next(iter(self.accuracy.values())))
        table = [[of[name] for name in sets] for of in self.accuracy.values()]
        frame = tidy({"network": list(self.accuracy), "set": sets}, accuracy=table)
        return frame.assign(n_parameters=frame["network"].map(self.n_parameters))

    def plot(self) -> go.Figure:
        """The loss of the workspace over training."""
        from interp.plots import Series, lines

        steps, losses = zip(*self.curve, strict=True)
        return lines(
            list(steps), [Series(name="loss", y=list(losses))], x_title="step", y_title="loss (nats)"
        )

    def routes(self) -> dict[int, tuple[str, ...]]:
        """The program for each second addend."""
        return {b: self.module.trace(0, b).route for b in range(self.module.n_digits)}


def train_workspace(*, seed: int = 0, recipe: WorkspaceRecipe | None = None) -> WorkspaceRun:
    """Train the workspace and its rivals (full batch, Adam) and test all of them on unseen additions. Cost: seconds."""
    recipe = recipe or WorkspaceRecipe()
    sets = additions(recipe.n_digits, largest=recipe.largest, held_out=recipe.held_out, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    workspace = Workspace(
        n_digits=recipe.n_digits, d_hidden=recipe.d_hidden, learned=recipe.learned, generator=generator
    )
    makers = {"lstm": Recurrent, "transformer": Attentive}
    networks: dict[str, nn.Module] = {"workspace": workspace}
    networks |= {name: makers[name](recipe.n_digits, 64, generator) for name in recipe.rivals}
    curves = {
        name: _fit(module, sets.train, recipe, lr=recipe.lr if module is workspace else recipe.rival_lr)
        for name, module in networks.items()
    }
    return WorkspaceRun(
        module=workspace.eval(),
        sets=sets,
        accuracy={name: _accuracies(module, sets) for name, module in networks.items()},
        n_parameters={name: sum(p.numel() for p in module.parameters()) for name, module in networks.items()},
        curve=curves["workspace"],
    )


def _fit(
    module: nn.Module, pairs: Tensor, recipe: WorkspaceRecipe, *, lr: float
) -> tuple[tuple[int, float], ...]:
    optimiser = torch.optim.Adam(module.parameters(), lr=lr)
    curve = []
    for step in range(1, recipe.steps + 1):
        shown = pairs if step > recipe.ones_first else pairs[pairs[:, 1] <= 1]
        optimiser.zero_grad(set_to_none=True)
        loss = -(module(shown).gather(1, shown.sum(1, keepdim=True)) + TINY).log().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            curve.append((step, float(loss.detach())))
    return tuple(curve)


@torch.no_grad()
def _accuracies(module: nn.Module, sets: Sets) -> dict[str, float]:
    parts: Sequence[str] = ("train", "interpolation", "extrapolation")
    return {
        part: float((module(getattr(sets, part)).argmax(1) == getattr(sets, part).sum(1)).double().mean())
        for part in parts
    }
