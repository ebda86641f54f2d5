"""Sequences: what a profile measures in the order of tokens, sequence by sequence as they stream by.

Curvature, token homogeneity and prompt entropy as ``geometry.py`` and ``entropies.py`` have them, batched, with what
chance gives beside each. Nothing is kept but a few numbers a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.metrics.declared import outcome
from interp.moments.sums import self_product
from interp.results import Result

__all__ = ["ORDERED", "SequenceValues", "along_sites", "by_length"]

ORDERED = ("curvature", "token homogeneity", "prompt entropy")
"""Degrees; cosine; nats."""


def by_length(acts: Tensor, mask: Tensor | None) -> list[Float[Tensor, "batch pos d"]]:
    """The real tokens of each sequence, sequences of one length together."""
    wide = acts if acts.dtype == torch.float64 else acts.float()
    if mask is None or bool(mask.all()):
        return [wide]
    mask = mask.to(acts.device)
    lengths = mask.sum(1)
    return [
        wide[lengths == n][mask[lengths == n]].unflatten(0, (-1, int(n))) for n in lengths.unique() if n > 0
    ]


class SequenceValues:
    """The values of one site's sequences."""

    def __init__(self, names: Sequence[str]) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in names}
        self._ceilings: list[float] = []
        self._total: Tensor | float = 0.0
        self._own = self._n = self._pairs = 0.0

    def add(self, paths: Float[Tensor, "batch pos d"]) -> None:
        """Take in sequences of one length.

        Products are of the activations' float type, sums and eigenvalues float64. A sequence too short for a quantity,
        or with a vector of length 0 where a direction is needed, has none.
        """
        n, d = paths.shape[1:]
        if n > 1 and {"token homogeneity", "prompt entropy"} & set(self.values):
            z = paths / torch.linalg.vector_norm(paths, dim=2, keepdim=True)  # nan where a token has length 0
            if "token homogeneity" in self.values:
                self._alike(z.sum(1).double(), n)
            if "prompt entropy" in self.values:
                side = torch.stack([self_product(each) for each in (z.mT if n <= d else z)]).double() / n
                eig = torch.linalg.eigvalsh(side.nan_to_num()).clamp_min(0)
                kept = self._keep("prompt entropy", torch.special.entr(eig).sum(1) + 0 * side.sum((1, 2)))
                self._ceilings += [float(np.log(min(n, d)))] * int(kept.sum())
        if n > 2 and "curvature" in self.values:
            self._keep("curvature", _angles(paths.diff(dim=1)).rad2deg().mean(1))

    def _keep(self, name: str, values: Tensor) -> Tensor:
        good = torch.isfinite(values)
        self.values[name] += values[good].tolist()
        return good

    def _alike(self, totals: Float64[Tensor, "batch d"], n: int) -> None:
        squares = totals.square().sum(1)
        good = self._keep("token homogeneity", (squares - n) / (n * (n - 1)))
        count = int(good.sum())
        self._total = self._total + totals[good].sum(0)
        self._own += float(squares[good].sum())
        self._n, self._pairs = self._n + n * count, self._pairs + n * n * count

    def chance(self, name: str) -> float:
        """Independent points turn by 120 degrees; tokens of different sequences; the most that entropy can be."""
        if name == "curvature":
            return 120.0
        if name == "prompt entropy":
            return float(np.mean(self._ceilings)) if self._ceilings else np.nan
        pairs = self._n**2 - self._pairs
        if not pairs:
            return np.nan
        return float((torch.as_tensor(self._total).square().sum() - self._own) / pairs)


_CHANCE = {
    "curvature": "independent points",
    "token homogeneity": "tokens of different sequences",
    "prompt entropy": "the maximum, log min(T, d)",
}


def along_sites(
    name: str, sites: Sequence[SequenceValues], *, d: int, ticks: tuple[tuple[str, ...], ...]
) -> Result:
    """One quantity along ``site``, its error over sequences."""
    each = [site.values[name] for site in sites]
    counts, chance = [len(v) for v in each], np.array([site.chance(name) for site in sites])
    value = np.array([np.mean(v) if v else np.nan for v in each])
    spread = np.array([np.std(v, ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.nan for v in each])
    return outcome(
        name, value, n=max(counts), d=d, axes=("site",), ticks=ticks,
        stderr=spread if np.isfinite(spread).any() else None,
        chance=chance if np.isfinite(chance).any() else None, no_stderr="one sequence: the error is over sequences",
        no_chance="one sequence: there is no other to compare with",
        convention=f"mean over sequences; chance: {_CHANCE[name]}",
        reason=None if min(counts) else "no sequence is long enough",
    )  # fmt: skip


def _angles(step: Float[Tensor, "batch step d"]) -> Float64[Tensor, "batch turn"]:
    """Between successive steps, in radians; where a cosine has lost its digits (near 0 and pi) from the half chords."""
    length = torch.linalg.vector_norm(step, dim=2)
    cosine = torch.linalg.vecdot(step[:, 1:], step[:, :-1]) / (length[:, 1:] * length[:, :-1])
    angle = cosine.double().arccos()
    row, at = torch.nonzero(~(cosine.abs() < 0.99), as_tuple=True)
    if len(row):
        u, v = (step[row, at + i] / length[row, at + i, None] for i in (1, 0))
        chords = [torch.linalg.vector_norm(u + sign * v, dim=1).double() for sign in (-1, 1)]
        angle[row, at] = 2 * torch.atan2(*chords)
    return angle
