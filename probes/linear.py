"""LogisticProbe: logistic regression as a scikit-learn estimator, for Pipelines and GridSearchCV."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from probes.readout import LinearClassifier, standards

__all__ = ["LogisticProbe", "logistic_objective"]

_SOLVERS = ("sklearn", "torch")


class LogisticProbe(LinearClassifier):
    """Multinomial logistic regression on features standardised with the training set's mean and deviation.

    Minimises (1/n) sum cross-entropy + |W|^2 / (2 C n) over the standardised weights W; the bias is not penalised
    (scikit-learn's objective and C). Labels in several 0/1 columns get a logistic regression each. ``coef_`` and
    ``intercept_`` are given back in the coordinates of the input, so a row of ``coef_`` is a direction at the site
    that was probed.

    Parameters
    ----------
    C
        Inverse strength of the penalty. The default is strong on purpose: a probe should find what is easy to read.
    max_iter, tol
        Of the L-BFGS solver. A fit that stops early sets ``converged_`` to False and warns.
    standardize
        Whether to standardise; off, the penalty acts on raw coordinates.
    class_weight
        None or ``"balanced"``, as in scikit-learn.
    solver
        ``"sklearn"``, or ``"torch"``: the same objective by torch's L-BFGS in float64.
    device
        Where the torch solver works.

    Attributes
    ----------
    classes_, coef_, intercept_, mean_, scale_
        See :class:`probes.readout.LinearClassifier`.
    converged_
        Whether the solver reached ``tol``.
    """

    def __init__(
        self,
        C=0.1,  # noqa: N803
        *,
        max_iter=300,
        tol=1e-4,
        standardize=True,
        class_weight=None,
        solver="sklearn",
        device="cpu",
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.standardize = standardize
        self.class_weight = class_weight
        self.solver = solver
        self.device = device

    def fit(self, X, y) -> LogisticProbe:  # noqa: N803
        """Fit on rows ``X`` [sample, d] and labels ``y`` [sample], or 0/1 columns [sample, label]."""
        if self.solver not in _SOLVERS:
            raise ValueError(f"solver={self.solver!r}; it is one of {_SOLVERS}")
        X, columns = self._checked(X, y)
        # float64 sums: a residual stream's mean can be hundreds of times its spread
        mean, deviation = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
        self.mean_, self.scale_ = standards(
            mean, deviation, on=self.standardize, eps=float(np.finfo(X.dtype).eps)
        )
        features = (X - self.mean_) / self.scale_
        tasks = list(columns.T.astype(int)) if self.multilabel_ else [columns.argmax(1)]
        solve = self._by_torch if self.solver == "torch" else self._by_sklearn
        fits = [solve(features, codes) for codes in tasks]
        self.coef_ = np.concatenate([coef for coef, *_ in fits]) / self.scale_
        self.intercept_ = np.concatenate([bias for _, bias, *_ in fits]) - self.coef_ @ self.mean_
        self.n_iter_ = np.array([n_iter for *_, n_iter, _ in fits])
        self.converged_ = all(done for *_, done in fits)
        if not self.converged_:
            warnings.warn(
                f"the fit stopped after {self.n_iter_.max()} iterations before it reached tol={self.tol:g}",
                category=ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _by_sklearn(
        self, features: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int, bool]:
        solver = LogisticRegression(
            C=self.C, max_iter=self.max_iter, tol=self.tol, class_weight=self._weights()
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            solver.fit(features, codes)
        early = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
        for warning in caught:
            if warning not in early:
                warnings.warn(warning.message, category=warning.category, stacklevel=3)
        return solver.coef_, solver.intercept_, int(solver.n_iter_.max()), not early

    def _by_torch(self, features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, bool]:
        from probes.torch_logistic import minimise

        weights = self._weights()
        counts = np.bincount(codes)
        by_class = np.ones(len(counts)) if weights is None else len(codes) / (len(counts) * counts)
        if isinstance(weights, dict):
            by_class = np.array([weights[c] for c in range(len(counts))])
        return minimise(
            features, codes, penalty=1 / self.C, weights=by_class[codes], max_iter=self.max_iter, tol=self.tol,
            device=self.device,
        )  # fmt: skip

    def _weights(self):
        """``class_weight`` by code instead of by class."""
        if not isinstance(self.class_weight, dict):
            return self.class_weight
        return {code: self.class_weight.get(name, 1.0) for code, name in enumerate(self.classes_)}

    def predict_proba(self, X) -> np.ndarray:  # noqa: N803
        """Probabilities [sample, class]."""
        return self._probabilities(X)


def logistic_objective(probe: LogisticProbe, X, y) -> float:  # noqa: N803
    """What a LogisticProbe minimises, in nats: mean cross-entropy + |W|^2 / (2 C n), W the standardised weights."""
    chosen = np.searchsorted(probe.classes_, y)
    likelihood = probe.predict_proba(X)[np.arange(len(chosen)), chosen]
    weights = probe.coef_ * probe.scale_
    return float(-np.log(likelihood).mean() + (weights**2).sum() / (2 * probe.C * len(chosen)))
