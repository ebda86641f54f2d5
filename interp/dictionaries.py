"""Dictionary: what codes rows and gives them back, the least that a sparse autoencoder and its users agree on.

Anything with ``encode`` and ``decode`` is one; circuits take one as an argument instead of importing ``sae``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["Dictionary"]


@runtime_checkable
class Dictionary(Protocol):
    """Codes of rows, and the rows that codes stand for."""

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """Codes of every row."""
        ...

    def decode(self, codes: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch d_out"]:
        """The rows that codes stand for."""
        ...
