"""What every linear classifier here shares: labels checked and coded, scores, probabilities, a direction to take away.

Parameters, ``X`` and ``y`` carry no annotations: scikit-learn's own validation decides at ``fit`` what they may be, and
its messages are part of the contract that its estimator checks test.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

__all__ = ["LinearClassifier", "softmax", "standards"]


class LinearClassifier(ClassifierMixin, BaseEstimator):
    """Scores linear in the features: labels [sample] of any number of classes, or 0/1 columns [sample, label].

    Attributes
    ----------
    classes_
        [class]; the columns' numbers for several labels at once.
    coef_, intercept_
        [class, d] and [class], in input coordinates ([1, d] and [1] for two classes), so that a row of ``coef_`` is
        a direction at the site that was probed.
    mean_, scale_
        [d] what the features were standardised with (zeros and ones without).
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _checked(self, X, y) -> tuple[np.ndarray, np.ndarray]:  # noqa: N803
        """The rows, and the labels as 0/1 columns [sample, class]; sets ``classes_`` and ``multilabel_``."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True)
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError(f"several labels at once are columns of 0 and 1; y holds {np.unique(y)[:5]}")
        self.multilabel_ = kind == "multilabel-indicator"
        if self.multilabel_:
            columns = np.asarray(y, dtype=np.float64)
            self.classes_ = np.arange(columns.shape[1])
            flat = np.flatnonzero((columns == columns[0]).all(0))
            if len(flat):
                raise ValueError(f"label column {flat[0]} has one class only ({columns[0, flat[0]]:g})")
            return X, columns
        self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class only ({self.classes_[0]}); a probe needs at least two classes"
            )
        return X, (codes[:, None] == np.arange(len(self.classes_))).astype(np.float64)

    def decision_function(self, X) -> np.ndarray:  # noqa: N803
        """Scores [sample, class], or [sample] for two classes (positive: the second class)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        # the same as X @ coef_ + intercept_, without cancelling a large common mean
        scores = (X - self.mean_) @ self.coef_.T + (self.intercept_ + self.coef_ @ self.mean_)
        return scores[:, 0] if not self.multilabel_ and len(self.classes_) == 2 else scores

    def predict(self, X) -> np.ndarray:  # noqa: N803
        """The likeliest class of each row, or 0/1 columns for several labels at once."""
        scores = self.decision_function(X)
        if self.multilabel_:
            return (scores > 0).astype(int)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def _probabilities(self, X) -> np.ndarray:  # noqa: N803
        scores = self.decision_function(X)
        if self.multilabel_:
            return softmax(np.stack([np.zeros_like(scores), scores], -1))[..., 1]
        return softmax(np.stack([np.zeros_like(scores), scores], 1) if scores.ndim == 1 else scores)

    def _place(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Keep weights [class, d] on rows from which ``mean_`` was taken; of two classes only the difference."""
        if not self.multilabel_ and len(coef) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_ = coef, intercept - coef @ self.mean_


def standards(
    mean: np.ndarray, deviation: np.ndarray, *, on: bool, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract and divide by; a column whose spread is the rounding of its mean is left as it is."""
    if not on:
        return np.zeros_like(mean), np.ones_like(mean)
    return mean, np.where(deviation > eps * np.maximum(np.abs(mean), 1.0) * 8, deviation, 1.0)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)
