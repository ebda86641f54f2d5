"""Sums: what a pass over rows leaves behind, in float64; they add, subtract, and move to another origin.

Rows are shifted by a constant (about their mean) before they are multiplied: residual streams carry a common mean
hundreds of times their spread. With x = row - shift and k = |x|^2 the table holds, by site a and pair (a, b):
sum x_a ("first"), sum k_a ("norm"), sum x_a x_b' ("second"), sum x_a k_b ("by_norm"), sum k_a k_b ("norms"); of the
rows scaled to length 1 their sum and second moment ("twin_first", "twin_second"); and by class counts, sums, norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from interp.moments.config import GROUPS, MomentsConfig
from interp.showing import Shown

__all__ = ["Sums", "TotalSums", "gather", "gram_product", "hsic_blocks", "self_product"]

Key = tuple[str, ...]


class Sums(Shown):
    """A flat table of float64 sums; see the module for its keys. ``("n",)`` counts rows."""

    __slots__ = ("_table",)

    def __init__(self, table: Mapping[Key, Tensor]) -> None:
        self._table: dict[Key, Tensor] = dict(table)

    def _facts(self) -> dict[str, Any]:
        return {"n": self.n, "sums": len(self._table)}

    @property
    def table(self) -> dict[Key, Tensor]:
        """Every sum."""
        return self._table

    @property
    def n(self) -> int:
        """Rows summed."""
        return int(self[("n",)])

    def __getitem__(self, key: Key) -> Tensor:
        return self._table[key]

    def __contains__(self, key: object) -> bool:
        return key in self._table

    def add_(self, other: Sums) -> None:
        """Add the other's rows, in place. Same origin required."""
        for key, value in other.table.items():
            self.table[key].add_(value)

    def second(self, a: str, b: str) -> Float64[Tensor, "d_a d_b"]:
        """sum x_a x_b', whichever order it is kept in."""
        return self["second", a, b] if ("second", a, b) in self else self["second", b, a].T

    def norms(self, a: str, b: str) -> Float64[Tensor, ""]:
        """sum k_a k_b."""
        return self["norms", a, b] if ("norms", a, b) in self else self["norms", b, a]

    def moved(self, by: Mapping[str, Tensor], pairs: tuple[tuple[str, str], ...]) -> Sums:
        """The sums of x + by[site] instead of x: the origin moved, by algebra alone."""
        t, n, out = self.table, self.table[("n",)], dict(self.table)
        for a, s in by.items():
            out["first", a] = t["first", a] + n * s
            out["norm", a] = t["norm", a] + 2 * s @ t["first", a] + n * s.square().sum()
            if ("class_first", a) in t:
                counts, first = t[("class_n",)], t["class_first", a]
                out["class_first", a] = first + counts[:, None] * s
                out["class_norm", a] = t["class_norm", a] + 2 * first @ s + counts * s.square().sum()
        for a, b in pairs:
            sa, sb = by[a], by[b]
            fa, fb, c = t["first", a], t["first", b], t["second", a, b]
            aa, bb = sa.square().sum(), sb.square().sum()
            out["second", a, b] = c + torch.outer(fa, sb) + torch.outer(sa, fb) + n * torch.outer(sa, sb)
            for p, q, sp, sq, qq, cpq in ((a, b, sa, sb, bb, c), (b, a, sb, sa, aa, c.T)):
                whole = t["norm", q] + 2 * sq @ t["first", q] + n * qq
                out["by_norm", p, q] = t["by_norm", p, q] + 2 * cpq @ sq + qq * t["first", p] + sp * whole
            out["norms", a, b] = (
                t["norms", a, b] + 2 * sb @ t["by_norm", b, a] + bb * t["norm", a] + 2 * sa @ t["by_norm", a, b]
                + 4 * sa @ c @ sb + 2 * bb * (sa @ fa) + aa * (t["norm", b] + 2 * sb @ fb + n * bb)
            )  # fmt: skip
        return Sums(out)


class TotalSums(Sums):
    """Sums over the rows of several, of one origin; each is added up when it is asked for, and not kept."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Sums]) -> None:
        super().__init__(parts[0].table)
        self.parts = tuple(parts)

    @property
    def table(self) -> dict[Key, Tensor]:
        """Every sum, added up."""
        return {key: self[key] for key in self._table}

    def __getitem__(self, key: Key) -> Tensor:
        total = self._table[key]
        for i, part in enumerate(self.parts[1:]):
            total = total.add_(part[key]) if i else total + part[key]
        return total


def empty(config: MomentsConfig, device: torch.device) -> Sums:
    """Sums over no rows."""

    def zero(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    width = dict(zip(config.sites, config.widths, strict=True))
    table: dict[Key, Tensor] = {("n",): zero()}
    for a, d in width.items():
        table |= {("first", a): zero(d), ("norm", a): zero()}
        if config.twin:
            table |= {("twin_first", a): zero(d), ("twin_second", a): zero(d, d), ("twin_n", a): zero()}
        if config.n_classes:
            table |= {
                ("class_first", a): zero(config.n_classes, d),
                ("class_norm", a): zero(config.n_classes),
            }
    for a, b in config.pairs:
        table |= {("second", a, b): zero(width[a], width[b]), ("norms", a, b): zero()}
        table |= {("by_norm", a, b): zero(width[a]), ("by_norm", b, a): zero(width[b])}
    if config.n_classes:
        table[("class_n",)] = zero(config.n_classes)
    if config.block:
        n_sites = len(config.sites)
        table |= {("block_hsic",): zero(GROUPS, n_sites, n_sites), ("block_weight",): zero(GROUPS)}
    return Sums(table)


def count(into: Sums, n: int, config: MomentsConfig, *, labels: Int64[Tensor, "sample"] | None) -> None:
    """Count ``n`` rows, and by class those that have one."""
    into.table[("n",)] += n
    if labels is not None and config.n_classes:
        known = torch.bincount(labels[labels >= 0], minlength=config.n_classes)
        into.table[("class_n",)] += known.double()


def gather(
    into: Sums,
    rows: Mapping[str, Shaped[Tensor, "sample _"]],
    config: MomentsConfig,
    *,
    labels: Int64[Tensor, "sample"] | None = None,
    n_blocks_before: int = 0,
) -> None:
    """Add shifted rows (of ``config.dtype``) of some sites. Cost: n d_a d_b products a pair, half as many for a = b."""
    t = into.table
    # within a chunk float32 rows are summed as they are multiplied, in float32; over chunks in float64
    lengths = {a: torch.linalg.vecdot(x, x).double() for a, x in rows.items()}
    names = list(rows)
    k = torch.stack([lengths[a] for a in names], 1)
    narrow = k.to(config.dtype)
    column = {a: i for i, a in enumerate(names)}
    norms = k.T @ k
    for a, x in rows.items():
        t["first", a] += x.sum(0)
        t["norm", a] += lengths[a].sum()
    alone = len(config.cross) == 0  # then only a site's own norms are needed
    by_norm = {
        a: (x.T @ (narrow[:, column[a] : column[a] + 1] if alone else narrow)).double()
        for a, x in rows.items()
    }
    for a, b in config.pairs:
        if a not in rows or b not in rows:
            continue
        t["second", a, b] += self_product(rows[a]) if a == b else rows[a].T @ rows[b]
        t["norms", a, b] += norms[column[a], column[b]]
        t["by_norm", a, b] += by_norm[a][:, 0 if alone else column[b]]
        if a != b:
            t["by_norm", b, a] += by_norm[b][:, column[a]]
    if labels is not None and config.n_classes:
        known = labels >= 0
        where = labels[known]
        for a, x in rows.items():
            t["class_first", a].index_add_(0, where, x[known].double())
            t["class_norm", a].index_add_(0, where, lengths[a][known])
    if config.block:
        _gather_blocks(t, rows, config, n_blocks_before)


def gather_twin(into: Sums, site: str, x: Tensor, *, room: Tensor) -> None:
    """Add the rows (not shifted) scaled to length 1, made in ``room``; a row of length 0 has no direction and is left
    out."""
    t = into.table
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    z = torch.mul(x, torch.where(length > 0, 1 / length, 0), out=room)
    t["twin_n", site] += (length > 0).sum()
    t["twin_first", site] += z.sum(0)
    t["twin_second", site] += self_product(z)


def self_product(x: Tensor) -> Tensor:
    """x'x; on the CPU by numpy, which multiplies a matrix with itself as a symmetric product, at half the cost."""
    if x.device.type != "cpu":
        return x.T @ x
    rows = x.numpy()
    return torch.from_numpy(rows.T @ rows)


def _gather_blocks(
    t: dict[Key, Tensor], rows: Mapping[str, Tensor], config: MomentsConfig, before: int
) -> None:
    n = len(next(iter(rows.values())))
    whole = n // config.block
    pieces = [(0, whole, config.block)] if whole else []
    if n - whole * config.block >= 4:  # a shorter last block counts by its n (n - 3), below 4 rows not at all
        pieces.append((whole * config.block, 1, n - whole * config.block))
    for start, count, size in pieces:
        cut = [x[start : start + count * size].unflatten(0, (count, size)) for x in rows.values()]
        hsic = hsic_blocks(cut)
        group = torch.arange(before, before + count, device=hsic.device) % GROUPS
        t[("block_hsic",)].index_add_(0, group, hsic)
        t[("block_weight",)].index_add_(
            0, group, torch.full_like(group, size * (size - 3), dtype=torch.float64)
        )
        before += count


def hsic_blocks(sites: list[Tensor]) -> Float64[Tensor, "block site site"]:
    """n (n - 3) HSIC_1 of every pair of sites in every block; each of ``sites`` is [block, sample, d].

    Song et al. 2012, eq. 5, in Gram space: n^2 d products a site and n^2 a pair. Blocks are centred first: HSIC_1
    does not change, and float32 keeps its digits.
    """
    n = sites[0].shape[1]
    grams = []
    for x in sites:
        x = x - x.mean(1, keepdim=True)
        gram = x @ x.mT
        gram.diagonal(dim1=1, dim2=2).zero_()
        grams.append(gram)
    stacked = torch.stack(grams, 1)
    return gram_product(stacked.flatten(2), stacked.sum(3).double(), n)


def gram_product(flat: Tensor, sums: Tensor, n: int) -> Float64[Tensor, "block site site"]:
    """n (n - 3) HSIC_1 from Grams without diagonals [block, site, n n] and their row sums [block, site, n]."""
    trace = (flat @ flat.mT).double()
    ones = sums.sum(2)
    return trace + ones[:, :, None] * ones[:, None] / ((n - 1) * (n - 2)) - 2 / (n - 2) * (sums @ sums.mT)
