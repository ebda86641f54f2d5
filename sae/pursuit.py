"""Codes found with the dictionary itself: matching pursuit, and a codebook whose codes are whole numbers.

Both take k steps; each looks for the direction that leaves the least of what is still unexplained. Pursuit weighs it
by its projection (Mallat & Zhang 1993), the codebook takes it whole, so that a row is written as a set of k entries
(residual quantisation; k = 1 is a nearest-centroid code). Which direction wins is a constant in the gradient.
Cost: k dense products.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["pursue"]


def pursue(
    x: Float[Tensor, "sample d_in"], dictionary: Float[Tensor, "latent d_in"], k: int, *, whole: bool
) -> tuple[Int64[Tensor, "sample k"], Float[Tensor, "sample k"]]:
    """Which directions each row takes, in order, and how much of each; one may come more than once.

    Pursuit never weighs a direction negatively: where none points along the rest, the code is 0.
    """
    rest, chosen, weights = x, [], []
    # |r - d|^2 is least where r.d - |d|^2 / 2 is largest
    offset = dictionary.square().sum(1) / 2 if whole else None
    for _ in range(k):
        with torch.no_grad():
            score = rest @ dictionary.T
            best = (score if offset is None else score - offset).argmax(1)
        taken = dictionary[best]
        weight = torch.ones_like(rest[:, 0]) if whole else (rest * taken).sum(1).relu()
        rest = rest - weight[:, None] * taken
        chosen.append(best)
        weights.append(weight)
    return torch.stack(chosen, 1), torch.stack(weights, 1)
