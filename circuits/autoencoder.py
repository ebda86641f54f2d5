"""The autoencoder of the discrete-SAE method, as its authors published it; ``discrete.py`` takes any other as well."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from interp.errors import CheckError, InputError
from interp.showing import Shown

__all__ = ["DiscreteCoder", "discrete_coder"]


class DiscreteCoder(Shown, nn.Module):
    """ReLU(W_enc (x - b) + b_enc) and W_dec z + b, the rows of both matrices of unit norm.

    The published decoder is normed along its latents (a row of it is an output coordinate), so that it is not the
    latents' directions that have unit norm; kept as published.
    """

    def __init__(self, d_in: int, n_codes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.W_enc = nn.Parameter(F.normalize(torch.randn(n_codes, d_in, generator=generator), dim=1))
        bound = d_in**-0.5
        self.b_enc = nn.Parameter((2 * torch.rand(n_codes, generator=generator) - 1) * bound)
        self.W_dec = nn.Parameter(F.normalize(torch.randn(d_in, n_codes, generator=generator), dim=1))
        self.bias = nn.Parameter(torch.zeros(d_in))

    def _facts(self) -> dict[str, Any]:
        n_codes, d_in = self.W_enc.shape
        return {
            "widths": f"{d_in} -> {n_codes} -> {d_in}",
            "dtype": str(self.W_enc.dtype).removeprefix("torch."),
        }

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """Codes of every row."""
        return F.relu((x - self.bias) @ self.W_enc.T + self.b_enc)

    def decode(self, codes: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch d_in"]:
        """The rows that codes stand for."""
        return codes @ self.W_dec.T + self.bias


def discrete_coder(
    rows: Float[Tensor, "sample d_in"],
    *,
    n_codes: int = 200,
    sparsity: float = 0.02,
    epochs: int = 500,
    lr: float = 1e-3,
    seed: int = 0,
) -> DiscreteCoder:
    """Train the published autoencoder: mean squared error + ``sparsity`` times the mean L1 of the codes.

    The defaults are those of the published runs (``sparsity`` 0.05 for the docstring task). Adam on all rows at once;
    gradients along the rows of both matrices are taken out, and the rows normed before every pass.

    Raises
    ------
    InputError
        No rows, or sizes that are not positive.
    CheckError
        The loss is no longer finite.

    References
    ----------
    O'Neill and Bui 2024, "Sparse autoencoders enable scalable and reliable circuit identification in language models"
    (arXiv 2405.12522), section 3.
    """
    if rows.ndim != 2 or not len(rows) or n_codes < 1 or epochs < 1:
        raise InputError(
            f"rows {list(rows.shape)}, n_codes={n_codes}, epochs={epochs}: need rows [sample, d], sizes >= 1"
        )
    rows = rows.detach().float()
    coder = DiscreteCoder(rows.shape[1], n_codes, generator=torch.Generator().manual_seed(seed)).to(
        rows.device
    )
    adam = torch.optim.Adam(coder.parameters(), lr=lr)
    with torch.enable_grad():
        for epoch in range(epochs):
            codes = coder.encode(rows)
            loss = F.mse_loss(coder.decode(codes), rows) + sparsity * codes.abs().sum(1).mean()
            if not torch.isfinite(loss):
                raise CheckError(f"the autoencoder's loss is not finite in epoch {epoch}; lower lr")
            adam.zero_grad()
            loss.backward()
            for weight in (coder.W_enc, coder.W_dec):
                assert weight.grad is not None
                weight.grad -= (weight.grad * weight.detach()).sum(1, keepdim=True) * weight.detach()
            adam.step()
            with torch.no_grad():
                for weight in (coder.W_enc, coder.W_dec):
                    weight.copy_(F.normalize(weight, dim=1))
    return coder.requires_grad_(False)
