"""The coder: a dictionary of directions, and the few of them that each row is written in.

``encode`` gives codes [sample, latent], ``decode`` sums the directions they weigh. The sparsity rule is a function
from pre-activations to (indices, values), so that a further kind is a further function, not a copied class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError

__all__ = ["RULES", "Coder", "topk"]


def topk(
    pre: Float[Tensor, "sample latent"], k: int
) -> tuple[Int64[Tensor, "sample k"], Float[Tensor, "sample k"]]:
    """The k largest pre-activations of each row, those that are negative set to 0 (Gao et al. 2024, section 2.3)."""
    values, indices = pre.topk(k, dim=-1, sorted=False)
    return indices, values.relu()


RULES: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {"topk": topk}
"""Sparsity rules by name."""


class Coder(nn.Module):
    """A sparse autoencoder: z = rule((x - b_dec) W_enc + b_enc), x^ = z W_dec + b_dec, rows of W_dec of unit norm.

    Parameters
    ----------
    d_in, d_sae, k
        Width of a row, latents, codes kept a row.
    kind
        Name of the sparsity rule.
    seed
        Of the initial dictionary: random unit directions; the encoder starts as their transpose.

    Attributes
    ----------
    W_enc, W_dec
        [d_in, d_sae] and [d_sae, d_in].
    b_enc, b_dec
        [d_sae] and [d_in].
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: int,
        *,
        kind: str = "topk",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if kind not in RULES:
            raise InputError(f"kind {kind!r} is not known here; it is one of {sorted(RULES)}")
        if not 1 <= k <= d_sae or d_in < 1:
            raise InputError(f"d_in = {d_in}, d_sae = {d_sae}, k = {k}: need d_in >= 1 and 1 <= k <= d_sae")
        self.d_in, self.d_sae, self.k, self.kind = d_in, d_sae, k, kind
        start = torch.randn(d_sae, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        start = (start / start.norm(dim=1, keepdim=True)).to(dtype)
        self.W_dec = nn.Parameter(start)
        self.W_enc = nn.Parameter(start.T.clone().contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(d_in, dtype=dtype))

    def sparse_encode(
        self, x: Float[Tensor, "sample d_in"]
    ) -> tuple[Int64[Tensor, "sample k"], Float[Tensor, "sample k"]]:
        """Which latents each row uses, and how much of each."""
        return RULES[self.kind]((x - self.b_dec) @ self.W_enc + self.b_enc, self.k)

    def sparse_decode(
        self, indices: Int64[Tensor, "sample k"], values: Float[Tensor, "sample k"]
    ) -> Float[Tensor, "sample d_in"]:
        """The rows that sparse codes stand for; costs sample x k x d_in, whatever the number of latents."""
        rows = nn.functional.embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum")
        return rows + self.b_dec

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """Codes of every row; at most ``k`` of them not zero.

        Raises
        ------
        InputError
            The rows are not ``d_in`` wide.
        """
        if x.shape[-1] != self.d_in:
            raise InputError(
                f"this coder reads rows of width {self.d_in}; got {list(x.shape)} (another site?)"
            )
        indices, values = self.sparse_encode(x.reshape(-1, self.d_in).to(self.W_enc.dtype))
        codes = values.new_zeros(len(values), self.d_sae).scatter(1, indices, values)
        return codes.reshape(*x.shape[:-1], self.d_sae)

    def decode(self, codes: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch d_in"]:
        """The rows that codes stand for."""
        if codes.shape[-1] != self.d_sae:
            raise InputError(f"this coder has {self.d_sae} latents; got codes of shape {list(codes.shape)}")
        return codes @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction of every row."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def normalise_(self) -> Coder:
        """Bring every dictionary direction back to unit norm, in place."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return self

    @torch.no_grad()
    def rescaled(self, scale: float) -> Coder:
        """The coder that does to ``scale * x`` what this one does to ``x``: biases scaled, directions as they are.

        Scaling every pre-activation by one positive number changes no winner of the top k, so it is exact.
        """
        other = Coder(self.d_in, self.d_sae, self.k, kind=self.kind, dtype=self.W_dec.dtype).to(
            self.W_dec.device
        )
        other.W_enc.copy_(self.W_enc)
        other.W_dec.copy_(self.W_dec)
        other.b_enc.copy_(self.b_enc * scale)
        other.b_dec.copy_(self.b_dec * scale)
        return other

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return f"{self.kind}, d_in={self.d_in}, d_sae={self.d_sae}, k={self.k}"
