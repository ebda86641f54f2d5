"""Spectrum: how many dimensions does a representation use?

Three answers with three names, since the literature gives one name to different numbers: the entropy of the singular
values (RankMe), the entropy of the covariance eigenvalues (effective rank), and the participation ratio. All of them
grow with the sample size until n is several times d, so n and n/d stand beside every value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.rows import Rows, blocks_of, checked, jackknife
from interp.results import Result

__all__ = [
    "Spectrum",
    "effective_rank",
    "entropy_rank",
    "participation",
    "participation_ratio",
    "rankme",
    "spectrum_of",
]

Groups = Sequence[int] | Tensor | np.ndarray | None
_CONSTANT = "every row is the same: the spectrum is empty"
_ENOUGH = 10.0  # samples per dimension; isotropic data of n = 10 d still read 3-5% low


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum:
    """Scatter-matrix eigenvalues of one representation, of each jackknife subset, and of isotropic rows of its size.

    Made once, it answers every rank; :func:`spectrum_of` makes it.
    """

    n: int
    d: int
    center: bool
    whole: Float64[Tensor, "eigen"] | None
    """None where every row is the same."""
    left_out: tuple[Float64[Tensor, "eigen"], ...]
    isotropic: Float64[Tensor, "eigen"]

    def rank(self, of: Callable[[Tensor], Tensor], name: str, formula: str) -> Result:
        """The statistic ``of`` (eigenvalues -> number) as a Result."""
        value, stderr = float("nan"), None
        if self.whole is not None:
            value = float(of(self.whole))
            stderr = float(jackknife(torch.stack([of(eig) for eig in self.left_out])))
        centred = "centred" if self.center else "not centred"
        ratio = self.n / self.d
        return Result(
            name=name,
            value=value,
            stderr=stderr,
            n=self.n,
            reason=_CONSTANT if self.whole is None else None,
            chance=float(of(self.isotropic)),
            interval=None if stderr is None else np.array([value - 1.96 * stderr, value + 1.96 * stderr]),
            convention=f"{formula}, {centred}; n/d = {ratio:.3g}; jackknife over {len(self.left_out)} blocks of rows",
            provenance={"d": self.d, "n_over_d": ratio, "caveat": _caveat(self.n, self.d)},
        )


def spectrum_of(x: Rows, *, center: bool, groups: Groups = None, n_blocks: int = 16) -> Spectrum:
    """The :class:`Spectrum` of ``x`` [sample, d]. Cost: O(n d^2 + n_blocks d^3)."""
    raw = checked(x)
    n, d = raw.shape
    if n_blocks < 2:
        raise InputError(f"n_blocks = {n_blocks}; a jackknife needs at least 2")
    blocks = blocks_of(n, min(n_blocks, n // 2), groups)
    rows = raw - raw.mean(0, keepdim=True) if center else raw
    flat = bool(rows.abs().max() <= 1e-12 * raw.abs().max())
    # singular values, not eigenvalues of the scatter matrix: those lose half the digits of the small ones
    whole = None if flat else torch.linalg.svdvals(rows).square()
    return Spectrum(
        n=n,
        d=d,
        center=center,
        whole=whole,
        isotropic=_isotropic(n, d, center=center),
        left_out=() if flat else tuple(_left_out_spectra(rows, blocks, center=center)),
    )


def effective_rank(
    x: Rows,
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
    x: Rows,
    *,
    on: Literal["eigen", "singular"] = "singular",
    center: bool = False,
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """RankMe as published: :func:`effective_rank` of the singular values of the rows as they are, not centred.

    The paper adds 1e-7 to each p against log 0; here 0 log 0 = 0 and nothing is added.
    """
    return effective_rank(x, on=on, center=center, groups=groups, n_blocks=n_blocks)


def participation_ratio(x: Rows, *, center: bool = True, groups: Groups = None, n_blocks: int = 16) -> Result:
    """(sum l)^2 / sum l^2 over the covariance eigenvalues l of ``x`` [sample, d].

    For isotropic rows the sample value is about n d / (n + d), not d. Parameters as for :func:`effective_rank`.
    """
    return participation(spectrum_of(x, center=center, groups=groups, n_blocks=n_blocks))


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


def _exp_entropy(weights: Float64[Tensor, "eigen"]) -> Float64[Tensor, ""]:
    return torch.special.entr(weights / weights.sum()).sum().exp()


def _left_out_spectra(
    rows: Tensor, blocks: Sequence[Tensor], *, center: bool
) -> list[Float64[Tensor, "eigen"]]:
    """Eigenvalues of the scatter matrix with each block left out, by subtraction.

    A bootstrap would draw rows twice, and duplicated rows lower every rank: it is biased here, the jackknife is not.
    """
    n, total, sums = len(rows), rows.T @ rows, rows.sum(0)
    out = []
    for block in blocks:
        part = rows[block]
        scatter = total - part.T @ part
        if center:
            rest = sums - part.sum(0)
            scatter = scatter - torch.outer(rest, rest) / (n - len(block))
        # rounding leaves exact zeros at about -1e-16 of the largest eigenvalue
        out.append(torch.linalg.eigvalsh(scatter).clamp_min(0))
    return out


def _isotropic(n: int, d: int, *, center: bool) -> Float64[Tensor, "eigen"]:
    """The spectrum of one draw of isotropic Gaussian rows of the same n and d (ranks fluctuate by ~1/d; seed fixed)."""
    draw = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if center:
        draw = draw - draw.mean(0, keepdim=True)
    return torch.linalg.eigvalsh(draw.T @ draw if d <= n else draw @ draw.T).clamp_min(0)


def _caveat(n: int, d: int) -> str:
    if n >= _ENOUGH * d:
        return ""
    return f"n = {n} is below {_ENOUGH:g} d = {_ENOUGH * d:g}: the sample lacks directions, so the value reads low"
