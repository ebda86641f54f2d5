"""Two features learned equally well, one of them taking up most of the representation.

An MLP learns two labels of random bits: an easy one, a single bit, and a hard one, the parity of several others. Both
are answered without a mistake, yet the share of the hidden activations' variance that a linear regression on the label
explains is many times larger for the easy one: what fills a representation says little about what it is used for.

References
----------
Lampinen et al. 2024, "Learned feature representations are biased by complexity, learning order, position, and more".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from interp.errors import InputError
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BiasRecipe", "BiasRun", "explained_share", "train_biased"]


@dataclass(frozen=True, kw_only=True, repr=False)
class BiasRecipe(Shown):
    """The task and its training."""

    n_bits: int = 12
    parity: int = 3
    """Bits in the hard label."""
    d_hidden: int = 64
    n_hidden: int = 2
    lr: float = 3e-3
    steps: int = 600
    hard_first: int = 0
    """Train on the hard label alone for so many steps first."""

    def __post_init__(self) -> None:
        if not 1 <= self.parity < self.n_bits or self.n_bits > 16:
            raise InputError(
                f"parity of {self.parity} in {self.n_bits} bits: at least 1, fewer than all, at most 16 bits"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BiasRun(Shown):
    """A trained network with the shares of its last hidden layer."""

    module: nn.Sequential
    accuracy: dict[str, float]
    """On all inputs: ``easy``, ``hard``."""
    share: dict[str, float]
    """Of the last hidden layer's variance, explained by the label: ``easy``, ``hard``."""
    learned: dict[str, int | None]
    """The first step (of each ten) at which the accuracy reached 99 %."""

    def to_frame(self) -> pd.DataFrame:
        """A row per label: accuracy, explained share, the step at which it was learnt."""
        import pandas as pd

        parts = {name: dict(getattr(self, name)) for name in ("accuracy", "share", "learned")}
        return pd.DataFrame(parts).rename_axis("label").reset_index()


def explained_share(activations: Float[Tensor, "sample d"], label: Tensor) -> float:
    """The share of total variance that a linear regression on one label explains: between-class over total variance
    for a binary one.

    Raises
    ------
    InputError
        The label or the activations do not vary.
    """
    x = activations.double() - activations.double().mean(0)
    y = label.double() - label.double().mean()
    if y.square().sum() == 0 or x.square().sum() == 0:
        raise InputError("nothing to explain: the label or the activations are the same for every sample")
    return float((y @ x).square().sum() / y.square().sum() / x.square().sum())


def train_biased(*, seed: int = 0, recipe: BiasRecipe | None = None) -> BiasRun:
    """Train on all 2^n_bits inputs (full batch, Adam) and measure. Cost: a second or two."""
    recipe = recipe or BiasRecipe()
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.arange(2**recipe.n_bits)[:, None] >> torch.arange(recipe.n_bits)) & 1
    labels = {"easy": bits[:, 0], "hard": bits[:, 1 : 1 + recipe.parity].sum(1) % 2}
    x = bits.float() * 2 - 1
    y = torch.stack(list(labels.values()), 1).float()
    module = _mlp(recipe, generator)
    optimiser = torch.optim.Adam(module.parameters(), lr=recipe.lr)
    learned: dict[str, int | None] = {"easy": None, "hard": None}
    for step in range(1, recipe.steps + recipe.hard_first + 1):
        optimiser.zero_grad(set_to_none=True)
        out = module(x)
        chosen = slice(1, 2) if step <= recipe.hard_first else slice(0, 2)
        binary_cross_entropy_with_logits(out[:, chosen], y[:, chosen]).backward()
        optimiser.step()
        if step % 10 == 0:
            right = ((out > 0) == (y > 0.5)).double().mean(0)
            for name, value in zip(labels, right.tolist(), strict=True):
                if learned[name] is None and value >= 0.99:
                    learned[name] = step
    with torch.no_grad():
        hidden = module[:-1](x)
        right = ((module[-1](hidden) > 0) == (y > 0.5)).double().mean(0)
    return BiasRun(
        module=module.eval(),
        accuracy=dict(zip(labels, right.tolist(), strict=True)),
        share={name: explained_share(hidden, label) for name, label in labels.items()},
        learned=learned,
    )


def _mlp(recipe: BiasRecipe, generator: torch.Generator) -> nn.Sequential:
    sizes = [recipe.n_bits] + [recipe.d_hidden] * recipe.n_hidden
    layers: list[nn.Module] = []
    for d_in, d_out in zip(sizes, sizes[1:], strict=False):
        layers += [_linear(d_in, d_out, generator), nn.ReLU()]
    return nn.Sequential(*layers, _linear(sizes[-1], 2, generator))


def _linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    linear = nn.Linear(d_in, d_out)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(d_out, d_in, generator=generator) * (2 / d_in) ** 0.5)
        linear.bias.zero_()
    return linear
