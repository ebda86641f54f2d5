"""Closed forms: every ridge, LDA and mass-mean probe of a site from its scatter, its class counts and class means.

One eigendecomposition of the total scatter answers for every strength of the penalty: ridge regression to coded labels,
and by Woodbury's identity the discriminants of the within-class scatter too. Rows are seen once, when a
:class:`Scatter` is made of them or when ``interp.Moments`` passes over them; nothing here sees a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh

from interp.errors import InputError
from interp.moments.accumulator import SiteMoments
from interp.showing import Shown

__all__ = ["Path", "Scatter", "path"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scatter:
    """Second-order statistics of labelled rows, float64."""

    n: int
    mean: np.ndarray
    """[d]"""
    total: np.ndarray
    """[d, d] sum (x - mean)(x - mean)'."""
    counts: np.ndarray
    """[class] rows whose label column is 1."""
    means: np.ndarray
    """[class, d] their mean."""
    eps: float = float(np.finfo(np.float64).eps)
    """Rounding of the rows, by which a constant column is known."""

    @classmethod
    def of_rows(cls, x: np.ndarray, columns: np.ndarray, *, single: bool = False) -> Scatter:
        """From rows [sample, d] and 0/1 label columns [sample, class]. Cost: n d^2 products.

        Products are float64; ``single`` leaves float32 rows in float32 (right to about 1e-6, half the time).
        """
        mean = x.mean(0, dtype=np.float64)
        centred = x - (mean.astype(x.dtype) if single else mean)
        counts = columns.sum(0)
        means = mean + (columns.T @ centred) / counts[:, None]
        eps = float(np.finfo(x.dtype).eps)
        return cls(n=len(x), mean=mean, total=centred.T @ centred, counts=counts, means=means, eps=eps)

    @classmethod
    def of_moments(cls, site: SiteMoments) -> Scatter:
        """From one site of a Moments that was given labels; classes without rows are left out.

        Raises
        ------
        InputError
            The Moments kept no classes, or some rows had no label (their scatter cannot be told apart).
        """
        config, sums = site.moments.config, site.moments.sums
        if not config.n_classes:
            raise InputError(
                "these moments kept no classes; give labels (and n_classes) when they are gathered"
            )
        counts = sums[("class_n",)]
        if int(counts.sum()) != site.n:
            raise InputError(
                f"{site.n - int(counts.sum())} of the {site.n} rows of these moments have no label"
            )
        kept = counts > 0
        means = site.moments.shift[site.site] + sums["class_first", site.site][kept] / counts[kept, None]
        return cls(
            n=site.n,
            mean=site.mean.cpu().numpy(),
            total=site.scatter.cpu().numpy(),
            counts=counts[kept].cpu().numpy(),
            means=means.cpu().numpy(),
            eps=float(np.finfo(np.float32 if config.products == "float32" else np.float64).eps),
        )

    def rest_and(self, k: int) -> Scatter:
        """Class k against all others: two classes."""
        rest = self.n - self.counts[k]
        mean = (self.n * self.mean - self.counts[k] * self.means[k]) / rest
        return replace(self, counts=np.array([rest, self.counts[k]]), means=np.stack([mean, self.means[k]]))

    def scaled(self, scale: np.ndarray) -> Scatter:
        """The statistics of (x - mean) / scale."""
        zero = np.zeros_like(self.mean)
        return replace(
            self, mean=zero, total=self.total / scale / scale[:, None], means=(self.means - self.mean) / scale
        )

    @property
    def deviation(self) -> np.ndarray:
        """[d] standard deviation of each column (/n)."""
        return np.sqrt(np.maximum(self.total.diagonal(), 0) / self.n)

    @property
    def coded(self) -> np.ndarray:
        """[d, class] sum (x - mean) t for labels coded t = +1 in the class, -1 outside."""
        return 2 * (self.counts[:, None] * (self.means - self.mean)).T

    @property
    def code_power(self) -> np.ndarray:
        """[class] sum (t - mean t)^2 of the coded labels."""
        return 4 * self.counts * (1 - self.counts / self.n)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Path(Shown):
    """An eigendecomposition of the total scatter, and from it the solution at every penalty."""

    n: int
    values: np.ndarray
    vectors: np.ndarray
    eps: float = float(np.finfo(np.float64).eps)
    """Rounding of the scatter."""

    def ridge(self, cross: np.ndarray, alpha: float) -> np.ndarray:
        """(S + alpha)^-1 cross [d, target]."""
        return self.vectors @ (self._gain(alpha)[:, None] * (self.vectors.T @ cross))

    def gcv(self, cross: np.ndarray, power: np.ndarray, alphas: np.ndarray) -> float:
        """The strength with the least generalised cross-validation error, n RSS / (n - df)^2 over all targets.

        References
        ----------
        Golub, Heath & Wahba 1979, (1.4).
        """
        turned = (self.vectors.T @ cross) ** 2
        errors = []
        for alpha in alphas:
            gain = self._gain(alpha)
            rss = power.sum() - ((2 * gain - gain**2 * self.values)[:, None] * turned).sum()
            df = 1 + (self.values * gain).sum()
            errors.append(rss / max(self.n - df, 1e-9) ** 2)
        return float(alphas[int(np.argmin(errors))])

    def discriminant(self, means: np.ndarray, counts: np.ndarray, alpha: float) -> np.ndarray:
        """(Sw + alpha)^-1 means' [d, class], Sw = S - sum_k n_k m_k m_k' for class means m_k about 0."""
        weighted = np.sqrt(counts)[:, None] * means
        solved = self.ridge(weighted.T, alpha)
        inner = np.eye(len(means)) - weighted @ solved
        return np.linalg.solve(inner.T, solved.T).T / np.sqrt(counts)

    def alphas(self) -> np.ndarray:
        """A grid of strengths about the mean eigenvalue, 4 a decade, from above the rounding of the products."""
        centre = self.values.sum() / len(self.values)
        if centre < np.finfo(float).tiny / np.finfo(float).eps:
            centre = 1.0  # constant rows: there is nothing to weigh, at any strength
        grid = np.logspace(-6, 3, 37)
        return centre * grid[grid > 10 * len(self.values) * self.eps]

    def _gain(self, alpha: float) -> np.ndarray:
        floor = len(self.values) * np.finfo(float).eps * max(self.values[-1], 0)
        kept = self.values + alpha > floor  # at alpha = 0 directions of no variance get no weight
        return np.where(kept, 1 / np.where(kept, self.values + alpha, 1), 0)


def path(scatter: Scatter) -> Path:
    """The eigendecomposition; about 10 d^3 operations."""
    values, vectors = eigh(scatter.total)
    return Path(scatter.n, values, vectors, scatter.eps)
