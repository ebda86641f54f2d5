"""Contrast-consistent search: truth is found without labels where it is consistent, and nothing where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputError
from probes import ccs
from probes.contrast import objective


def pairs(truth: float, *, noise: float = 0.3, n: int = 400, d: int = 12, seed: int = 0):
    """Rows of a statement said to be true and said to be false: shared content, the added word, and truth along axis 0;
    along axis 1 each half has a loud disturbance of its own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    content = rng.normal(size=(n, d))
    word = rng.normal(size=d) * 5
    sides = []
    for sign in (1, -1):
        x = content + sign * word + noise * rng.normal(size=(n, d))
        x[:, 0] = sign * (2 * y - 1) * truth + 0.3 * rng.normal(size=n)
        x[:, 1] = 4 * rng.normal(size=n)
        sides.append(x + 10)
    return *sides, y


def test_truth_is_found_without_labels_where_the_principal_component_is_led_astray() -> None:
    plus, minus, y = pairs(1.5)
    found = ccs(plus, minus, y)
    assert found.value > 0.97
    assert found.supervised > 0.97
    assert found.pca < 0.65  # the loudest difference is a disturbance, which is not consistent
    assert found.loss < 0.05 < 0.25
    unit = found.vector / np.linalg.norm(found.vector)
    assert unit[0] > 0.8
    assert found.loss == found.losses.min()
    assert found.direction("blocks.0.hook_resid_post").vector[0] > 0


def test_where_truth_is_the_loudest_difference_the_principal_component_finds_it_too() -> None:
    plus, minus, y = pairs(20.0)
    found = ccs(plus, minus, y)
    assert found.pca > 0.97
    assert np.abs(found.pca_vector[0]) > 0.95


def test_nothing_is_found_where_truth_is_not_in_the_rows() -> None:
    plus, minus, y = pairs(0.0)
    found = ccs(plus, minus, y)
    assert found.interval[0] <= max(found.chance, 0.5)
    assert found.value < 0.65
    assert found.supervised < 0.65
    assert abs(found.random.mean() - 0.5) < 0.05


def test_any_consistent_feature_is_found_not_only_truth() -> None:
    plus, minus, y = pairs(0.0)
    other = np.random.default_rng(5).integers(0, 2, len(y))  # says who speaks, and the halves differ in it
    for side, sign in ((plus, 1), (minus, -1)):
        side[:, 2] = sign * (2 * other - 1) * 6.0
    about_truth, about_other = ccs(plus, minus, y), ccs(plus, minus, other)
    assert about_truth.loss == pytest.approx(about_other.loss)
    assert about_other.value > 0.97
    assert about_truth.value < 0.65


def test_the_objective_is_the_published_one_and_does_not_see_the_word_that_was_added() -> None:
    p, q = torch.tensor([0.9, 0.5]), torch.tensor([0.2, 0.5])
    assert float(objective(p, q)) == pytest.approx(((0.1**2 + 0.2**2) + 0.25) / 2)
    plus, minus, y = pairs(1.5)
    moved = ccs(plus + 30, minus - 7, y)
    np.testing.assert_allclose(moved.vector, ccs(plus, minus, y).vector, rtol=1e-4, atol=1e-6)


def test_what_forms_no_pairs_is_named() -> None:
    plus, minus, y = pairs(1.0, n=40)
    with pytest.raises(
        InputError, match=r"positive \[40, 12\], negative \[39, 12\] and 40 labels do not form pairs"
    ):
        ccs(plus, minus[:-1], y)
    with pytest.raises(InputError, match=r"labels are 0 and 1, and both occur; got \[1\]"):
        ccs(plus, minus, np.ones(40, dtype=int))
    with pytest.raises(InputError, match=r"the train pairs hold label \d only"):
        ccs(plus, minus, np.arange(40) // 39, groups=np.arange(40) // 39)
