"""Which irreps the logits are made of: cosines with character cubes, the variance explained, a null, and a rule.

The cube of an irrep is chi(w(a, b) c^-1) over all a, b, c. The cubes of different irreps are orthogonal, so the squared
cosines are shares of the logits' variance and their sum is what the algorithm explains; the rest is named.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality", section 4 (logit similarity).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from circuits.groups.tally import LogitTally
from interp.toys import Group

__all__ = ["RULE", "LogitIrreps", "logit_irreps"]

RULE = (
    "key: similarity above that of a lookup table (the same multiple of d / sqrt(e (|G| - 1)) for every irrep, as "
    "large as the least irrep allows) by {least:g} and by 4 standard deviations of shuffled wrong answers"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogitIrreps:
    """The logits as a sum over irreps."""

    similarity: Float64[Tensor, " irrep"]
    """Cosine of the centred logits with each cube; the trivial irrep's is nan (rows are centred)."""
    null: Float64[Tensor, " irrep"]
    """The cosine that a lookup table would have, at the level the least irrep allows."""
    null_sd: Float64[Tensor, " irrep"]
    """Its standard deviation when each row's wrong answers are shuffled."""
    key: Bool[Tensor, " irrep"]
    explained: float
    """Share of the logits' variance in the cubes."""
    symmetric: float
    """Share that depends on w(a, b) c^-1 alone, in the cubes or not."""

    @property
    def other_symmetric(self) -> float:
        """Share that depends on w(a, b) c^-1 but is no sum of characters."""
        return self.symmetric - self.explained

    @property
    def residual(self) -> float:
        """Share that depends on more than w(a, b) c^-1."""
        return 1 - self.symmetric


def logit_irreps(group: Group, tally: LogitTally, *, least: float = 0.05) -> LogitIrreps:
    """Similarities, null and key irreps from one tally. Cost: order^2.

    A table that has memorised its pairs, all or some of them, has similarities in the proportions d / sqrt(e): it
    prefers no irrep. What the irreps have in common is therefore put down to memory, and what an irrep has beyond
    that to the algorithm. Under the null the wrong answers of each row are exchangeable; the mean and standard
    deviation of the similarity over such shuffles are exact, no shuffle is drawn.
    """
    order = group.order
    every = torch.arange(order)
    # s[g]: centred logits summed over all (a, b, c) with w(a, b) c^-1 = g; then c = g^-1 w
    s = tally.by_answer[every, group.table[group.inverse]].sum(1)
    chi = group.characters()
    e = torch.tensor([irrep.endomorphism_dim for irrep in group.irreps()], dtype=torch.float64)
    d = torch.tensor([irrep.dim for irrep in group.irreps()], dtype=torch.float64)
    norm = tally.total**0.5 * order**1.5 * e.sqrt()
    silent = tally.total <= 1e-24 * order**3
    similarity = torch.zeros_like(e) if silent else chi @ s / norm
    lookup = d / (e * max(order - 1, 1)).sqrt()
    spread = (order * e - d.square() * order / max(order - 1, 1)).clip(min=0)  # of chi off the identity
    sd = (spread * max(tally.scatter, 0.0) / max(order - 2, 1)).sqrt() / norm.clip(min=1e-300)
    others = torch.tensor([irrep.label != "trivial" for irrep in group.irreps()])
    level = float((similarity / lookup)[others].min().clip(min=0)) if others.any() else 0.0
    null = level * lookup
    key = others & (similarity > null + least) & (similarity > null + 4 * sd)
    symmetric = 0.0 if silent else float(s.square().sum()) / order**2 / tally.total
    explained = float(similarity[others].square().sum())
    nan = torch.full_like(similarity, torch.nan)
    return LogitIrreps(
        similarity=torch.where(others, similarity, nan),
        null=torch.where(others, null, nan),
        null_sd=torch.where(others, sd, nan),
        key=key,
        explained=explained,
        symmetric=symmetric,
    )
