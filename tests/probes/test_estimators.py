"""The probes as estimators: scikit-learn's own contract, its objective, and the closed forms that tie them together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import interp
from interp.errors import InputError
from probes import LDAProbe, LogisticProbe, MassMeanProbe, RidgeProbe, RidgeRegressor
from probes.linear import logistic_objective

CLASSIFIERS = (
    LogisticProbe(),
    LogisticProbe(solver="torch"),
    RidgeProbe(),
    LDAProbe(),
    MassMeanProbe(),
    MassMeanProbe(whiten=True),
)


@pytest.mark.filterwarnings("ignore")  # the checks themselves provoke warnings on purpose
@parametrize_with_checks([*CLASSIFIERS, RidgeRegressor()])
def test_scikit_learn_accepts_it(estimator, check) -> None:
    check(estimator)


def classes(n: int, d: int, c: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    mixing = rng.normal(size=(d, d)) * rng.uniform(0.2, 3, d)
    return rng.normal(size=(n, d)) @ mixing + 50 + rng.normal(size=(c, d))[y] * 2, y


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_torch_and_scikit_learn_minimise_one_objective(n_classes: int, weight: str | None) -> None:
    x, y = classes(300, 8, n_classes, 0)
    y[:80] = 0
    fits = [
        LogisticProbe(0.5, tol=1e-8, solver=s, class_weight=weight).fit(x, y) for s in ("sklearn", "torch")
    ]
    np.testing.assert_allclose(fits[0].predict_proba(x), fits[1].predict_proba(x), atol=1e-5)
    if weight is None:
        reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000)
        z = StandardScaler().fit_transform(x)
        proba = reference.fit(z, y).predict_proba(z)[np.arange(len(y)), y]
        best = -np.log(proba).mean() + (reference.coef_**2).sum() / (2 * 0.5 * len(y))
        for fit in fits:
            assert logistic_objective(fit, x, y) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_ridge_is_scikit_learns_ridge_on_standardised_features(n_classes: int) -> None:
    x, y = classes(200, 7, n_classes, 1)
    ours = RidgeProbe(alpha=3.0).fit(x, y)
    theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha=3.0)).fit(x, y)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-9)
    targets = np.stack([y, y**2], 1) + np.random.default_rng(0).normal(size=(200, 2))
    fit = RidgeRegressor(alpha=2.0, standardize=False).fit(x, targets)
    np.testing.assert_allclose(fit.predict(x), Ridge(alpha=2.0).fit(x, targets).predict(x), atol=1e-8)


def test_generalised_cross_validation_is_computed_right() -> None:
    x, _ = classes(60, 7, 2, 4)
    y = x @ np.ones(7) * 0.1 + np.random.default_rng(0).normal(size=60) * 4
    chosen = RidgeRegressor(standardize=False).fit(x, y).alpha_
    xc, yc = x - x.mean(0), y - y.mean()
    grid = (xc**2).sum() / 7 * np.logspace(-6, 3, 37)

    def error(alpha: float) -> float:
        hat = xc @ np.linalg.solve(xc.T @ xc + alpha * np.eye(7), xc.T)
        return ((yc - hat @ yc) ** 2).sum() / (60 - 1 - np.trace(hat)) ** 2

    assert chosen == pytest.approx(grid[np.argmin([error(a) for a in grid])])


def test_two_class_lda_has_the_ridge_direction_at_the_same_penalty() -> None:
    x, y = classes(150, 9, 2, 2)
    for alpha in (0.0, 5.0, 500.0):
        lda, ridge = (kind(alpha=alpha).fit(x, y) for kind in (LDAProbe, RidgeProbe))
        assert cosine(lda.coef_, ridge.coef_) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_lda_is_scikit_learns_and_whitened_mass_mean_is_lda(n_classes: int) -> None:
    x, y = classes(200, 6, n_classes, 3)
    ours = LDAProbe(alpha=0.0).fit(x, y)
    theirs = LinearDiscriminantAnalysis().fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-8)
    mass, uniform = MassMeanProbe(whiten=True).fit(x, y), LDAProbe(alpha=0.0, priors="uniform").fit(x, y)
    np.testing.assert_allclose(mass.decision_function(x), uniform.decision_function(x), rtol=1e-7, atol=1e-7)


def test_the_mass_mean_direction_is_the_difference_of_means_and_its_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40_000)
    x = rng.normal(size=(40_000, 3)) * [1, 5, 0.2] + y[:, None] * [1.0, 2.0, 0.0]
    probe = MassMeanProbe().fit(x, y)
    assert cosine(probe.coef_, x[y == 1].mean(0) - x[y == 0].mean(0)) == pytest.approx(1, abs=1e-12)
    p = probe.predict_proba(x)[:, 1]
    for low in (0.2, 0.4, 0.6):  # a bin of about 4000 rows: a standard error below 0.01
        inside = (p > low) & (p < low + 0.2)
        assert y[inside].mean() == pytest.approx(p[inside].mean(), abs=0.03)


@pytest.mark.parametrize("probe", CLASSIFIERS, ids=repr)
def test_several_labels_at_once_are_the_single_ones_side_by_side(probe) -> None:
    x, y = classes(160, 5, 4, 5)
    columns = np.stack([y == 1, y >= 2, y % 2 == 0], 1).astype(int)
    options = {} if isinstance(probe, LogisticProbe | MassMeanProbe) else {"alpha": 1.0}
    both = probe.set_params(**options).fit(x, columns)
    for k in range(3):
        alone = type(probe)(**probe.get_params()).fit(x, columns[:, k])
        np.testing.assert_allclose(both.decision_function(x)[:, k], alone.decision_function(x), atol=1e-6)


def test_closed_forms_from_moments_are_those_from_rows() -> None:
    x, y = classes(3000, 6, 3, 6)
    z = np.stack([y, y**2], 1).astype(float)
    moments = interp.Moments.of({"x": x, "z": z}, labels=y, cross=[("x", "z")], products="float64")
    for kind in (RidgeProbe, LDAProbe, MassMeanProbe):
        rows, stream = kind().fit(x, y), kind.from_moments(moments["x"])
        np.testing.assert_allclose(
            stream.decision_function(x), rows.decision_function(x), rtol=1e-6, atol=1e-8
        )
        np.testing.assert_array_equal(stream.predict(x[:20]), rows.predict(x[:20]))
    rows, stream = RidgeRegressor().fit(x, z), RidgeRegressor.from_moments(moments["x"], moments["z"])
    np.testing.assert_allclose(stream.predict(x), rows.predict(x), atol=1e-8)


def test_moments_without_labels_are_refused_by_name() -> None:
    x = torch.randn(20, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="kept no classes"):
        LDAProbe.from_moments(interp.Moments.of(x)["x"])
    some = torch.arange(20) % 3 - 1
    with pytest.raises(InputError, match="7 of the 20 rows of these moments have no label"):
        LDAProbe.from_moments(interp.Moments.of(x, labels=some)["x"])


@pytest.mark.parametrize("name", ["ridgeprobe__alpha", "ldaprobe__alpha"])
def test_they_work_in_a_pipeline_under_a_grid_search(name: str) -> None:
    x, y = classes(120, 4, 3, 7)
    probe = RidgeProbe() if name.startswith("ridge") else LDAProbe()
    search = GridSearchCV(make_pipeline(StandardScaler(), probe), {name: [0.1, "gcv"]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.5


def test_labels_that_no_probe_can_use_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(ValueError, match=r"one class only \(1\)"):
        LDAProbe().fit(x, np.ones(30, dtype=int))
    with pytest.raises(ValueError, match="label column 1 has one class only"):
        RidgeProbe().fit(x, np.stack([np.arange(30) % 2, np.zeros(30, dtype=int)], 1))
    with pytest.raises(ValueError, match="it is a number or 'gcv'"):
        RidgeProbe(alpha="best").fit(x, np.arange(30) % 2)
    with pytest.raises(ValueError, match="it is 'empirical' or 'uniform'"):
        LDAProbe(priors="mine").fit(x, np.arange(30) % 2)


def test_a_closed_form_probe_of_constant_rows_says_the_commonest_class() -> None:
    """A token that every text has in one place: no variance, and no division by next to nothing."""
    x, y = np.full((60, 5), 0.5), np.arange(60) % 3 // 2  # class 0 twice as often
    for probe in (LDAProbe(), RidgeProbe()):
        assert (probe.fit(x, y).predict(x) == 0).all()
