"""Linear probes as scikit-learn estimators: they fit into Pipelines, GridSearchCV and ``cross_val_score``.

Parameters, ``X`` and ``y`` carry no annotations: scikit-learn's own validation decides at ``fit`` what they may be, and
its messages are part of the contract that ``check_estimator`` tests.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["LogisticProbe"]


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression on features standardised with the training set's mean and deviation.

    Minimises (1/n) sum cross-entropy + |W|^2 / (2 C n) over the standardised weights W; the bias is not penalised
    (scikit-learn's objective and C). ``coef_`` and ``intercept_`` are given back in the coordinates of the input, so
    a row of ``coef_`` is a direction at the site that was probed.

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

    Attributes
    ----------
    classes_
        [class]
    coef_, intercept_
        [class, d] and [class] ([1, d] and [1] for two classes), in input coordinates.
    mean_, scale_
        [d] what the features were standardised with.
    converged_
        Whether the solver reached ``tol``.
    """

    def __init__(self, C=0.1, *, max_iter=300, tol=1e-4, standardize=True, class_weight=None) -> None:  # noqa: N803
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.standardize = standardize
        self.class_weight = class_weight

    def fit(self, X, y) -> LogisticProbe:  # noqa: N803
        """Fit on rows ``X`` [sample, d] and labels ``y`` [sample]."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        width = X.shape[1]
        # float64 sums: a residual stream's mean can be hundreds of times its spread
        self.mean_ = X.mean(0, dtype=np.float64) if self.standardize else np.zeros(width)
        scale = X.std(0, dtype=np.float64) if self.standardize else np.ones(width)
        noise = (
            np.finfo(X.dtype).eps * np.maximum(np.abs(self.mean_), 1.0) * 8
        )  # a constant column's rounding
        self.scale_ = np.where(scale > noise, scale, 1.0)
        solver = LogisticRegression(
            C=self.C, max_iter=self.max_iter, tol=self.tol, class_weight=self.class_weight
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            solver.fit((X - self.mean_) / self.scale_, y)
        self.converged_ = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        for warning in caught:
            warnings.warn(warning.message, category=warning.category, stacklevel=2)
        self.classes_ = solver.classes_
        self.n_iter_ = solver.n_iter_
        self.coef_ = solver.coef_ / self.scale_
        self.intercept_ = solver.intercept_ - self.coef_ @ self.mean_
        return self

    def decision_function(self, X) -> np.ndarray:  # noqa: N803
        """Scores [sample, class], or [sample] for two classes (positive: the second class)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        # the same as X @ coef_ + intercept_, without cancelling a large common mean
        scores = (X - self.mean_) @ self.coef_.T + (self.intercept_ + self.coef_ @ self.mean_)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X) -> np.ndarray:  # noqa: N803
        """The likeliest class of each row."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def predict_proba(self, X) -> np.ndarray:  # noqa: N803
        """Probabilities [sample, class]."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)
