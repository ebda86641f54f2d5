"""Neurons as a dictionary: each feature of a site is its own latent, and nothing is left over."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp.showing import Shown

__all__ = ["Neurons"]


class Neurons(Shown):
    """The dictionary that says nothing new: ``feature_circuit(model, task, {"blocks.1.mlp.hook_post": Neurons()})``
    is a circuit of neurons."""

    def encode(self, x: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
        """The activations themselves."""
        return x

    def decode(self, codes: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
        """The activations themselves."""
        return codes
