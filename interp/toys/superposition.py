"""Toy models of superposition: x -> relu(W^T W x + b), more features than dimensions, and every feature known.

The features are coordinates of x, sparse and uniform; the columns of W are their directions in the hidden layer. So
the hidden layer is a source of activations whose true dictionary is known: :meth:`Superposition.features`,
:meth:`~Superposition.activations`, :attr:`~Superposition.directions`. Read next: ``train_superposition.py``.

References
----------
Elhage et al. 2022, "Toy Models of Superposition".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from interp.errors import InputError
from interp.toys.collection import Embedded, shipped, shipped_stems

__all__ = [
    "Superposition",
    "SuperpositionNetwork",
    "feature_dimensionality",
    "features_per_dimension",
    "make",
    "names",
]


class Superposition(nn.Module):
    """relu(W^T W x + b) with W [d_hidden, n_features]; modules ``hidden`` (W x) and ``act`` can be hooked.

    Parameters
    ----------
    n_features, d_hidden
        The sizes.
    density
        The probability that a feature is active; its value is then uniform on [0, 1].
    """

    def __init__(self, n_features: int, d_hidden: int, *, density: float) -> None:
        super().__init__()
        if min(n_features, d_hidden) < 1 or not 0 < density <= 1:
            raise InputError(
                f"n_features and d_hidden must be at least 1 and 0 < density <= 1, got {n_features}, {d_hidden}, "
                f"{density}"
            )
        self.density = density
        self.weight = nn.Parameter(torch.zeros(d_hidden, n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))
        self.hidden = nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch feature"]:
        """The features as they are recovered."""
        return self.act(self.hidden(x @ self.weight.T) @ self.weight + self.bias)

    @property
    def directions(self) -> Float[Tensor, "feature d_hidden"]:
        """What one unit of each feature adds to the hidden layer: the true dictionary, with its norms."""
        return self.weight.detach().T

    def features(self, n: int, *, seed: int = 0) -> Float[Tensor, "sample feature"]:
        """``n`` samples of the features, on the module's device and in its type."""
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        generator = torch.Generator().manual_seed(seed)
        drawn = draw(n, self.weight.shape[1], self.density, generator=generator)
        return drawn.to(self.weight)

    def activations(self, x: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample d_hidden"]:
        """The hidden layer W x, without gradients: sparse features in superposition."""
        return x @ self.directions


def draw(
    n: int, n_features: int, density: float | Tensor, *, generator: torch.Generator
) -> Float[Tensor, "sample feature"]:
    """Independent features: each is 0, or with probability ``density`` uniform on [0, 1]."""
    values = torch.rand(n, n_features, generator=generator)
    return values * (torch.rand(n, n_features, generator=generator) < density)


def features_per_dimension(weight: Float[Tensor, "d_hidden feature"]) -> float:
    """||W||_F^2 / d_hidden: features represented per hidden dimension, one where there is no superposition.

    The paper's D* ("dimensions per feature") is its inverse.
    """
    return float(weight.detach().double().square().sum() / weight.shape[0])


def feature_dimensionality(weight: Float[Tensor, "d_hidden feature"]) -> Float64[Tensor, "feature"]:
    """D_i = ||W_i||^2 / sum_j (W_i . W_j / ||W_i||)^2: the share of a dimension that each feature has to itself.

    One for a feature orthogonal to all others, 1/2 for each of an antipodal pair, 2/5 in a pentagon, 0 for a feature
    that is not represented at all. They sum to at most the rank of W.
    """
    gram = weight.detach().double().T @ weight.detach().double()
    shared = gram.square().sum(1)
    # a column of zeros has D_i 0 by definition, not 0/0
    return torch.where(shared > 0, gram.diagonal().square() / shared.where(shared > 0, torch.ones(())), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SuperpositionNetwork(Embedded):
    """A trained toy model of superposition; its inputs are feature vectors, not tokens."""

    module: Superposition

    @property
    def strings(self) -> tuple[str, ...]:
        """None: it has no tokens."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What it represents."""
        card = self.card
        return (
            f"{card['recipe']['n_features']} features, each active with probability {self.module.density}, in "
            f"{card['recipe']['d_hidden']} dimensions: {card['features_per_dimension']:.2f} features a dimension.",
        )

    def inputs(self, n: int, *, seed: int = 0) -> Float[Tensor, "batch feature"]:
        """``n`` samples of the features."""
        return self.module.features(n, seed=seed)


def names() -> tuple[str, ...]:
    """The names of the superposition models that ship."""
    return tuple(f"superposition:{stem.partition('-')[2]}" for stem in shipped_stems("superposition-*"))


def make(name: str) -> SuperpositionNetwork:
    """The superposition model called ``name``."""

    def build(card) -> Superposition:
        recipe = card["recipe"]
        return Superposition(recipe["n_features"], recipe["d_hidden"], density=card["density"])

    module, card = shipped(name, name.replace(":", "-"), build)
    assert isinstance(module, Superposition)
    return SuperpositionNetwork(name=name, module=module, card=card)
