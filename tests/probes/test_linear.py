"""LogisticProbe: logistic regression on standardised features, whatever their mean."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from probes import LogisticProbe


def classes(n: int, d: int, c: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    return rng.normal(size=(n, d)) * rng.uniform(0.1, 9, d) + 50 + rng.normal(size=(c, d))[y] * 3, y


@pytest.mark.parametrize("n_classes", [2, 4])
def test_it_is_logistic_regression_on_standardised_features(n_classes: int) -> None:
    x, y = classes(300, 6, n_classes, 0)
    ours = LogisticProbe(C=0.5, tol=1e-8).fit(x, y)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-8)).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    raw = x @ ours.coef_.T + ours.intercept_  # coef_ is a direction in the caller's coordinates
    np.testing.assert_allclose(raw[:, 0] if n_classes == 2 else raw, ours.decision_function(x), atol=1e-6)


def test_a_far_mean_and_a_constant_column_change_nothing() -> None:
    x, y = classes(200, 4, 2, 1)
    plain = LogisticProbe(tol=1e-8).fit(x, y).decision_function(x)
    moved = np.concatenate([x + 3e4, np.full((len(x), 1), 7.0)], axis=1)
    fitted = LogisticProbe(tol=1e-8).fit(moved, y)
    np.testing.assert_allclose(fitted.decision_function(moved), plain, atol=1e-5)
    assert fitted.coef_[0, -1] == pytest.approx(0, abs=1e-12)


def test_it_works_in_a_pipeline_under_a_grid_search() -> None:
    x, y = classes(120, 3, 3, 2)
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(), LogisticProbe()), {"logisticprobe__C": [0.01, 1.0]}, cv=2
    ).fit(x, y)
    assert search.best_score_ > 0.5


def test_a_fit_that_stops_early_says_so() -> None:
    x, y = classes(200, 20, 3, 3)
    with pytest.warns(ConvergenceWarning):
        early = LogisticProbe(C=1e6, max_iter=2).fit(x, y)
    assert early.converged_ is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LogisticProbe().fit(x, y).converged_ is True
