"""The other network of the grokking papers: one hidden layer on two embeddings, with no bias.

Each operand has its own embedding table; both rows are concatenated, mapped to the hidden layer, passed through the
activation, and read out. Table times map is a factored input layer: that is what weight decay turns into few irreps.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality", section 3. Morwani et al. 2023, "Feature emergence via
margin maximization" (the square activation).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError, nearest
from interp.showing import Shown

__all__ = ["ACTIVATIONS", "Perceptron", "PerceptronShape", "Square"]


class Square(nn.Module):
    """x^2, the activation whose networks can be solved."""

    def forward(self, x: Tensor) -> Tensor:
        """The square of each entry."""
        return x.square()


class Absolute(nn.Module):
    """|x|."""

    def forward(self, x: Tensor) -> Tensor:
        """The magnitude of each entry."""
        return x.abs()


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "square": Square,
    "absolute": Absolute,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True, kw_only=True, repr=False)
class PerceptronShape(Shown):
    """The sizes of a :class:`Perceptron`."""

    order: int
    """How many symbols each operand and the answer can be."""
    d_embed: int = 64
    d_hidden: int = 128
    activation: str = "relu"

    def __post_init__(self) -> None:
        for name in ("order", "d_embed", "d_hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"no activation {self.activation!r}{nearest(self.activation, ACTIVATIONS)} "
                f"(activations: {', '.join(ACTIVATIONS)})"
            )


class Perceptron(nn.Module):
    """``unembed(act(mix(left[a], right[b])))`` on rows ``a b``; each of these modules is a site."""

    def __init__(
        self, shape: PerceptronShape, *, scale: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.shape = shape
        self.left = nn.Embedding(shape.order, shape.d_embed)
        self.right = nn.Embedding(shape.order, shape.d_embed)
        self.mix = nn.Linear(2 * shape.d_embed, shape.d_hidden, bias=False)
        self.act = ACTIVATIONS[shape.activation]()
        self.unembed = nn.Linear(shape.d_hidden, shape.order, bias=False)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale / weight.shape[1] ** 0.5)

    def forward(self, ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "batch pos answer"]:
        """The logits of the answer to each row ``a b`` or ``a b =``, the same at each position (a view, not copies).

        The answer belongs to the row; it stands at every position so that what reads the last one of a transformer
        reads it here too. The third column is not looked at.
        """
        pair = torch.cat([self.left(ids[:, 0]), self.right(ids[:, 1])], -1)
        logits = self.unembed(self.act(self.mix(pair)))
        return logits[:, None].expand(-1, ids.shape[1], -1)

    def inputs(self) -> tuple[Float[Tensor, "element d_hidden"], Float[Tensor, "element d_hidden"]]:
        """What each symbol adds to every neuron's pre-activation, as left and as right operand."""
        left, right = self.mix.weight.split(self.shape.d_embed, dim=1)
        return self.left.weight @ left.T, self.right.weight @ right.T

    def logits(
        self, a: Int64[Tensor, " sample"], b: Int64[Tensor, " sample"]
    ) -> Float[Tensor, "sample answer"]:
        """The same as :meth:`forward` through the two small tables of :meth:`inputs`: about half the work."""
        left, right = self.inputs()
        return self.unembed(self.act(left[a] + right[b]))

    def config(self) -> dict[str, Any]:
        """The sizes, JSON-able."""
        return asdict(self.shape)
