"""Dimension: the intrinsic dimension of a cloud of points, from the distances of their nearest neighbours."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import outcome
from interp.metrics.rows import Rows, rows64
from interp.results import Result

__all__ = ["mle_dimension", "two_nn"]


def _distances(x: Rows, k: int, chunk: int = 1024) -> tuple[Float64[Tensor, "sample k"], int, int]:
    """Distances of the ``k`` nearest other points; exact duplicates are dropped first (how many, and d)."""
    raw = rows64(x)
    rows = torch.unique(raw, dim=0)
    n, d = rows.shape
    if n <= k + 1:
        raise InputError(f"{n} distinct points; {k} neighbours need at least {k + 2}")
    near = [
        torch.cdist(rows[i : i + chunk], rows, compute_mode="donot_use_mm_for_euclid_dist")
        .topk(k + 1, largest=False)
        .values[:, 1:]
        for i in range(0, n, chunk)
    ]
    return torch.cat(near), len(raw) - n, d


def two_nn(x: Rows, *, discard: float = 0.1, method: Literal["fit", "ml"] = "fit") -> Result:
    """TwoNN: intrinsic dimension from the ratio mu = r_2 / r_1 of the two nearest distances.

    Parameters
    ----------
    x
        [sample, d]. Duplicates give r_1 = 0: they are dropped, and counted in ``.provenance["duplicates"]``.
    discard
        Share of the largest mu left out of the fit.
    method
        ``"fit"``: slope through 0 of -log(1 - F) over log mu, F = i / n. ``"ml"``: (n - 1) / sum log mu.

    Notes
    -----
    Reads low for high dimension (k = 8, n = 2000: 7.7). Cost: O(n^2 d). The standard error is the maximum-likelihood
    one, value / sqrt(n).

    References
    ----------
    Facco et al. 2017.
    """
    near, duplicates, d = _distances(x, 2)
    mu = (near[:, 1] / near[:, 0]).log().sort().values
    n = len(mu)
    if not 0 <= discard < 1 or method not in ("fit", "ml"):
        raise InputError(f"discard={discard}, method={method!r}; a share below 1, and 'fit' or 'ml'")
    kept = n
    if method == "ml":
        value = float((n - 1) / mu.sum())
    else:
        kept = int(n * (1 - discard))
        rise = -torch.log1p(-torch.arange(1, n + 1, dtype=torch.float64)[:kept] / n)
        finite = torch.isfinite(rise)
        u, v = mu[:kept][finite], rise[finite]
        value = float((u * v).sum() / u.square().sum())
    how = f"slope of -log(1 - i/n), top {discard:g} discarded" if method == "fit" else "(n - 1) / sum log mu"
    return outcome(
        "TwoNN dimension", value, n=n, d=d, stderr=value / kept**0.5, chance=float(d),
        convention=f"{how}; chance: d, of points that fill the space, for large n",
        provenance={"duplicates": duplicates},
    )  # fmt: skip


def mle_dimension(x: Rows, *, k: int = 20, average: Literal["harmonic", "mean"] = "harmonic") -> Result:
    """Levina-Bickel dimension: at each point (k - 1) / sum_j log(r_k / r_j), then averaged.

    ``average="harmonic"`` averages the inverses (MacKay & Ghahramani), ``"mean"`` the values. Duplicates are dropped.

    References
    ----------
    Levina & Bickel 2004, eq. 8; MacKay & Ghahramani 2005.
    """
    if k < 3 or average not in ("harmonic", "mean"):
        raise InputError(f"k={k}, average={average!r}; k at least 3, and 'harmonic' or 'mean'")
    near, duplicates, d = _distances(x, k)
    inverse = (near[:, -1:] / near[:, :-1]).log().sum(1) / (k - 1)
    n = len(inverse)
    local = 1 / inverse
    if average == "harmonic":
        value = float(1 / inverse.mean())
        stderr = value**2 * float(inverse.std(correction=1)) / n**0.5
    else:
        value, stderr = float(local.mean()), float(local.std(correction=1)) / n**0.5
    return outcome(
        "maximum-likelihood dimension", value, n=n, d=d, stderr=stderr if np.isfinite(stderr) else None,
        convention=f"{k} neighbours, {average} average, k - 1; chance: d, of points that fill the space, for large n",
        chance=float(d), provenance={"duplicates": duplicates},
    )  # fmt: skip
