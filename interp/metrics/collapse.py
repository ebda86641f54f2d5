"""Collapse: how far the classes of a trained classifier have shrunk to points, and those points to a simplex.

Everything but NC4 comes from class counts, class sums and one scatter matrix: from rows, or from a Moments with labels.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import outcome
from interp.metrics.rows import Data, checked
from interp.moments.accumulator import SiteMoments
from interp.moments.sources import moments_of
from interp.results import Result

__all__ = ["class_distance_variance", "neural_collapse"]


def _classes(
    x: Data, labels: Int[Tensor, "sample"] | np.ndarray | None
) -> tuple[SiteMoments, Float64[Tensor, "class"], Float64[Tensor, "class d"], Float64[Tensor, "class"]]:
    """Moments, and the counts, means and mean squared spreads of the classes that have rows."""
    if not isinstance(x, SiteMoments):
        if labels is None:
            raise InputError("labels [sample] are needed with rows")
        x = moments_of({"x": checked(x)}, labels=labels, products="float64", twin=False, block=0)["x"]
    sums = x.moments.sums
    if ("class_n",) not in sums:
        raise InputError(f"the moments of {x.site} hold no classes: accumulate with labels=")
    counts = sums[("class_n",)]
    if int(counts.sum()) != sums.n:
        raise InputError(f"{sums.n - int(counts.sum())} of {sums.n} rows have no class: leave them out first")
    kept = counts > 0
    if int(kept.sum()) < 2:
        raise InputError("one class only: nothing to tell apart")
    first, norm = sums["class_first", x.site][kept], sums["class_norm", x.site][kept]
    counts = counts[kept]
    means = first / counts[:, None]
    return x, counts, means, norm / counts - means.square().sum(1)


def neural_collapse(
    x: Data,
    labels: Int[Tensor, "sample"] | np.ndarray | None = None,
    *,
    weight: Float[Tensor, "class d"] | None = None,
    bias: Float[Tensor, "class"] | None = None,
) -> Result:
    """NC1-4 of a representation with class labels; all are 0 at collapse.

    Parameters
    ----------
    x, labels
        [sample, d] and [sample]; or a site of a Moments that was given labels.
    weight, bias
        The classifier on top; without it NC3 and NC4 are nan and ``.reason`` says so. NC4 needs rows.

    Returns
    -------
    Result
        Along ``measure``: NC1 = tr(Sw Sb^+) / C; NC1 ratio = tr Sw / tr Sb; NC2 = |G / |G|_F - (I - 1/C) /
        sqrt(C - 1)|_F with G the Gram matrix of centred class means; NC2 norms, the coefficient of variation of their
        lengths; NC3 = |W / |W|_F - M / |M|_F|_F; NC4, the share of rows where the classifier and the nearest class
        mean differ.

    References
    ----------
    Papyan, Han & Donoho 2020.
    """
    site, counts, means, _ = _classes(x, labels)
    n, c = site.n, len(counts)
    centre = (counts[:, None] * means).sum(0) / n
    m = means - centre
    sb = (m.T * counts) @ m / n
    sw = site.scatter / n - sb
    eig, vectors = torch.linalg.eigh(sb)
    top = eig > 1e-10 * eig[-1]
    inverse = vectors[:, top] / eig[top] @ vectors[:, top].T
    # the class means about their own mean, as the definition of NC2 has it
    balanced = means - means.mean(0)
    gram = balanced @ balanced.T
    simplex = (torch.eye(c, dtype=gram.dtype) - 1 / c) / (c - 1) ** 0.5
    lengths = balanced.norm(dim=1)
    values = {
        "NC1": float((sw * inverse.T).sum() / c),
        "NC1 ratio": float(sw.trace() / sb.trace()),
        "NC2": float((gram / gram.norm() - simplex).norm()),
        "NC2 norms": float(lengths.std(correction=0) / lengths.mean()),
        "NC3": float("nan"),
        "NC4": float("nan"),
    }
    reasons = []
    if weight is None:
        reasons.append("NC3 and NC4 need the classifier's weight")
    else:
        if weight.shape != means.shape:
            raise InputError(
                f"weight is {list(weight.shape)}; {list(means.shape)} was expected (a row a class)"
            )
        w = weight.detach().double()
        values["NC3"] = float((w / w.norm() - balanced / balanced.norm()).norm())
        if isinstance(x, SiteMoments):
            reasons.append("NC4 needs the rows")
        else:
            rows = checked(x)
            said = rows @ w.T + (0.0 if bias is None else bias.detach().double())
            origin = site.moments.shift[site.site]
            values["NC4"] = float(
                (said.argmax(1) != torch.cdist(rows - origin, means).argmin(1)).double().mean()
            )
    return outcome(
        "neural collapse", np.array(list(values.values())), n=n, d=site.d, axes=("measure",), ticks=(tuple(values),),
        reason="; ".join(reasons) or None, convention=f"{c} classes; scatter over n; 0 at collapse",
    )  # fmt: skip


def class_distance_variance(x: Data, labels: Int[Tensor, "sample"] | np.ndarray | None = None) -> Result:
    """CDNV: (var_i + var_j) / (2 |mu_i - mu_j|^2), averaged over pairs of classes; 0 at collapse.

    ``.stderr`` is over classes left out (jackknife). Works on classes held out from training too, where it bounds the
    few-shot error of the nearest class mean.

    References
    ----------
    Galanti, Gyorgy & Hutter 2022, eq. 3.
    """
    site, counts, means, spread = _classes(x, labels)
    c = len(counts)
    apart = torch.cdist(means, means).square()
    off = ~torch.eye(c, dtype=torch.bool)
    if float(apart[off].min()) == 0:
        return outcome("CDNV", float("nan"), n=site.n, d=site.d, convention="mean over pairs of classes",
                       reason="two classes have the same mean")  # fmt: skip
    ratio = torch.where(off, (spread[:, None] + spread) / (2 * torch.where(off, apart, 1.0)), 0.0)
    value = float(ratio.sum() / (c * (c - 1)))
    stderr = None
    if c > 2:
        left = (ratio.sum() - 2 * ratio.sum(1)) / ((c - 1) * (c - 2))
        stderr = float(((c - 1) / c * (left - left.mean()).square().sum()).sqrt())
    return outcome(
        "CDNV", value, n=site.n, d=site.d, stderr=stderr, convention=f"mean over pairs of {c} classes, variance over n",
    )  # fmt: skip
