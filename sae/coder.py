"""The coder: a dictionary of directions, and the few of them that each row is written in.

``encode`` gives codes [sample, latent], ``decode`` sums the directions they weigh. What differs between kinds is one
function in ``rules.py``; what differs between an SAE, a transcoder, a crosscoder and a cross-layer transcoder is only
what is read, what is written, and which entries of the two matrices may differ from 0 (``wiring.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError, nearest
from interp.showing import Shown
from sae.pursuit import pursue
from sae.rules import RULES, Parts, Rule
from sae.wiring import WIRINGS, reach

__all__ = ["Coder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    d_in: int
    d_sae: int
    k: int
    d_out: int
    n_sites: int

    def problem(self) -> str | None:
        if not (self.d_in >= 1 and self.d_out >= 1 and 1 <= self.k <= self.d_sae):
            return (
                f"d_in = {self.d_in}, d_sae = {self.d_sae}, k = {self.k}, d_out = {self.d_out}: "
                "need widths >= 1 and 1 <= k <= d_sae"
            )
        if self.n_sites < 1 or any(n % self.n_sites for n in (self.d_in, self.d_out)):
            return f"{self.n_sites} sites do not divide widths d_in = {self.d_in}, d_out = {self.d_out}"
        return None


class Coder(Shown, Parts):
    """z = rule((x - b_pre) W_enc + b_enc), y^ = z W_dec + b_dec (+ x W_skip); b_pre is b_dec or absent.

    Parameters
    ----------
    d_in, d_sae, k
        Width of a row, latents, codes kept a row (for ReLU, p-anneal, JumpReLU and gated, which choose for
        themselves, ``k`` is only the number that baselines are compared at).
    kind
        Name of the sparsity rule, one of ``sae.rules.RULES``.
    seed
        Of the initial dictionary: random unit directions; the encoder starts as their transpose.
    wiring
        ``"sae"``, ``"transcoder"``, ``"skip"``, ``"crosscoder"`` or ``"cross-layer"``; see ``wiring.py``.
    d_out
        Width of what is written; the width read unless a transcoder writes elsewhere.
    n_sites
        Sites that lie side by side in a row (crosscoder, cross-layer transcoder).
    centred
        Whether b_dec is taken off before encoding; by default where the same is read and written.

    Attributes
    ----------
    W_enc, W_dec
        [d_in, d_sae] and [d_sae, d_out]. A tied kind (pursuit, codebook) has no encoder.
    b_enc, b_dec
        [d_sae] and [d_out].
    threshold, r_mag, b_mag
        [d_sae], or a single number for the threshold of BatchTopK; only in kinds that have them.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    W_skip: nn.Parameter
    b_enc: nn.Parameter
    b_dec: nn.Parameter
    threshold: Tensor
    r_mag: nn.Parameter
    b_mag: nn.Parameter

    def __init__(  # noqa: PLR0913 - what a coder is
        self,
        d_in: int,
        d_sae: int,
        k: int,
        *,
        kind: str = "topk",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        wiring: str = "sae",
        d_out: int | None = None,
        n_sites: int = 1,
        centred: bool | None = None,
        bandwidth: float = 0.001,
    ) -> None:
        super().__init__()
        if kind not in RULES:
            raise InputError(
                f"kind {kind!r} is not known here; it is one of {sorted(RULES)}{nearest(kind, RULES)}"
            )
        if wiring not in WIRINGS:
            raise InputError(f"wiring {wiring!r} is not known; it is one of {list(WIRINGS)}")
        sizes = _Sizes(d_in=d_in, d_sae=d_sae, k=k, d_out=d_in if d_out is None else d_out, n_sites=n_sites)
        if (problem := sizes.problem()) is not None:
            raise InputError(problem)
        same = wiring in ("sae", "crosscoder")
        if same and sizes.d_out != d_in:
            raise InputError(f"a {wiring} writes what it reads: d_out = {d_out} is not d_in = {d_in}")
        rule = RULES[kind]
        if rule.tied and wiring != "sae":
            raise InputError(f"kind {kind!r} finds codes with its dictionary, so it cannot be a {wiring}")
        self.d_in, self.d_sae, self.k, self.d_out, self.n_sites = d_in, d_sae, k, sizes.d_out, n_sites
        self.kind, self.wiring, self.bandwidth = kind, wiring, bandwidth
        self.centred = same if centred is None else centred
        self._make(rule, torch.Generator().manual_seed(seed), dtype)

    def _make(self, rule: Rule, generator: torch.Generator, dtype: torch.dtype) -> None:
        read, written = reach(self.wiring, self.n_sites, self.d_in, self.d_sae, self.d_out)

        def directions(width: int, mask: Tensor | None) -> Tensor:
            drawn = torch.randn(self.d_sae, width, dtype=torch.float64, generator=generator)
            drawn = drawn if mask is None else drawn * mask
            return (drawn / drawn.norm(dim=1, keepdim=True)).to(dtype)

        start = directions(self.d_out, written)
        self.W_dec = nn.Parameter(start)
        if not rule.tied:
            same = self.wiring in ("sae", "crosscoder")
            encoder = start.clone() if same else directions(self.d_in, None if read is None else read.T)
            # [d_in, d_sae] for the reader, a latent's weights side by side in memory: its gradient is a row
            self.W_enc = nn.Parameter(encoder.T)
            self.b_enc = nn.Parameter(torch.zeros(self.d_sae, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(self.d_out, dtype=dtype))
        if self.wiring == "skip":
            self.W_skip = nn.Parameter(torch.zeros(self.d_in, self.d_out, dtype=dtype))
        for name in rule.extra:
            self.register_parameter(name, nn.Parameter(torch.zeros(self.d_sae, dtype=dtype)))
        if rule.pooled:
            self.register_buffer("threshold", torch.zeros((), dtype=dtype))

    @property
    def rule(self) -> Rule:
        """How this kind gets codes from pre-activations."""
        return RULES[self.kind]

    def shifted(self, x: Tensor) -> Tensor:
        """Rows as the encoder reads them."""
        return x - self.b_dec if self.centred else x

    def pre(self, x: Float[Tensor, "sample d_in"]) -> Float[Tensor, "sample latent"]:
        """Pre-activations: one dense product."""
        return torch.addmm(self.b_enc, self.shifted(x), self.W_enc)

    def base(self, x: Float[Tensor, "sample d_in"]) -> Tensor:
        """What is written whatever the codes: b_dec, and the skip."""
        return self.b_dec + x @ self.W_skip if self.wiring == "skip" else self.b_dec

    def _facts(self) -> dict[str, Any]:
        norms = self.W_dec.detach().norm(dim=1)
        widths = f"{self.d_in} -> {self.d_sae} -> {self.d_out}"
        said = {"kind": self.kind, "wiring": self.wiring, "widths": widths, "k": self.k}
        said |= {"dtype": str(self.W_dec.dtype).removeprefix("torch."), "device": str(self.W_dec.device)}
        return said | {"norms of directions": f"{float(norms.min()):.3g} to {float(norms.max()):.3g}"}

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """Codes of every row, as at inference.

        Raises
        ------
        InputError
            The rows are not ``d_in`` wide.
        """
        if x.shape[-1] != self.d_in:
            raise InputError(
                f"this coder reads rows of width {self.d_in}; got {list(x.shape)} (another site?)"
            )
        rows = x.reshape(-1, self.d_in).to(self.W_dec.dtype)
        if self.rule.tied:
            chosen, weights = pursue(self.shifted(rows), self.W_dec, self.k, whole=self.kind == "codebook")
            codes = weights.new_zeros(len(rows), self.d_sae).scatter_add(1, chosen, weights)
        else:
            codes = self.rule.codes(self, self.pre(rows))
        return codes.reshape(*x.shape[:-1], self.d_sae)

    def decode(
        self, codes: Float[Tensor, "*batch latent"], x: Float[Tensor, "*batch d_in"] | None = None
    ) -> Float[Tensor, "*batch d_out"]:
        """The rows that codes stand for; a skip transcoder also needs the rows ``x`` that were read.

        Raises
        ------
        InputError
            Codes of another width, or a skip transcoder without ``x``.
        """
        if codes.shape[-1] != self.d_sae:
            raise InputError(f"this coder has {self.d_sae} latents; got codes of shape {list(codes.shape)}")
        written = codes @ self.W_dec + self.b_dec
        if self.wiring != "skip":
            return written
        if x is None:
            raise InputError(
                "a skip transcoder writes codes and a linear map of what it read: decode(codes, x)"
            )
        return written + x.to(self.W_dec.dtype) @ self.W_skip

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """What the coder makes of every row."""
        return self.decode(self.encode(x), x)

    @torch.no_grad()
    def normalise_(self) -> Coder:
        """Bring every dictionary direction to unit norm, in place; exact where each code has its own threshold.

        The codes of the TopK family are multiplied by the old norms, as those of the others, so that with unequal
        norms another latent may win there.
        """
        norm = self.W_dec.norm(dim=1)
        self.W_dec.div_(torch.where(norm > 0, norm, 1.0)[:, None])
        return self._codes_times(torch.where(norm > 0, norm, 1.0))

    def _codes_times(self, factor: Tensor) -> Coder:
        """Multiply codes by a positive factor a latent, the dictionary left as it is."""
        if not self.rule.tied:
            self.W_enc.mul_(factor)
            self.b_enc.mul_(factor)
        for name in ("threshold", "b_mag"):
            if hasattr(self, name) and getattr(self, name).ndim:
                getattr(self, name).mul_(factor)
        return self

    def alike(self, **changes: Any) -> Coder:
        """A new coder of the same make, with ``changes``; its weights are not these."""
        make: dict[str, Any] = {"d_in": self.d_in, "d_sae": self.d_sae, "k": self.k} | self.make() | changes
        other = Coder(make.pop("d_in"), make.pop("d_sae"), make.pop("k"), dtype=self.W_dec.dtype, **make)
        return other.to(self.W_dec.device)

    def make(self) -> dict[str, Any]:
        """What besides the sizes d_in, d_sae and k tells how the tensors are used."""
        names = ("kind", "wiring", "d_out", "n_sites", "centred", "bandwidth")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def rescaled(
        self, scale: float | Float[Tensor, "d_in"], out: float | Float[Tensor, "d_out"] | None = None
    ) -> Coder:
        """The coder that does to ``scale * x`` what this one does to ``x``, and writes ``out`` times as much.

        With one number for both, codes are multiplied by it and directions stay as they are; with numbers that
        differ between coordinates, codes stay and directions take them up. Exact in either case: one positive factor
        on all pre-activations changes no winner.
        """
        out = scale if out is None else out
        other = self.alike()
        other.load_state_dict(self.state_dict())
        one = isinstance(scale, float | int) and isinstance(out, float | int)
        code = float(scale) if one and self.kind != "codebook" else 1.0
        if not self.rule.tied:
            other.W_enc.copy_(
                self.W_enc * (code / torch.as_tensor(scale, dtype=self.W_enc.dtype)).reshape(-1, 1)
            )
            other.b_enc.mul_(code)
        other.W_dec.mul_(torch.as_tensor(out, dtype=self.W_dec.dtype) / code)
        other.b_dec.mul_(torch.as_tensor(out, dtype=self.W_dec.dtype))
        for name in ("threshold", "b_mag"):
            if hasattr(other, name):
                getattr(other, name).mul_(code)
        if self.wiring == "skip":
            ratio = torch.as_tensor(out) / torch.as_tensor(scale).reshape(-1, 1)
            other.W_skip.mul_(ratio.to(self.W_dec.dtype))
        return other

    @torch.no_grad()
    def move_(self, read: Float[Tensor, "d_in"], written: Float[Tensor, "d_out"]) -> Coder:
        """Make the coder do about the point ``read`` (and write about ``written``) what it did about 0, in place.

        Where b_dec is taken off before encoding the two points are the same.
        """
        self.b_dec.add_(written)
        if not self.centred:
            self.b_enc.sub_(read @ self.W_enc)
        if self.wiring == "skip":
            self.b_dec.sub_(read @ self.W_skip)
        return self

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        wiring = "" if self.wiring == "sae" else f" {self.wiring}"
        return f"{self.kind}{wiring}, d_in={self.d_in}, d_sae={self.d_sae}, k={self.k}"
