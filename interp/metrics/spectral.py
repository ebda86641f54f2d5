"""Spectrum: how many dimensions does a representation use?

Several answers with several names, since the literature gives one name to different numbers: the entropy of the
singular values (RankMe), the entropy of the covariance eigenvalues (effective rank), the participation ratio, the
stable rank, the exponent of a power law. All but the unbiased participation ratio depend on the sample size until n
is several times d, so n and n/d stand beside every value. Read next: ``spectrum.py`` (the eigenvalues).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import known_compat, outcome
from interp.metrics.rows import Data, Groups, blocks_of, checked, jackknife
from interp.metrics.spectrum import CONSTANT, Spectrum, spectrum_of
from interp.moments.accumulator import SiteMoments, scatter_of
from interp.moments.sums import Sums
from interp.results import Result

__all__ = [
    "alpha_req",
    "effective_rank",
    "entropy_rank",
    "nesum",
    "participation",
    "participation_ratio",
    "power_law",
    "rankme",
    "square_norms",
    "stable",
    "stable_rank",
    "unbiased_participation",
]

FourthOrder = tuple[int, float, float, float]
"""n, tr S, |S|_F^2 and sum k^2 (k = |x|^2) of centred rows, S their scatter matrix."""


def effective_rank(
    x: Data,
    *,
    on: Literal["eigen", "singular"] = "eigen",
    center: bool = True,
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """Exponential of the entropy of the normalised spectrum of ``x`` [sample, d]; by default of its covariance.

    Parameters
    ----------
    x
        [sample, d], any float type.
    on
        ``"eigen"``: p = l / sum l over covariance eigenvalues l. ``"singular"``: p = s / sum s over singular values
        (what Roy & Vetterli, and Garrido et al. under the name RankMe, define). On a decaying spectrum the second is
        several times the first.
    center
        Take column means away first. Without it a large common mean counts as one dominant dimension.
    groups, n_blocks
        Units and number of blocks of the jackknife, as for :func:`interp.metrics.cka`.

    Returns
    -------
    Result
        ``.value`` in [1, min(n, d)], invariant to rotation and scale; ``.chance`` is the ceiling that isotropic
        Gaussian rows of the same n and d reach (biased down by the finite n just as ``.value`` is).

    Raises
    ------
    InputError
        Fewer than 4 rows, or NaN.

    References
    ----------
    Roy & Vetterli 2007; Garrido et al. 2023 (RankMe), eq. 1.
    """
    if on not in ("eigen", "singular"):
        raise InputError(f"on={on!r}; it is 'eigen' or 'singular'")
    return entropy_rank(spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks), on=on)


def rankme(
    x: Data,
    *,
    on: Literal["eigen", "singular"] = "singular",
    center: bool = False,
    compat: str | None = None,
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """RankMe as published: :func:`effective_rank` of the singular values of the rows as they are, not centred.

    Parameters
    ----------
    compat
        ``"garrido"``: 1e-7 is added to each p, as in the paper (here 0 log 0 = 0 and nothing is added).
        ``"reptrix"``: what that library calls RankMe, the entropy of the centred covariance's eigenvalues, 1e-7 added.
    """
    known_compat(compat, "garrido", "reptrix")
    if compat is None:
        return effective_rank(x, on=on, center=center, groups=groups, n_blocks=n_blocks)
    on, center = ("eigen", True) if compat == "reptrix" else ("singular", False)
    spectrum = spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks)
    power = 1.0 if on == "eigen" else 0.5
    what = "covariance eigenvalues" if on == "eigen" else "singular values"
    top = min(spectrum.n, spectrum.d)
    return spectrum.rank(
        lambda eig: _exp_entropy(eig[:top].pow(power), extra=1e-7), "RankMe",
        f"exp entropy of {what}, p + 1e-7 (compat {compat})",
    )  # fmt: skip


def participation_ratio(
    x: Data, *, center: bool = True, unbiased: bool = False, groups: Groups = None, n_blocks: int = 16
) -> Result:
    """(sum l)^2 / sum l^2 over the covariance eigenvalues l of ``x`` [sample, d].

    For isotropic rows the sample value is about n d / (n + d), not d. ``unbiased=True`` divides the unbiased estimate
    of (tr S)^2 by that of |S|_F^2 (HSIC_1 of the rows with themselves; Song et al. 2012): d at any n, and no
    eigenvalue problem. Parameters as for :func:`effective_rank`.
    """
    if not unbiased:
        return participation(spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks))
    if not center:
        raise InputError("the unbiased participation ratio is that of the covariance: center=True")
    sums, left, n, d = _norm_sums(x, groups, n_blocks)
    return unbiased_participation(sums, left, n=n, d=d)


def unbiased_participation(whole: FourthOrder, left_out: Sequence[FourthOrder], *, n: int, d: int) -> Result:
    """``participation_ratio(unbiased=True)`` of sums that are at hand."""
    value = _unbiased_participation(*whole)
    reason = None if np.isfinite(value) else "the estimate of |S|_F^2 is not positive: too few samples"
    stderr = None
    if left_out and not reason:
        stderr = float(jackknife(torch.tensor([_unbiased_participation(*s) for s in left_out]).double()))
    return outcome(
        "participation ratio", value, n=n, d=d, stderr=stderr, reason=reason, chance=float(d),
        convention="unbiased (tr S)^2 over unbiased |S|_F^2 (U-statistics), centred",
    )  # fmt: skip


def square_norms(sums: Sums, site: str) -> float:
    """sum |x - mean|^4 over rows, which no spectrum knows; from sums about any origin."""
    first, n = sums["first", site], sums[("n",)]
    m = first / n
    mm = m.square().sum()
    turned = sums["second", site, site] @ m
    return float(
        sums["norms", site, site] - 4 * m @ sums["by_norm", site, site] + 2 * mm * sums["norm", site]
        + 4 * m @ turned - 3 * n * mm.square()
    )  # fmt: skip


def _norm_sums(x: Data, groups: Groups, n_blocks: int) -> tuple[FourthOrder, list[FourthOrder], int, int]:
    """The sums of the centred rows, then with each block left out."""
    if isinstance(x, SiteMoments):

        def of(sums: Sums) -> FourthOrder:
            scatter = scatter_of(sums, x.site)
            return sums.n, float(scatter.trace()), float(scatter.square().sum()), square_norms(sums, x.site)

        return of(x.moments.sums), [of(s) for s in x.moments.left_out()], x.n, x.d
    rows = checked(x)
    n, d = rows.shape

    def kept(index: Tensor | None) -> FourthOrder:
        part = rows if index is None else rows[index]
        part = part - part.mean(0)
        k = part.square().sum(1)
        gram = part.T @ part if d <= len(part) else part @ part.T
        return len(part), float(k.sum()), float(gram.square().sum()), float(k.square().sum())

    left = []
    for block in blocks_of(n, min(n_blocks, max(2, n // 4)), groups) if n_blocks else []:
        mask = torch.ones(n, dtype=torch.bool)
        mask[block] = False
        left.append(kept(torch.nonzero(mask).flatten()))
    return kept(None), left, n, d


def _unbiased_participation(n: int, trace: float, square: float, fourth: float) -> float:
    """Ratio of the U-statistics of (tr S)^2 and |S|_F^2 over four distinct rows, from sums of centred rows."""
    if n < 4:
        raise InputError(f"{n} rows; the unbiased participation ratio needs at least 4")
    top = (n**2 - 3 * n + 1) * trace**2 - (n**2 - n) * fourth + 2 * square
    bottom = square - fourth + trace**2 / ((n - 1) * (n - 2)) - 2 / (n - 2) * fourth
    return top / ((n - 1) * (n - 2) * bottom) if bottom > 0 else float("nan")


def stable_rank(x: Data, *, center: bool = True, groups: Groups = None, n_blocks: int = 16) -> Result:
    """sum l / l_1: the squared Frobenius norm over the squared spectral norm. Parameters as above.

    l_1 is inflated by about (1 + sqrt(d / n))^2 in isotropic samples, so the value reads low.
    """
    return stable(spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks))


def nesum(x: Data, *, center: bool = True, groups: Groups = None, n_blocks: int = 16) -> Result:
    """NESum, sum_i l_i / l_1 of the sorted covariance eigenvalues: :func:`stable_rank` under its other name.

    References: He & Ozay 2022.
    """
    return spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks).rank(
        lambda eig: eig.sum() / eig.max(), "NESum", "sum l / l_1 of covariance eigenvalues"
    )


def alpha_req(
    x: Data,
    *,
    first: int = 11,
    last: int = 100,
    center: bool = True,
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """The exponent a of l_i ~ i^-a: slope of log l_i over log i for i = ``first`` .. ``last``, weights 1 / i.

    Ranks count from 1; the default range is the published library's (its 0-based 10:100), cut to the ranks that
    exist. ``.provenance`` holds the range and the weighted R^2; report them. Smaller is flatter.

    References
    ----------
    Agrawal et al. 2022 (alpha-ReQ); Stringer et al. 2019.
    """
    return power_law(spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks), first=first, last=last)


def power_law(spectrum: Spectrum, *, first: int = 11, last: int = 100) -> Result:
    """:func:`alpha_req` of a spectrum that is at hand."""
    spectra = [] if spectrum.whole is None else [spectrum.whole, *spectrum.left_out]
    held = min((int((eig > 1e-13 * eig.max()).sum()) for eig in spectra), default=0)
    end = min(last, held, len(spectrum.isotropic))
    name, formula = "alpha-ReQ", f"-slope of log l_i over log i, i = {first}..{end}, weights 1/i"
    if spectrum.whole is None or end - first < 2:
        why = (
            CONSTANT
            if spectrum.whole is None
            else f"only {held} eigenvalues: none to fit from rank {first} on"
        )
        return outcome(name, float("nan"), n=spectrum.n, d=spectrum.d, convention=formula, reason=why)
    result = spectrum.rank(lambda eig: _slope(eig, first, end)[0], name, formula)
    fit = {"first": first, "last": end, "r2": float(_slope(spectrum.whole, first, end)[1])}
    fields = {
        f: getattr(result, f) for f in ("name", "value", "n", "convention", "stderr", "interval", "chance")
    }
    return Result(**fields, provenance={**result.provenance, **fit})


def _slope(eig: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Weighted least squares of log l on log i: minus the slope, and the weighted R^2."""
    rank = torch.arange(first, last + 1, dtype=torch.float64, device=eig.device)
    u, v, w = rank.log(), eig.sort(descending=True).values[first - 1 : last].clamp_min(1e-300).log(), 1 / rank
    w = w / w.sum()
    u, v = u - (w * u).sum(), v - (w * v).sum()
    slope = (w * u * v).sum() / (w * u * u).sum()
    return -slope, 1 - (w * (v - slope * u).square()).sum() / (w * v.square()).sum()


def entropy_rank(spectrum: Spectrum, *, on: Literal["eigen", "singular"]) -> Result:
    """:func:`effective_rank` of a spectrum that is at hand."""
    power = 1.0 if on == "eigen" else 0.5
    what = "covariance eigenvalues" if on == "eigen" else "singular values"
    return spectrum.rank(
        lambda eig: _exp_entropy(eig.pow(power)),
        "effective rank" if on == "eigen" else "RankMe",
        f"exp entropy of {what}",
    )


def participation(spectrum: Spectrum) -> Result:
    """:func:`participation_ratio` of a spectrum that is at hand."""
    return spectrum.rank(
        lambda eig: eig.sum().square() / eig.square().sum(),
        "participation ratio",
        "(sum l)^2 / sum l^2 of covariance eigenvalues",
    )


def stable(spectrum: Spectrum) -> Result:
    """:func:`stable_rank` of a spectrum that is at hand."""
    return spectrum.rank(
        lambda eig: eig.sum() / eig.max(), "stable rank", "sum l / l_1 of covariance eigenvalues"
    )


def _exp_entropy(weights: Float64[Tensor, "eigen"], *, extra: float = 0.0) -> Float64[Tensor, ""]:
    return torch.special.entr(weights / weights.sum() + extra).sum().exp()
