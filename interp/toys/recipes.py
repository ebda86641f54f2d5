"""How group networks are trained: the published recipes, and quick ones for one core.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality", appendix (sizes, optimiser, train fractions).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from interp.errors import InputError, nearest
from interp.showing import Shown
from interp.toys.groups.words import Word
from interp.toys.perceptron import ACTIVATIONS

__all__ = ["NETWORKS", "RECIPES", "Recipe", "published", "recipe_for"]

NETWORKS = ("transformer", "mlp")


@dataclass(frozen=True, kw_only=True, repr=False)
class Recipe(Shown):
    """How a group network is trained."""

    network: str = "transformer"
    """``"transformer"`` (one layer on ``a b =``) or ``"mlp"`` (one hidden layer on ``a b``)."""
    word: str = "ab"
    """What is computed of a and b: ``"ab"``, ``"aba^-1"``, ``"[a,b]"``, ``"a^2b"`` ..."""
    train_fraction: float = 0.5
    lr: float = 3e-3
    weight_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 10
    """Epochs of linear warm-up."""
    epochs: int = 4000
    """At most; training ends earlier when the network has generalised (see ``until_loss``)."""
    until_loss: float = 0.005
    """Done when test accuracy is 1 and the mean test loss is below this many nats; 0 trains to the end."""
    check_every: int = 50
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int = 256
    n_layers: int = 1
    d_embed: int = 64
    d_hidden: int = 128
    activation: str = "relu"
    """Of the MLP; the transformer's is ReLU."""
    scale: float = 1.0
    """Initial weights of the MLP are normal, of this size / sqrt(inputs)."""

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise InputError(f"train_fraction must lie between 0 and 1, got {self.train_fraction}")
        if min(self.epochs, self.check_every) < 1:
            raise InputError(
                f"epochs and check_every must be at least 1, got {self.epochs}, {self.check_every}"
            )
        for what, name, valid in (
            ("network", self.network, NETWORKS),
            ("activation", self.activation, tuple(ACTIVATIONS)),
        ):
            if name not in valid:
                raise InputError(f"no {what} {name!r}{nearest(name, valid)} ({what}s: {', '.join(valid)})")
        Word(self.word)


def _quick(activation: str, lr: float, weight_decay: float, train_fraction: float, **other: Any) -> Recipe:
    return Recipe(
        network="mlp", activation=activation, lr=lr, weight_decay=weight_decay, train_fraction=train_fraction,
        warmup=1, scale=0.5, until_loss=0.01, **other,
    )  # fmt: skip


RECIPES: dict[tuple[str, str], Recipe] = {
    ("C31", "transformer"): Recipe(train_fraction=0.6, epochs=6000),
    ("C59", "transformer"): Recipe(),
    ("D15", "transformer"): Recipe(train_fraction=0.7),
    ("C31", "mlp"): _quick("square", 1e-2, 2.0, 0.4),
    ("C59", "mlp"): _quick("square", 1e-2, 2.0, 0.4),
    ("C113", "mlp"): _quick("square", 1e-2, 1.0, 0.4),
    ("D15", "mlp"): _quick("square", 1e-2, 2.0, 0.6),
    ("D59", "mlp"): _quick("square", 1e-2, 1.0, 0.5),
    ("S4", "mlp"): _quick("relu", 1e-2, 1.0, 0.6, epochs=10_000),
    ("A5", "mlp"): _quick("square", 1e-2, 2.0, 0.6),
    ("S5", "mlp"): _quick("square", 1e-2, 1.0, 0.5),
    ("Q8xC3", "mlp"): _quick("square", 1e-2, 2.0, 0.6, epochs=10_000),
}
"""Recipes known to reach 100 % test accuracy on one core within a minute."""


def recipe_for(group: str, network: str = "transformer", **changes: Any) -> Recipe:
    """The recipe known for this group and network, else a general one, with ``changes``.

    Raises
    ------
    InputError
        The network or a changed field is unknown.
    """
    if network not in NETWORKS:
        raise InputError(
            f"no network {network!r}{nearest(network, NETWORKS)} (networks: {', '.join(NETWORKS)})"
        )
    general = _quick("square", 1e-2, 1.0, 0.6) if network == "mlp" else Recipe()
    known = RECIPES.get((group, network), general)
    return _changed(known, changes)


_PUBLISHED_FRACTIONS = {
    "S5": (0.4, 0.6), "S6": (0.25, 0.4), "A5": (0.5, 0.6),
    **dict.fromkeys(("C113", "C118", "D59", "D61"), (0.3, 0.3)),
}  # fmt: skip
_PUBLISHED_EPOCHS = {"S6": 20_000, "D59": 100_000, "D61": 100_000, "A5": 250_000}


def published(group: str, network: str, **changes: Any) -> Recipe:
    """The recipe of "A Toy Model of Universality": full size, a quarter of a million epochs (hours of CPU for S5).

    Raises
    ------
    InputError
        The paper did not train on this group.
    """
    if group not in _PUBLISHED_FRACTIONS:
        raise InputError(
            f"no published recipe for {group!r}{nearest(group, _PUBLISHED_FRACTIONS)} "
            f"(groups: {', '.join(_PUBLISHED_FRACTIONS)})"
        )
    mlp, transformer = _PUBLISHED_FRACTIONS[group]
    recipe = Recipe(
        network=network,
        train_fraction=mlp if network == "mlp" else transformer,
        lr=1e-3,
        weight_decay=1.0,
        warmup=1,
        epochs=250_000 if network == "mlp" else _PUBLISHED_EPOCHS.get(group, 50_000),
        until_loss=0.0,
        check_every=500,
        d_embed=256,
        d_hidden=128,
        d_model=128,
        d_mlp=512,
    )
    return _changed(recipe, changes)


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    names = [field.name for field in fields(Recipe)]
    for name in changes:
        if name not in names:
            raise InputError(f"a recipe has no field {name!r}{nearest(name, names)}")
    return Recipe(**{**{name: getattr(recipe, name) for name in names}, **changes})
