"""Closed-form probes as scikit-learn estimators: ridge to coded labels, linear discriminants, mass mean.

Each is fitted on rows, or with ``from_moments`` on what one pass over a corpus left behind. Read next: ``closed.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from interp.moments.accumulator import SiteMoments, need_pair
from probes.closed import Path, Scatter, path
from probes.readout import LinearClassifier, standards

__all__ = ["LDAProbe", "MassMeanProbe", "RidgeProbe", "RidgeRegressor"]

Closed = TypeVar("Closed", bound="ClosedForm")


class ClosedForm(LinearClassifier):
    """A linear classifier that needs no rows beyond their second-order statistics."""

    standardize: bool

    def fit(self: Closed, X, y) -> Closed:  # noqa: N803
        """Fit on rows ``X`` [sample, d] and labels ``y`` [sample], or 0/1 columns [sample, label]."""
        X, columns = self._checked(X, y)
        return self.fit_scatter(Scatter.of_rows(X, columns))

    @classmethod
    def from_moments(cls: type[Closed], site: SiteMoments, *, classes: Any = None, **options: Any) -> Closed:
        """The probe of all rows that a Moments has seen at a site, without another pass over them.

        Parameters
        ----------
        site
            ``moments["blocks.3.hook_resid_post"]`` of Moments that were given ``labels``.
        classes
            [class] what the labels stand for; their integers by default.
        **options
            The estimator's own parameters.
        """
        made = cls(**options)
        scatter = Scatter.of_moments(site)
        present = np.flatnonzero(site.moments.sums[("class_n",)].cpu().numpy() > 0)
        made.classes_ = present if classes is None else np.asarray(classes)[present]
        made.multilabel_, made.n_features_in_ = False, site.d
        return made.fit_scatter(scatter)

    def fit_scatter(self: Closed, scatter: Scatter, *, solved: Path | None = None) -> Closed:
        """Fit from statistics whose classes are ``classes_``; ``solved``, if given, is theirs standardised."""
        _, self.scale_ = standards(scatter.mean, scatter.deviation, on=self.standardize, eps=scatter.eps)
        self.mean_ = scatter.mean
        scaled = scatter.scaled(self.scale_)
        coef, intercept = self._solve(scaled, path(scaled) if solved is None and self._eigen() else solved)
        self._place(coef / self.scale_, intercept)
        return self

    def solve_path(self, scatter: Scatter) -> Path:
        """The eigendecomposition that fits of other labels on the same rows can share."""
        scale = standards(scatter.mean, scatter.deviation, on=self.standardize, eps=scatter.eps)[1]
        return path(scatter.scaled(scale))

    def _eigen(self) -> bool:
        return True

    @abstractmethod
    def _solve(self, scatter: Scatter, solved: Path | None) -> tuple[np.ndarray, np.ndarray]:
        """Weights [class, d] and intercepts [class] on centred, standardised rows."""


class RidgeProbe(ClosedForm):
    """Ridge regression to labels coded -1 and +1; the largest score wins.

    Minimises sum_i |t_i - W x_i - b|^2 + alpha |W|^2 over standardised features; b is not penalised.

    Parameters
    ----------
    alpha
        Strength of the penalty (scikit-learn's), or ``"gcv"``: the best of a grid by generalised cross-validation,
        all of it from one eigendecomposition.
    standardize
        Whether to standardise; off, the penalty acts on raw coordinates.

    Attributes
    ----------
    alpha_
        The strength used.
    """

    def __init__(self, alpha="gcv", *, standardize=True) -> None:
        self.alpha = alpha
        self.standardize = standardize

    def _solve(self, scatter: Scatter, solved: Path | None) -> tuple[np.ndarray, np.ndarray]:
        assert solved is not None
        self.alpha_ = _strength(self.alpha, solved, scatter.coded, scatter.code_power)
        weights = solved.ridge(scatter.coded, self.alpha_).T
        centre = 2 * scatter.counts / scatter.n - 1
        if not self.multilabel_ and len(weights) == 2:  # _place takes the difference of two opposite rows
            return weights / 2, centre / 2
        return weights, centre


class LDAProbe(ClosedForm):
    """Linear discriminant analysis: one Gaussian a class, all with the within-class covariance.

    The score of class k is m_k' S^-1 x - m_k' S^-1 m_k / 2 + log prior, S = (Sw + alpha) / n over standardised
    features. At the same ``alpha`` two classes have the direction of :class:`RidgeProbe`, up to scale.

    Parameters
    ----------
    alpha
        What is added to the within-class scatter, or ``"gcv"``: what ridge regression to the labels would choose.
    priors
        ``"empirical"`` or ``"uniform"``.
    standardize
        Whether to standardise first; without a penalty it makes no difference.

    References
    ----------
    Hastie, Buja & Tibshirani 1995, Penalized discriminant analysis.
    """

    def __init__(self, alpha="gcv", *, priors="empirical", standardize=True) -> None:
        self.alpha = alpha
        self.priors = priors
        self.standardize = standardize

    def _solve(self, scatter: Scatter, solved: Path | None) -> tuple[np.ndarray, np.ndarray]:
        assert solved is not None
        self.alpha_ = _strength(self.alpha, solved, scatter.coded, scatter.code_power)

        def metric(means: np.ndarray, counts: np.ndarray) -> np.ndarray:
            return scatter.n * solved.discriminant(means, counts, self.alpha_).T

        return _by_class(self, scatter, metric)

    def predict_proba(self, X) -> np.ndarray:  # noqa: N803
        """Probabilities [sample, class] under the Gaussian model."""
        return self._probabilities(X)


class MassMeanProbe(ClosedForm):
    """The difference of class means as the direction; with ``whiten`` seen through the within-class covariance.

    The nearest class mean wins (with ``whiten``: in Mahalanobis distance, which is LDA with uniform priors). Scores
    are divided by the within-class variance along the differences of the means, so that for two classes probabilities
    are those of Gaussians with that variance.

    Parameters
    ----------
    whiten
        Whether to multiply with the inverse within-class covariance (only sensible on data as the probe was fitted on).
    priors
        ``"uniform"`` (the threshold half way between the means) or ``"empirical"``.
    standardize
        Off: the direction is that of the raw means.

    References
    ----------
    Marks & Tegmark 2024, section 5; their probes have no bias and take centred data.
    """

    def __init__(self, *, whiten=False, priors="uniform", standardize=False) -> None:
        self.whiten = whiten
        self.priors = priors
        self.standardize = standardize

    def _eigen(self) -> bool:
        return bool(self.whiten)

    def _solve(self, scatter: Scatter, solved: Path | None) -> tuple[np.ndarray, np.ndarray]:
        def metric(means: np.ndarray, counts: np.ndarray) -> np.ndarray:
            if self.whiten:
                assert solved is not None
                return scatter.n * solved.discriminant(means, counts, 0.0).T
            between = np.einsum("k,kd,ke,de", counts, means, means, scatter.total, optimize=True)
            within = between - ((counts[:, None] * (means @ means.T) ** 2).sum(0) * counts).sum()
            apart = (counts[:, None] * means**2).sum()
            variance = within / max(apart, np.finfo(float).tiny) / scatter.n
            return means / (variance if variance > 0 else 1.0)

        return _by_class(self, scatter, metric)

    def predict_proba(self, X) -> np.ndarray:  # noqa: N803
        """Probabilities [sample, class]; see the class for what they assume."""
        return self._probabilities(X)


def _by_class(probe: Any, scatter: Scatter, metric: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian scores from ``metric(means, counts)`` = S^-1 m; for several labels at once, label by label."""
    if probe.priors not in ("empirical", "uniform"):
        raise ValueError(f"priors={probe.priors!r}; it is 'empirical' or 'uniform'")

    def scores(one: Scatter) -> tuple[np.ndarray, np.ndarray]:
        weights = metric(one.means, one.counts)
        prior = np.log(one.counts / one.n) if probe.priors == "empirical" else np.zeros(len(one.counts))
        return weights, prior - 0.5 * (weights * one.means).sum(1)

    if not probe.multilabel_:
        return scores(scatter)
    pairs = [scores(scatter.rest_and(k)) for k in range(len(scatter.counts))]
    return np.stack([w[1] - w[0] for w, _ in pairs]), np.array([b[1] - b[0] for _, b in pairs])


def _strength(alpha: Any, solved: Path, cross: np.ndarray, power: np.ndarray) -> float:
    if isinstance(alpha, str):
        if alpha != "gcv":
            raise ValueError(f"alpha={alpha!r}; it is a number or 'gcv'")
        return solved.gcv(cross, power, solved.alphas())
    if not alpha >= 0:
        raise ValueError(f"alpha={alpha!r}; a penalty is at least 0")
    return float(alpha)


class RidgeRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression to one or several numbers: latitude and longitude, a depth, a count.

    Parameters
    ----------
    alpha, standardize
        As for :class:`RidgeProbe`.

    Attributes
    ----------
    coef_, intercept_
        [target, d] and [target] ([d] and a number for one target), in input coordinates.
    """

    def __init__(self, alpha="gcv", *, standardize=True) -> None:
        self.alpha = alpha
        self.standardize = standardize

    def fit(self, X, y) -> RidgeRegressor:  # noqa: N803
        """Fit on rows ``X`` [sample, d] and numbers ``y`` [sample] or [sample, target]."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        scatter = Scatter.of_rows(X, np.ones((len(X), 1)))
        centred = targets - targets.mean(0)
        cross = (X - scatter.mean).T @ centred
        self._from(scatter, cross, (centred**2).sum(0), targets.mean(0))
        if np.ndim(y) == 1:
            self.coef_, self.intercept_ = self.coef_[0], float(np.ravel(self.intercept_)[0])
        return self

    @classmethod
    def from_moments(cls, site: SiteMoments, target: SiteMoments, **options: Any) -> RidgeRegressor:
        """From two sites of one Moments that kept their cross block: the activations and the targets."""
        need_pair(site, target)
        made = cls(**options)
        made.n_features_in_ = site.d
        mean = site.mean.cpu().numpy()
        scatter = Scatter(
            n=site.n, mean=mean, total=site.scatter.cpu().numpy(), counts=np.array([site.n]), means=mean[None],
            eps=float(np.finfo(np.float32).eps),
        )  # fmt: skip
        power = target.scatter.diagonal().cpu().numpy()
        made._from(scatter, site.cross(target).cpu().numpy(), power, target.mean.cpu().numpy())
        return made

    def _from(self, scatter: Scatter, cross: np.ndarray, power: np.ndarray, centre: np.ndarray) -> None:
        _, scale = standards(scatter.mean, scatter.deviation, on=self.standardize, eps=scatter.eps)
        solved = path(scatter.scaled(scale))
        cross = cross / scale[:, None]
        self.alpha_ = _strength(self.alpha, solved, cross, power)
        self.mean_, self.scale_ = scatter.mean, scale
        self.coef_ = solved.ridge(cross, self.alpha_).T / scale
        self.intercept_ = centre - self.coef_ @ scatter.mean

    def predict(self, X) -> np.ndarray:  # noqa: N803
        """Numbers [sample] or [sample, target], as at ``fit``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return (X - self.mean_) @ self.coef_.T + (self.intercept_ + self.coef_ @ self.mean_)
