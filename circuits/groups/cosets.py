"""The other reading: neurons that are constant on the cosets of a subgroup.

A neuron's response to its left operand may be a function of the right coset Hg, its response to the right operand of
the left coset gH. Every function is constant on the cosets of the trivial subgroup, and the more cosets, the more a
random function explains; the share between cosets is therefore corrected for their number, and compared with the best
subgroup of a function whose elements were shuffled. Irreps and cosets are two descriptions of one network: both may
hold.

References
----------
Stander et al. 2024, "Grokking Group Multiplication with Cosets" (their ratio of variances favours large subgroups).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from interp.errors import InputError
from interp.showing import Shown
from interp.tables import tidy
from interp.toys import Group

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CosetReading", "coset_reading"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CosetReading(Shown):
    """For each column of a table, the largest subgroup on whose cosets it is constant."""

    subgroup: Int64[Tensor, " neuron"]
    """Its number among ``group.subgroups()``, -1 where none explains enough."""
    order: Int64[Tensor, " neuron"]
    """Its order, 0 where there is none."""
    explained: Float64[Tensor, " neuron"]
    """The corrected share of variance between its cosets; nan where there is none."""
    best: Float64[Tensor, " neuron"]
    """The largest corrected share that any proper, non-trivial subgroup (or the whole group's cosets) reaches."""
    null: Float64[Tensor, " neuron"]
    """The same for the column shuffled over elements, mean over draws."""

    def to_frame(self) -> pd.DataFrame:
        """A row per column of the table."""
        columns = {
            name: getattr(self, name).numpy() for name in ("subgroup", "order", "explained", "best", "null")
        }
        return tidy({"neuron": range(len(self.subgroup))}, **columns)


def coset_reading(
    group: Group,
    table: Float64[Tensor, "element neuron"],
    *,
    side: str,
    least: float = 0.95,
    draws: int = 5,
    seed: int = 0,
) -> CosetReading:
    """Which subgroups' cosets explain the columns of a table.

    Parameters
    ----------
    table
        A function on the group per column: a neuron's response to one operand.
    side
        ``"right"``: cosets Hg, for the left operand; ``"left"``: cosets gH, for the right operand.
    least
        Share of variance between cosets, corrected for their number k as 1 - (1 - s) (n - 1) / (n - k), that counts
        as constant.
    draws
        Shuffles behind the null.

    Raises
    ------
    InputError
        The side is neither.

    Notes
    -----
    Cost: one sum by coset for every subgroup and draw; a table of S5 (156 subgroups, 128 columns) takes 0.1 s.
    """
    if side not in ("left", "right"):
        raise InputError(f"side {side!r}; expected 'left' (cosets gH) or 'right' (cosets Hg)")
    subgroups = [(i, s) for i, s in enumerate(group.subgroups()) if 1 < s.order < group.order]
    n, width = table.shape
    values = table - table.mean(0)
    variance = values.square().sum(0)
    alive = variance > 1e-12 * variance.max().clip(min=1e-300)
    generator = torch.Generator().manual_seed(seed)
    versions = [values] + [
        values[torch.rand(n, width, generator=generator).argsort(0), torch.arange(width)]
        for _ in range(draws)
    ]
    stacked = torch.cat(versions, 1)
    total = variance.repeat(draws + 1).clip(min=1e-300)
    best = torch.full((stacked.shape[1],), -torch.inf, dtype=torch.float64)
    chosen = torch.full((width,), -1)
    order = torch.zeros(width, dtype=torch.int64)
    explained = torch.full((width,), torch.nan, dtype=torch.float64)
    for number, subgroup in subgroups:
        cosets = subgroup.right_cosets() if side == "right" else subgroup.left_cosets()
        sums = torch.zeros(subgroup.index, stacked.shape[1], dtype=torch.float64).index_add_(
            0, cosets, stacked
        )
        share = sums.square().sum(0) / subgroup.order / total
        corrected = 1 - (1 - share) * (n - 1) / (n - subgroup.index)
        best = torch.maximum(best, corrected)
        own = corrected[:width]
        # ascending order, so a later one is at least as large; of equal ones the better
        take = alive & (own >= least) & ((subgroup.order > order) | (own > explained))
        chosen[take], order[take], explained[take] = number, subgroup.order, own[take]
    dead = torch.full_like(explained, torch.nan)
    return CosetReading(
        subgroup=chosen,
        order=order,
        explained=explained,
        best=torch.where(alive, best[:width], dead),
        null=torch.where(alive, best[width:].view(draws, width).mean(0), dead) if draws else dead,
    )
