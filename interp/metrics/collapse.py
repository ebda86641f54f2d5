"""Collapse: how far the classes of a trained classifier have shrunk to points, and those points to a simplex.

Everything but NC4 comes from class counts, class sums and one scatter matrix: from rows, or from a Moments with labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import NO_PARTS, outcome
from interp.metrics.rows import Data, checked, clustered, jackknife
from interp.moments.accumulator import SiteMoments, scatter_of
from interp.moments.moments import Moments
from interp.moments.sums import Sums
from interp.results import Result

__all__ = ["class_distance_variance", "neural_collapse", "scatter_ratio"]

Labels = Int[Tensor, "sample"] | np.ndarray | None


def _moments(x: Data, labels: Labels, *, parts: int = 1) -> SiteMoments:
    """With classes; rows are dealt to ``parts`` at random, so that rows sorted by class leave every class its share."""
    if isinstance(x, SiteMoments):
        if not x.moments.config.n_classes:
            raise InputError(f"the moments of {x.site} hold no classes: accumulate with labels=")
        return x
    if labels is None:
        raise InputError("labels [sample] are needed with rows")
    rows, marks = checked(x), torch.as_tensor(labels)
    options: dict[str, Any] = {"products": "float64", "twin": False, "block": 0}
    if parts > 1 and len(rows) >= 4 * parts and marks.shape == rows.shape[:1]:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        rows, marks = rows[order], marks[order]
        options |= {"parts": parts, "chunk": -(-len(rows) // parts)}
    return Moments.of({"x": rows}, labels=marks, **options)["x"]


def _classes(
    sums: Sums, site: str
) -> tuple[Float64[Tensor, "class"], Float64[Tensor, "class d"], Float64[Tensor, "class"]]:
    """The counts, means and mean squared spreads of the classes that have rows."""
    counts = sums[("class_n",)]
    kept = counts > 0
    if int(kept.sum()) < 2:
        raise InputError("one class only: nothing to tell apart")
    first, norm, counts = sums["class_first", site][kept], sums["class_norm", site][kept], counts[kept]
    means = first / counts[:, None]
    return counts, means, norm / counts - means.square().sum(1)


def _all_labelled(site: SiteMoments, counts: Tensor) -> None:
    n = int(counts.sum())
    if n != site.n:
        raise InputError(f"{site.n - n} of {site.n} rows have no class: leave them out first")


def neural_collapse(
    x: Data,
    labels: Labels = None,
    *,
    weight: Float[Tensor, "class d"] | None = None,
    bias: Float[Tensor, "class"] | None = None,
    n_blocks: int = 8,
) -> Result:
    """NC1-4 of a representation with class labels; all are 0 at collapse.

    Parameters
    ----------
    x, labels
        [sample, d] and [sample]; or a site of a Moments that was given labels.
    weight, bias
        The classifier on top; without it NC3 and NC4 are nan and ``.reason`` says so. NC4 needs rows.
    n_blocks
        Random blocks of rows that the standard error leaves out (a Moments: its parts).

    Returns
    -------
    Result
        Along ``measure``: NC1 = tr(Sw Sb^+) / C; NC1 ratio = tr Sw / tr Sb; NC2 = |G / |G|_F - (I - 1/C) /
        sqrt(C - 1)|_F with G the Gram matrix of centred class means; NC2 norms, the coefficient of variation of their
        lengths; NC3 = |W / |W|_F - M / |M|_F|_F; NC4, the share of rows where the classifier and the nearest class
        mean differ. ``.chance``: labels permuted (NC4: 1 - 1 / C); of a Moments there is none.

    References
    ----------
    Papyan, Han & Donoho 2020.
    """
    site = _moments(x, labels, parts=n_blocks)
    sums, name = site.moments.sums, site.site
    counts, means, _ = _classes(sums, name)
    _all_labelled(site, counts)
    if weight is not None and weight.shape != means.shape:
        raise InputError(f"weight is {list(weight.shape)}; {list(means.shape)} was expected (a row a class)")
    values, reasons = _collapse(sums, name, weight), []
    left = [one for one in site.moments.left_out() if int((one[("class_n",)] > 0).sum()) == len(counts)]
    whole = len(left) == len(site.moments.left_out()) > 1
    errors = jackknife(torch.stack([_collapse(one, name, weight) for one in left])) if whole else None
    chance, differ = None, None
    if weight is None:
        reasons.append("NC3 and NC4 need the classifier's weight")
    elif isinstance(x, SiteMoments):
        reasons.append("NC4 needs the rows")
    if not isinstance(x, SiteMoments):
        mixed = torch.as_tensor(labels)[torch.randperm(site.n, generator=torch.Generator().manual_seed(1))]
        dealt = _moments(x, mixed)
        chance = np.append(_collapse(dealt.moments.sums, dealt.site, weight).numpy(), 1 - 1 / len(counts))
        if weight is not None:
            rows, origin = checked(x), site.moments.shift[name]
            said = rows @ weight.detach().double().T + (0.0 if bias is None else bias.detach().double())
            differ = (said.argmax(1) != torch.cdist(rows - origin, means).argmin(1)).double()
    last = [np.nan, np.nan] if differ is None else [float(differ.mean()), clustered(differ)]
    return outcome(
        "neural collapse", np.append(values.numpy(), last[0]), n=site.n, d=site.d, axes=("measure",),
        ticks=(_MEASURES,), stderr=None if errors is None else np.append(errors.numpy(), last[1]), chance=chance,
        reason="; ".join(reasons) or None, convention=f"{len(counts)} classes; scatter over n; 0 at collapse",
        no_stderr=NO_PARTS if isinstance(x, SiteMoments) else "too few rows to leave some of every class out",
        no_chance="moments hold no labels to permute",
    )  # fmt: skip


_MEASURES = ("NC1", "NC1 ratio", "NC2", "NC2 norms", "NC3", "NC4")


def _collapse(sums: Sums, site: str, weight: Tensor | None) -> Float64[Tensor, "5"]:
    """NC1, NC1 ratio, NC2, NC2 norms and NC3 (nan without weight)."""
    counts, means, _ = _classes(sums, site)
    n, c = float(counts.sum()), len(counts)
    m = means - (counts[:, None] * means).sum(0) / n
    sb = (m.T * counts) @ m / n
    sw = scatter_of(sums, site) / n - sb
    eig, vectors = torch.linalg.eigh(sb)
    top = eig > 1e-10 * eig[-1]
    inverse = vectors[:, top] / eig[top] @ vectors[:, top].T
    # the class means about their own mean, as the definition of NC2 has it
    balanced = means - means.mean(0)
    gram = balanced @ balanced.T
    simplex = (torch.eye(c, dtype=gram.dtype) - 1 / c) / (c - 1) ** 0.5
    lengths = balanced.norm(dim=1)
    third = torch.tensor(torch.nan, dtype=gram.dtype)
    if weight is not None:
        w = weight.detach().double()
        third = (w / w.norm() - balanced / balanced.norm()).norm()
    return torch.stack([
        (sw * inverse.T).sum() / c,
        sw.trace() / sb.trace(),
        (gram / gram.norm() - simplex).norm(),
        lengths.std(correction=0) / lengths.mean(),
        third,
    ])  # fmt: skip


def class_distance_variance(x: Data, labels: Labels = None, *, least: int = 2) -> Result:
    """CDNV: (var_i + var_j) / (2 |mu_i - mu_j|^2), averaged over pairs of classes; 0 at collapse.

    ``.stderr`` is over classes left out (jackknife). Works on classes held out from training too, where it bounds the
    few-shot error of the nearest class mean. Classes of fewer than ``least`` rows, whose variance is not known, are
    left out and counted in ``.provenance["left_out"]``; rows without a class (a negative label) do not count.
    ``.chance``: labels dealt at random, about n_c / 2 for classes of n_c rows.

    References
    ----------
    Galanti, Gyorgy & Hutter 2022, eq. 3.
    """
    site = _moments(x, labels)
    counts, means, spread = _classes(site.moments.sums, site.site)
    kept = counts >= max(2, least)
    left_out, c, n = int((~kept).sum()), int(kept.sum()), int(counts[kept].sum())
    if c < 2:
        raise InputError(f"{c} classes have {max(2, least)} rows; two are needed")
    means, spread = means[kept], spread[kept]
    apart = torch.cdist(means, means).square()
    off = ~torch.eye(c, dtype=torch.bool)
    if float(apart[off].min()) == 0:
        return outcome("CDNV", float("nan"), n=n, d=site.d, convention="mean over pairs of classes",
                       reason="two classes have the same mean")  # fmt: skip
    ratio = torch.where(off, (spread[:, None] + spread) / (2 * torch.where(off, apart, 1.0)), 0.0)
    value = float(ratio.sum() / (c * (c - 1)))
    stderr = None
    if c > 2:
        left = (ratio.sum() - 2 * ratio.sum(1)) / ((c - 1) * (c - 2))
        stderr = float(((c - 1) / c * (left - left.mean()).square().sum()).sqrt())
    share = 1 / counts[kept]
    dealt = torch.where(off, (2 - share[:, None] - share) / (2 * (share[:, None] + share)), 0.0)
    chance = float(dealt.sum() / (c * (c - 1)))
    return outcome(
        "CDNV", value, n=n, d=site.d, stderr=stderr, chance=chance, no_stderr="two classes: the error is over classes",
        convention=f"mean over pairs of {c} classes, variance over n; chance: labels dealt at random, to first order",
        provenance={"left_out": left_out},
    )  # fmt: skip


def scatter_ratio(x: Data, labels: Labels = None, *, n_blocks: int = 8) -> Result:
    """tr Sw / tr Sb, the spread within classes over that of their means: NC1 as a ratio of traces; 0 at collapse.

    As in :func:`neural_collapse`, from class sums alone: rows without a class (a negative label) do not count. The
    error is a jackknife over ``n_blocks`` random blocks of rows, or the parts of the moments; ``.chance`` is about
    (n - C) / (C - 1), what labels dealt at random give.
    """
    site = _moments(x, labels, parts=n_blocks)

    def of(sums: Sums) -> Tensor:
        counts, means, spread = _classes(sums, site.site)
        middle = (counts @ means) / counts.sum()
        return (counts @ spread) / (counts @ (means - middle).square().sum(1))

    subsets = [site.moments.sums, *site.moments.left_out()]
    values = torch.stack([of(sums) for sums in subsets])
    counts = subsets[0][("class_n",)]
    n, c = int(counts.sum()), int((counts > 0).sum())
    return outcome(
        "NC1 ratio", float(values[0]), n=n, d=site.d, chance=(n - c) / (c - 1),
        stderr=float(jackknife(values[1:])) if len(values) > 2 else None,
        no_stderr=NO_PARTS if isinstance(x, SiteMoments) else "too few rows to leave some out",
        convention=f"tr Sw / tr Sb of {c} classes; 0 at collapse",
    )  # fmt: skip
