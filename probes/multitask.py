"""Sparse predictors of several factors at once, and what their weights say of the features: DCI, and MCC beside it.

The penalty decides what is shared: whole features for all tasks (group lasso), or each weight by itself (lasso).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from interp.errors import InputError
from interp.metrics.matching import match_neurons
from interp.results import Result
from probes.controls import split_by_group
from probes.erasing import matrix

__all__ = ["Disentanglement", "MultiTaskProbe", "dci"]


class MultiTaskProbe(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Linear predictors of several numbers from few features.

    Minimises |Y - X W - b|^2 / (2 n) + alpha ((1 - mix) sum_j |W_j| + mix sum_jt |W_jt|) over standardised features and
    targets, W_j the weights of feature j for all tasks, by accelerated proximal gradient on the Gram matrix (rows are
    multiplied once).

    Parameters
    ----------
    alpha
        Strength of the penalty; at 1 nothing is left (for ``mix`` = 1; for one task in every case).
    mix
        0: group lasso, a feature serves all tasks or none. 1: lasso, each task picks its own.
    max_iter, tol
        Steps at most, and the change of the weights, relative to the largest, at which they end.

    Attributes
    ----------
    coef_, intercept_
        [target, d] and [target] ([d] and a number for one target), in input coordinates.
    weights_
        [target, d] over standardised features, for standardised targets.
    mean_
        [d] of the rows.
    n_iter_, converged_
        Steps taken, and whether ``tol`` was reached.

    References
    ----------
    Lachapelle et al. 2023, Synergies between disentanglement and sparsity, (4); Beck & Teboulle 2009 (FISTA).
    """

    def __init__(self, alpha=0.05, *, mix=0.0, max_iter=2000, tol=1e-8) -> None:
        self.alpha = alpha
        self.mix = mix
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X, y) -> MultiTaskProbe:  # noqa: N803
        """Fit on rows ``X`` [sample, d] and numbers ``y`` [sample] or [sample, target]."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True)
        if self.alpha < 0 or not 0 <= self.mix <= 1:
            raise ValueError(
                f"alpha={self.alpha!r}, mix={self.mix!r}; alpha is at least 0, mix lies in 0 to 1"
            )
        features, targets = X.astype(np.float64), np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        mean, scale = _standards(features)
        centre, size = _standards(targets)
        x, t = (features - mean) / scale, (targets - centre) / size
        weights = self._minimised(x.T @ x / len(x), x.T @ t / len(x))
        self.weights_, self.mean_ = weights.T, mean
        self.coef_ = (weights / scale[:, None] * size).T
        self.intercept_ = centre - self.coef_ @ mean
        if np.ndim(y) == 1:
            self.coef_, self.intercept_ = self.coef_[0], float(self.intercept_[0])
        return self

    def _minimised(self, gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
        step = 1 / max(float(np.linalg.eigvalsh(gram)[-1]), np.finfo(float).tiny)
        weights = ahead = np.zeros_like(cross)
        pace, self.converged_, self.n_iter_ = 1.0, False, 0
        while self.n_iter_ < self.max_iter and not self.converged_:
            self.n_iter_ += 1
            new = _shrunk(ahead - step * (gram @ ahead - cross), step * self.alpha, self.mix)
            change = np.abs(new - weights).max(initial=0.0)
            if ((ahead - new) * (new - weights)).sum() > 0:  # it overshot: begin the acceleration again
                pace = 1.0
            after = (1 + (1 + 4 * pace**2) ** 0.5) / 2
            ahead = new + (pace - 1) / after * (new - weights)
            weights, pace = new, after
            self.converged_ = bool(change <= self.tol * max(np.abs(weights).max(initial=0.0), 1e-12))
        return weights

    def predict(self, X) -> np.ndarray:  # noqa: N803
        """Numbers [sample] or [sample, target], as at ``fit``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return X @ self.coef_.T + self.intercept_


def _standards(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = x.mean(0), x.std(0)
    return mean, np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1.0), deviation, 1.0)


def _shrunk(weights: np.ndarray, by: float, mix: float) -> np.ndarray:
    """The proximal map: each weight towards 0, then each feature's row."""
    each = np.sign(weights) * np.maximum(np.abs(weights) - by * mix, 0)
    length = np.linalg.norm(each, axis=1, keepdims=True)
    return each * np.maximum(1 - by * (1 - mix) / np.maximum(length, 1e-300), 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Disentanglement(Result):
    """Disentanglement, completeness, informativeness; ``chance`` is that of factors permuted among the train rows."""

    importance: np.ndarray
    """[feature, factor] |weight| for standardised features and factors."""
    r2: np.ndarray
    """[factor] held-out R^2, whose mean is informativeness."""
    mcc: float
    """Mean |correlation| of each factor with its own feature, matched one to one."""
    mcc_chance: float
    """The same of rows permuted."""
    match: tuple[int, ...]
    """The feature of each factor (-1 for none)."""
    features_used: np.ndarray
    """[factor] features of non-zero weight."""


def dci(
    x: Any,
    factors: Any,
    *,
    probe: Any = None,
    groups: Any = "row",
    seed: int = 0,
    test_fraction: float = 0.3,
) -> Disentanglement:
    """Does each feature stand for one factor (disentanglement), each factor for one feature (completeness), and how
    much of the factors do the features tell (informativeness)?

    Parameters
    ----------
    x, factors
        Features [sample, d] and numbers [sample, factor] (of a class: its 0/1 columns).
    probe
        A linear regressor of all factors; the lasso by default (:class:`MultiTaskProbe` with ``mix=1``).
    groups
        [sample] texts, held out whole; ``"row"`` where rows are independent.

    Notes
    -----
    From importances R = |weight|: a feature's score is 1 - entropy of its row over factors / log(factors), averaged
    with the features' shares of R; completeness likewise over columns. Informativeness: mean held-out R^2.

    References
    ----------
    Eastwood & Williams 2018, A framework for the quantitative evaluation of disentangled representations, section 2;
    Hyvarinen & Morioka 2016 (MCC).
    """
    rows, truth = matrix(x), matrix(factors)
    if len(rows) != len(truth) or truth.shape[1] < 2 or rows.shape[1] < 2:
        raise InputError(
            f"features {list(rows.shape)} and factors {list(truth.shape)}: a row a sample, two or more columns each"
        )
    belongs = np.arange(len(rows)) if isinstance(groups, str) else np.asarray(groups)
    test = split_by_group(belongs, test_fraction=test_fraction, seed=seed)
    for part, name in ((~test, "train"), (test, "held-out")):
        if len(flat := np.flatnonzero(np.ptp(truth[part], axis=0) == 0)):
            raise InputError(f"factor {flat[0]} is the same in all {name} rows")
    mixed = np.random.default_rng([seed, 13]).permutation(int((~test).sum()))
    own, r2, importance = _scores(probe, rows, truth, truth[~test], test)
    other, _, _ = _scores(probe, rows, truth, truth[~test][mixed], test)
    matched = match_neurons(truth, rows, absolute=True)
    return Disentanglement(
        name="DCI", value=own, n=len(rows), chance=other, axes=("score",),
        ticks=(("disentanglement", "completeness", "informativeness"),),
        convention="entropies of |weights|; informativeness: mean held-out R^2; chance: factors of other rows",
        importance=importance, r2=r2, mcc=float(matched.value), mcc_chance=float(np.mean(matched.chance or 0.0)),
        match=tuple(matched.provenance["match"]), features_used=(importance > 0).sum(0),
        provenance={"seed": seed},
    )  # fmt: skip


def _scores(
    probe: Any, rows: np.ndarray, truth: np.ndarray, learn: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.base import clone

    fitted = clone(MultiTaskProbe(mix=1.0) if probe is None else probe).fit(rows[~test], learn)
    importance = np.abs(fitted.coef_).T * rows[~test].std(0)[:, None] / learn.std(0)
    rest = ((truth[test] - fitted.predict(rows[test])) ** 2).sum(0)
    r2 = 1 - rest / ((truth[test] - truth[test].mean(0)) ** 2).sum(0)
    value = np.array([_purity(importance), _purity(importance.T), r2.mean()])
    return value, r2, importance


def _purity(importance: np.ndarray) -> float:
    """1 - entropy of each row in units of its most, averaged with the rows' shares; 0 where all weights are 0."""
    total = importance.sum()
    if not total > 0:
        return 0.0
    rows = importance[importance.sum(1) > 0]
    share = rows / rows.sum(1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1) / np.log(importance.shape[1])
    return float((rows.sum(1) / total) @ (1 - entropy))
