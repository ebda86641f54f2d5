"""Sparse predictors of several factors: scikit-learn's solutions; planted factors told apart, mixtures of them not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Lasso, MultiTaskLasso
from sklearn.utils.estimator_checks import parametrize_with_checks

from interp.errors import InputError
from probes import MultiTaskProbe, RidgeRegressor, dci, direction


@pytest.mark.filterwarnings("ignore")  # the checks themselves provoke warnings on purpose
@parametrize_with_checks([MultiTaskProbe()])
def test_scikit_learn_accepts_it(estimator, check) -> None:
    check(estimator)


def factors(n: int = 800, k: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k)) * [1, 10, 0.1, 3]


def test_it_is_scikit_learns_group_lasso_and_lasso() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 9)) @ rng.normal(size=(9, 9)) + 4
    y = x[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(size=(200, 3))
    z, t = ((a - a.mean(0)) / a.std(0) for a in (x, y))
    group = MultiTaskLasso(alpha=0.1, tol=1e-12, max_iter=10_000, fit_intercept=False).fit(z, t)
    np.testing.assert_allclose(
        MultiTaskProbe(0.1, tol=1e-12, max_iter=20_000).fit(x, y).weights_, group.coef_, atol=1e-6
    )
    lasso = Lasso(alpha=0.1, tol=1e-12, max_iter=10_000, fit_intercept=False).fit(z, t)
    ours = MultiTaskProbe(0.1, mix=1.0, tol=1e-12, max_iter=20_000).fit(x, y)
    np.testing.assert_allclose(ours.weights_, lasso.coef_, atol=1e-6)
    assert ours.converged_
    np.testing.assert_allclose(ours.predict(x), (z @ lasso.coef_.T) * y.std(0) + y.mean(0), atol=1e-5)


def test_a_group_penalty_drops_whole_features_where_the_lasso_drops_weights() -> None:
    x, rng = factors(k=4), np.random.default_rng(1)
    x = np.concatenate([x, rng.normal(size=(len(x), 6))], 1)
    y = np.stack([x[:, 0] + x[:, 2] * 10, x[:, 0], x[:, 2]], 1)
    shared = np.abs(MultiTaskProbe(0.2).fit(x, y).weights_) > 0
    own = np.abs(MultiTaskProbe(0.2, mix=1.0).fit(x, y).weights_) > 0
    assert np.flatnonzero(shared.any(0)).tolist() == np.flatnonzero(own.any(0)).tolist() == [0, 2]
    assert shared[:, [0, 2]].all()
    assert own[:, [0, 2]].tolist() == [[True, True], [True, False], [False, True]]


def test_permuted_and_scaled_factors_are_disentangled_to_the_last() -> None:
    truth, rng = factors(), np.random.default_rng(1)
    order = rng.permutation(4)
    features = truth[:, order] * [-3, 0.2, 7, 1] + 5
    found = dci(features, truth)
    assert found.mcc == pytest.approx(1)
    assert [order[m] for m in found.match] == [0, 1, 2, 3]
    assert found.value[:2] == pytest.approx([1, 1], abs=0.02)
    assert found.value[2] > 0.99
    assert found.chance[2] < 0.05
    assert found.mcc_chance < 0.2
    assert found.features_used.tolist() == [1, 1, 1, 1]


def test_turned_factors_are_as_informative_and_not_disentangled() -> None:
    truth, rng = factors(), np.random.default_rng(1)
    turned = (truth / truth.std(0)) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    found = dci(turned, truth)
    assert found.value[2] > 0.95
    assert found.value[0] < 0.6
    assert found.value[1] < 0.6
    assert found.mcc < 0.9


def test_a_factor_written_twice_is_disentangled_but_not_complete() -> None:
    truth = factors()
    noise = np.random.default_rng(2).normal(size=truth.shape)
    found = dci(
        np.concatenate([truth, truth + 0.1 * truth.std(0) * noise], 1),
        truth,
        probe=RidgeRegressor(alpha=50.0),
    )
    assert found.value[0] > 0.75 > found.value[1]


def test_features_of_something_else_tell_nothing() -> None:
    found = dci(np.random.default_rng(5).normal(size=(800, 6)), factors())
    assert found.value[2] < 0.02
    assert found.mcc < 0.15


def test_a_regressor_is_a_direction_upwards_too() -> None:
    truth = factors()
    for probe in (RidgeRegressor(), MultiTaskProbe()):
        probe.fit(truth, truth[:, [1, 3]])
        along = direction(probe, "blocks.0.hook_resid_post", of=1)
        unit = along.vector.numpy() / np.linalg.norm(along.vector.numpy())
        assert unit[3] > 0.99
        np.testing.assert_allclose(along.origin.numpy(), truth.mean(0))
        with pytest.raises(InputError, match="predicts 2 numbers; say of which"):
            direction(probe, "blocks.0.hook_resid_post")
        with pytest.raises(InputError, match="knows no target 5"):
            direction(probe, "blocks.0.hook_resid_post", of=5)
    single = direction(RidgeRegressor().fit(truth, truth[:, 0]), "blocks.0.hook_resid_post")
    assert single.vector.numpy().argmax() == 0


def test_unusable_factors_are_named() -> None:
    truth = factors(50)
    truth[:, 1] = 2.0
    with pytest.raises(InputError, match="factor 1 is the same in all train rows"):
        dci(factors(50), truth)
    with pytest.raises(InputError, match=r"features \[50, 4\] and factors \[50, 1\]"):
        dci(factors(50), truth[:, :1])
    with pytest.raises(ValueError, match="mix lies in 0 to 1"):
        MultiTaskProbe(mix=2).fit(factors(50), truth)
