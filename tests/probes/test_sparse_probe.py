"""k-sparse probing: planted neurons are found whatever they are picked by, and no label where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LinearRegression

from interp.errors import InputError
from probes import sparse_probe
from probes.picking import RANKINGS, pick

PLANTED = {5, 11, 17}


def planted(n: int = 600, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three neurons hold a label of two classes; neurons of many scales, rows in texts of six."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, d))
    x[:, sorted(PLANTED)] += 1.4 * y[:, None]
    return x * rng.uniform(0.01, 50, d) + 10, y, np.arange(n) // 6


@pytest.mark.parametrize("how", RANKINGS)
def test_the_planted_neurons_are_picked_and_no_others(how: str) -> None:
    x, y, groups = planted()
    x = x[:, :20] if how == "exhaustive" else x
    found = sparse_probe(x, y, ks=[1, 3], how=how, groups=groups, probe="lda", seeds=[0, 1])
    for one in found.neurons[1]:
        assert {*one} == PLANTED
    assert found.value[1] > found.value[0] > 0.7
    assert found.interval[0, 0] > max(found.chance, found.random[0], found.shuffled[0])
    assert found.value[1] == pytest.approx(found.everything, abs=0.05)
    assert found.agreement()[1] == 1.0


def test_a_random_label_is_found_in_no_neuron_although_one_is_always_picked() -> None:
    x, _, groups = planted()
    noise = np.random.default_rng(9).integers(0, 2, len(x))
    found = sparse_probe(x, noise, ks=[1, 4], groups=groups, probe="lda")
    assert (found.interval[:, 0] < 0.5).all()
    assert np.abs(found.value - 0.5).max() < 0.1
    assert found.agreement()[0] < 1.0


def test_neurons_are_picked_on_train_rows_only() -> None:
    # as many neurons as rows, all noise: picked with the tested rows in sight, eight of them separate any label
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 400)), rng.integers(0, 2, 200)
    seen = x[:, pick(x, y, ks=[8], how="mean_difference")[0]]
    leaked = sparse_probe(seen, y, ks=[8], groups="row", probe="lda")
    honest = sparse_probe(x, y, ks=[8], groups="row", probe="lda")
    assert leaked.value[0] > 0.65
    assert honest.value[0] < 0.6


def test_several_classes_each_find_their_neuron() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    x = rng.normal(size=(500, 12))
    x[np.arange(500), 4 + y] += 3
    for how in RANKINGS:
        assert {*pick(x, y, ks=[3], how=how)[0]} == {4, 5, 6}, how


def test_forward_selection_is_scikit_learns_and_exhaustive_beats_it_where_neurons_only_work_together() -> (
    None
):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    common = (
        rng.normal(size=300) * 3
    )  # two neurons share a disturbance: each alone says little, their difference all
    x = rng.normal(size=(300, 7))
    x[:, 1], x[:, 4] = common + 0.6 * y, common - 0.6 * y
    x[:, 6] = y + rng.normal(size=300)
    z = (x - x.mean(0)) / x.std(0)
    greedy = SequentialFeatureSelector(
        LinearRegression(), n_features_to_select=2, scoring="r2", cv=[(np.arange(300),) * 2]
    )
    expected = np.flatnonzero(greedy.fit(z, 2.0 * y - 1).get_support())
    assert sorted(pick(x, y, ks=[2], how="forward")[0]) == expected.tolist()
    assert 6 in expected
    assert sorted(pick(x, y, ks=[2], how="exhaustive")[0]) == [1, 4]


def test_the_ranking_by_information_sees_what_means_do_not() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 800)
    x = rng.normal(size=(800, 6))
    x[:, 3] *= np.where(y == 1, 3.0, 0.3)  # same mean, other spread
    assert pick(x, y, ks=[1], how="mutual_information")[0][0] == 3
    assert pick(x, y, ks=[1], how="mean_difference")[0][0] != 3


def test_what_cannot_be_picked_is_named() -> None:
    x, y, groups = planted(120)
    for options, message in (
        ({"how": "mean_diff"}, "how='mean_diff'; did you mean 'mean_difference'"),
        ({"ks": [25]}, "a number of neurons from 1 to 24"),
        ({"how": "exhaustive", "ks": [8]}, "735471 sets of 8 of 24 neurons are too many"),
    ):
        with pytest.raises(InputError, match=message):
            sparse_probe(x, y, groups=groups, **options)
