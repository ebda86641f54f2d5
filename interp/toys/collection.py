"""The trained networks that ship with the toolkit, by name: ``interp.load("group:C59")``."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from interp.errors import CheckError, InputError, ModelError, nearest
from interp.toys.groups import Group
from interp.toys.networks import Shape, Transformer
from interp.toys.train_group import pairs

__all__ = ["Embedded", "embedded", "names"]

WEIGHTS = Path(__file__).parent / "weights"
IGNORE = -100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedded:
    """A shipped network with the inputs it was made for and the labels that are known for them."""

    name: str
    module: nn.Module
    card: Mapping[str, Any]
    """Recipe, seed, epochs, accuracies with their n: how the weights came to be."""
    group: Group = field(repr=False)

    @property
    def strings(self) -> tuple[str, ...]:
        """What each token id is called."""
        return (*self.group.elements, "=")

    def inputs(self, n: int, *, seed: int = 0) -> Int64[Tensor, "batch pos"]:
        """``n`` different inputs ``a b =`` in random order (all of them when ``n`` is that large)."""
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        ids, _ = pairs(self.group)
        return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:n]]

    def labels(self, ids: Int64[Tensor, "batch pos"]) -> dict[str, Int64[Tensor, "batch pos"]]:
        """What is known about each token: the answer and both operands, at the last position (-100 elsewhere)."""
        order = self.group.order
        if ids.shape[1] != 3 or (ids[:, :2] >= order).any() or (ids[:, 2] != order).any() or (ids < 0).any():
            raise InputError(
                f"inputs of {self.name!r} are rows 'a b =' with a, b < {order} and the id {order} for '='"
            )
        known = {"answer": self.group.table[ids[:, 0], ids[:, 1]], "left": ids[:, 0], "right": ids[:, 1]}
        labels = {}
        for name, values in known.items():
            labels[name] = torch.full_like(ids, IGNORE)
            labels[name][:, -1] = values
        return labels


@functools.cache
def names() -> tuple[str, ...]:
    """The names of all shipped networks."""
    return tuple(f"group:{path.stem}" for path in sorted(WEIGHTS.glob("*.safetensors")))


def embedded(name: str) -> Embedded:
    """The shipped network called ``name``, such as ``"group:C59"``; a fresh copy at each call.

    Raises
    ------
    ModelError
        No network of that name ships; the message says the nearest and all names.
    CheckError
        The shipped weights do not fit their card (a damaged installation).
    """
    if name not in names():
        raise ModelError(
            f"no embedded network {name!r}{nearest(name, names())} (embedded: {', '.join(names())})"
        )
    from safetensors.torch import load_file

    stem = WEIGHTS / name.removeprefix("group:")
    card = json.loads(stem.with_suffix(".json").read_text("utf-8"))
    module = Transformer(Shape(**card["shape"]))
    try:
        module.load_state_dict(load_file(stem.with_suffix(".safetensors")))
    except Exception as error:  # noqa: BLE001  (safetensors and torch raise several kinds for one damage)
        raise CheckError(
            f"the weights of {name!r} do not fit their card: {error}; reinstall the toolkit"
        ) from error
    return Embedded(name=name, module=module.eval(), card=card, group=Group(card["group"]))
