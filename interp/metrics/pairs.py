"""Pairs: CKA of many pairs of sites at once, from rows or from a Moments, with jackknife errors.

What ``similarity.py`` asks for a whole matrix of; each side's own sums are made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.hsic import FeatureSide, GramSide, feature_sides, gram_sides, hsic, hsic_of_sums
from interp.metrics.rows import Groups, Rows, checked, constant, jackknife, jackknife_blocks
from interp.moments.accumulator import Accumulator, need_pair
from interp.moments.sums import Sums, hsic_blocks

__all__ = ["CONSTANT", "TOO_FEW", "Table", "moments_table", "ratio_of", "rows_table"]

CONSTANT = "a representation is constant over the samples: CKA is 0/0"
TOO_FEW = "the debiased self-similarity is not positive at this n: too few samples for so many dimensions"
_GRAM_BYTES = 1 << 30
"""Memory that Grams of all sites may take together."""

Side = FeatureSide | GramSide

Table = tuple[
    np.ndarray, np.ndarray | None, np.ndarray, int, tuple[int, ...], dict[tuple[str, str], str], str
]
"""value, stderr, chance [first, second]; n; widths; why a value is missing; the convention."""


def rows_table(
    first: Mapping[str, Rows],
    second: Mapping[str, Rows],
    unbiased: bool,
    method: str,
    groups: Groups,
    n_blocks: int,
) -> Table:
    own = first is second
    given = [*first.items(), *(() if own else second.items())]
    counts, widths = _sizes(given)
    n = next(iter(counts.values()))
    narrow = all(torch.as_tensor(x).dtype.itemsize <= 4 for _, x in given)
    dtype = torch.float32 if narrow else torch.float64
    a, b = (
        (range(len(first)), range(len(first))) if own else (range(len(first)), range(len(first), len(given)))
    )
    if method == "blocks":
        if not unbiased:
            raise InputError(
                "the block estimate is of the debiased form; unbiased=False goes with method='exact'"
            )
        table, n_groups, flat = _block_values(given, n, dtype, groups)
        value, stderr = _block_ratio(table, a, b)
        convention = _blocks_convention(n_groups, dtype)
    elif method == "exact":
        # small Grams are cheap enough for float64 throughout
        dtype = torch.float64 if n <= min(2048, max(widths)) else dtype
        units, flat = _units(given, dtype)
        blocks = jackknife_blocks(n, n_blocks, groups)
        value, stderr = _exact(units, blocks, a, b, unbiased=unbiased, dtype=dtype)
        convention = _exact_convention(unbiased, len(blocks), dtype)
    else:
        raise InputError(f"method={method!r}; it is 'exact' or 'blocks'")
    chance = np.array([[0.0 if unbiased else _chance(n, widths[i], widths[j]) for j in b] for i in a])
    names = [name for name, _ in given]
    return (value, stderr, chance, n, tuple(widths), _explain(value, stderr, names, flat, a, b), convention)


def _sizes(given: Sequence[tuple[str, Rows]]) -> tuple[dict[str, int], list[int]]:
    """Rows of each site, which must agree, and widths."""
    counts = {name: len(x) for name, x in given}
    if len(set(counts.values())) > 1:
        raise InputError(f"sites hold different numbers of samples: {counts}")
    return counts, [int(np.shape(x)[-1]) for _, x in given]


def _units(given: Sequence[tuple[str, Rows]], dtype: torch.dtype) -> tuple[list[Tensor], list[bool]]:
    """Centred rows at root-mean-square length 1, made in float64 one site at a time; and which sites are constant."""
    units, flat = [], []
    for name, raw in given:
        rows = checked(raw, name)
        rows = rows - rows.mean(0, keepdim=True)
        flat.append(constant(rows, raw))
        scale = 1.0 if flat[-1] else rows.square().sum(1).mean().sqrt()
        units.append((rows / scale).to(dtype))
    return units, flat


def _in_gram_space(n: int, widths: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether n x n Grams cost less than d x d products: with many sites each Gram serves many pairs."""
    reach = (6 if len(widths) > 7 else 2 if len(widths) > 3 else 1) * max(widths)
    return n <= reach and dtype.itemsize * len(widths) * n * n <= _GRAM_BYTES


def _gram(x: Tensor, tile: int = 1024) -> Tensor:
    """x x', each tile below the diagonal copied from above it."""
    n = len(x)
    if n <= 2 * tile:
        return x @ x.T
    out = x.new_empty(n, n)
    for i in range(0, n, tile):
        strip = x[i : i + tile] @ x[i:].T
        out[i : i + tile, i:] = strip
        out[i:, i : i + tile] = strip.T
    return out


def _explain(
    value: np.ndarray,
    stderr: np.ndarray | None,
    names: Sequence[str],
    flat: Sequence[bool],
    a: range,
    b: range,
) -> dict[tuple[str, str], str]:
    """Why each missing value is missing; constant sites are blanked."""
    why = {}
    for row, i in enumerate(a):
        for column, j in enumerate(b):
            if flat[i] or flat[j]:
                value[row, column] = np.nan
                if stderr is not None:
                    stderr[row, column] = np.nan
                why[(names[i] if flat[i] else names[j], "others")] = CONSTANT
            elif np.isnan(value[row, column]):
                why[names[i], names[j]] = TOO_FEW
    return why


def _exact(
    units: list[Tensor], blocks: list[Tensor], a: range, b: range, *, unbiased: bool, dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray | None]:
    """CKA and jackknife error of every pair, in the cheaper space."""
    sides: Sequence[Side]
    if _in_gram_space(len(units[0]), [x.shape[1] for x in units], dtype):
        sides = gram_sides([_gram(x) for x in units], blocks, unbiased=unbiased)
    else:
        sides = feature_sides(units, blocks, dtype=dtype)
    own = [hsic(side, side, unbiased=unbiased) for side in sides]
    value = np.full((len(a), len(b)), np.nan)
    stderr = np.full(value.shape, np.nan) if blocks else None
    for row, i in enumerate(a):
        for column, j in enumerate(b):
            if a == b and column < row:
                value[row, column] = value[column, row]
                if stderr is not None:
                    stderr[row, column] = stderr[column, row]
                continue
            cross = own[i] if i == j else hsic(sides[i], sides[j], unbiased=unbiased)
            ratio = ratio_of(cross, own[i], own[j])
            value[row, column] = float(ratio[0])
            if stderr is not None and len(ratio) > 1:
                stderr[row, column] = float(jackknife(ratio[1:]))
    return value, stderr


def ratio_of(xy: Tensor, xx: Tensor, yy: Tensor) -> Float64[Tensor, "..."]:
    """CKA from three HSICs; nan where a self-similarity is not positive."""
    good = (xx > 0) & (yy > 0)
    return torch.where(good, xy / torch.where(good, xx * yy, 1.0).sqrt(), torch.nan)


def _block_values(
    given: Sequence[tuple[str, Rows]], n: int, dtype: torch.dtype, groups: Groups, *, block: int = 128
) -> tuple[Tensor, int, list[bool]]:
    """Summed HSIC_1 [group, site, site]: blocks of rows dealt to up to 32 jackknife groups; and constant sites.

    Blocks are centred one by one, so no float64 copy of the rows is made.
    """
    if n < 4:
        raise InputError(f"{n} samples; HSIC_1 needs at least 4")
    sites, scales, flat = [], [], []
    for name, raw in given:
        rows = torch.as_tensor(raw).detach()
        if rows.ndim != 2 or not rows.is_floating_point() or not bool(torch.isfinite(rows.sum())):
            rows = checked(raw, name)  # says what is wrong, or brings whole numbers to floats
        step = max(1, n // 1024)
        away = rows[::step].to(dtype) - rows[0].to(dtype)
        size = float(away.square().sum(1).mean().sqrt())
        flat.append(size == 0 and bool((rows == rows[0]).all()))
        sites.append(rows)
        scales.append(1 / size if size else 1.0)
    size = min(block, n) if n >= 2 * block or n < 16 else n // max(2, min(16, n // 8))
    order = None if groups is None else torch.as_tensor(groups).flatten().argsort(stable=True)
    hsics = []
    for start in range(0, n, size):
        if min(size, n - start) < 4:
            continue
        where = slice(start, start + size) if order is None else order[start : start + size]
        cut = [(x[where].to(dtype) * scale)[None] for x, scale in zip(sites, scales, strict=True)]
        hsics.append(hsic_blocks(cut)[0])
    bins = min(32, len(hsics))
    return torch.stack([torch.stack(hsics[g::bins]).sum(0) for g in range(bins)]), bins, flat


def _block_ratio(table: Tensor, a: Sequence[int], b: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    def ratio(h: Tensor) -> Tensor:
        own = h.diagonal(dim1=-2, dim2=-1)
        return ratio_of(h[..., a, :][..., b], own[..., a][..., :, None], own[..., b][..., None, :])

    total = table.sum(0)
    filled = table[table.diagonal(dim1=1, dim2=2).abs().sum(1) > 0]
    value = ratio(total).cpu().numpy()
    if len(filled) < 2:
        return value, None
    left = ratio(total - filled)
    return value, jackknife(left).cpu().numpy()


def moments_table(
    moments: Accumulator, first: Sequence[str], second: Sequence[str], unbiased: bool, method: str
) -> Table:
    config = moments.config
    sums = moments.sums
    n = sums.n
    if n < 4:
        raise InputError(f"these moments hold {n} rows; at least 4 are needed")
    a, b = ([config.sites.index(s) for s in names] for names in (first, second))
    dtype = config.dtype
    if method == "blocks":
        if not config.block or not unbiased:
            raise InputError("the block estimate needs Moments with block > 0, and is of the debiased form")
        value, stderr = _block_ratio(sums[("block_hsic",)], a, b)
        convention = _blocks_convention(min(32, moments._n_blocks), dtype)
    else:
        subsets = [sums, *moments.left_out()]
        value, stderr = _moments_exact(subsets, first, second, moments, unbiased)
        convention = _exact_convention(unbiased, len(subsets) - 1, dtype)
        if stderr is None and config.block and unbiased:
            _, stderr = _block_ratio(sums[("block_hsic",)], a, b)
            convention = (
                f"{_exact_convention(unbiased, 0, dtype)}; standard error: that of the block estimate"
            )
    flat = [_constant_site(moments, sums, site) for site in config.sites]
    why: dict[tuple[str, str], str] = {}
    for row, i in enumerate(a):
        for column, j in enumerate(b):
            if flat[i] or flat[j]:
                value[row, column] = np.nan
                why[config.sites[i if flat[i] else j], "others"] = CONSTANT
            elif np.isnan(value[row, column]):
                why[config.sites[i], config.sites[j]] = TOO_FEW
    widths = config.widths
    chance = np.array([[0.0 if unbiased else _chance(n, widths[i], widths[j]) for j in b] for i in a])
    return value, stderr, chance, n, tuple(widths[i] for i in sorted({*a, *b})), why, convention


def _constant_site(moments: Accumulator, sums: Sums, site: str) -> bool:
    size = float(moments.shift[site].square().sum()) * sums.n
    return float(sums["norm", site]) <= 1e-24 * max(1e-300, size)


def _moments_exact(
    subsets: Sequence[Sums], first: Sequence[str], second: Sequence[str], moments: Accumulator, unbiased: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    for s in first:
        for t in second:
            need_pair(moments[s], moments[t])

    def of(s: str, t: str) -> Tensor:
        return torch.stack([hsic_of_sums(sums, s, t, unbiased=unbiased) for sums in subsets])

    own = {s: of(s, s) for s in {*first, *second}}
    cross: dict[frozenset[str], Tensor] = {}
    value, stderr = np.full((2, len(first), len(second)), np.nan)
    for row, s in enumerate(first):
        for column, t in enumerate(second):
            key = frozenset((s, t))
            cross[key] = own[s] if s == t else cross[key] if key in cross else of(s, t)
            ratio = ratio_of(cross[key], own[s], own[t]).cpu()
            value[row, column] = float(ratio[0])
            if len(ratio) > 1:
                stderr[row, column] = float(jackknife(ratio[1:]))
    return value, stderr if len(subsets) > 1 else None


def _exact_convention(unbiased: bool, n_blocks: int, dtype: torch.dtype) -> str:
    form = (
        "debiased HSIC_1 (Song et al. 2012), may be negative"
        if unbiased
        else "biased, centred (Kornblith et al. 2019)"
    )
    error = f"; standard error: jackknife over {n_blocks} blocks of rows" if n_blocks else ""
    return f"linear kernel, {form}; {_products(dtype)}{error}"


def _blocks_convention(n_groups: int, dtype: torch.dtype) -> str:
    return (
        f"linear kernel, ratio of HSIC_1 summed over blocks (Nguyen et al. 2021), may be negative; {_products(dtype)};"
        f" standard error: jackknife over {n_groups} groups of blocks"
    )


def _products(dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} products of centred rows, float64 sums"


def _chance(n: int, d_x: int, d_y: int) -> float:
    """Biased CKA expected of unrelated isotropic Gaussian rows, to first order: for d_x = d_y = d it is d / (n + d)."""
    return float(np.sqrt(d_x / (n + d_x) * d_y / (n + d_y)))
