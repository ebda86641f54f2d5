"""Orders: a planted circle and a planted line are found in any position, a random arrangement is not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from interp.errors import InputError
from interp.metrics import cyclic_order, linear_order


def circle(n: int, d: int = 10, noise: float = 0.2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(n) / n
    plane = np.linalg.qr(rng.normal(size=(d, d)))[0][:2]
    return 3 * np.stack([np.cos(angle), np.sin(angle)], 1) @ plane + noise * rng.normal(size=(n, d)) + 5


@pytest.mark.parametrize("plane", ["top", "round"])
@pytest.mark.parametrize("n", [7, 12])
def test_a_planted_circle_is_found_either_way_round_and_from_any_start(n: int, plane: str) -> None:
    x = circle(n)
    for arranged in (x, x[::-1].copy(), np.roll(x, 3, axis=0)):
        found = cyclic_order(arranged, plane=plane)
        assert found.value > 0.95
        assert found.provenance["p_value"] < 0.01
        assert found.provenance["roundness"] > 0.8


def test_values_out_of_order_and_points_without_a_circle_are_as_good_as_chance() -> None:
    x = circle(7)
    mixed = cyclic_order(x, np.array([0, 3, 5, 1, 4, 2, 6]))
    assert mixed.provenance["p_value"] > 0.1
    p = [cyclic_order(np.random.default_rng(i).normal(size=(7, 10))).provenance["p_value"] for i in range(60)]
    assert np.mean(np.array(p) <= 0.2) < 0.35  # uniform p-values: 0.2 and two standard errors of 60


def test_the_p_value_counts_all_permutations_where_they_are_few() -> None:
    x = torch.tensor(np.random.default_rng(2).normal(size=(5, 3)))
    found = cyclic_order(x)
    assert found.provenance["n_permutations"] == 120
    as_good = sum(cyclic_order(x, np.array(p)).value >= found.value - 1e-9 for p in permutations(range(5)))
    assert found.provenance["p_value"] == pytest.approx(as_good / 120)


def test_a_planted_line_is_found_and_its_score_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    values = np.array([2, 9, 4, 30, 7, 1])
    x = np.log(values)[:, None] * rng.normal(size=(1, 8)) * 3 + 0.1 * rng.normal(size=(6, 8))
    found = linear_order(x, values)
    assert found.value == pytest.approx(1)
    assert found.provenance["p_value"] == pytest.approx(2 / 720)  # itself and its mirror image
    noise = rng.normal(size=(9, 4))
    u = np.linalg.svd(noise - noise.mean(0), full_matrices=False)[0][:, 0]
    assert linear_order(noise).value == pytest.approx(abs(spearmanr(u, np.arange(9))[0]))


def test_what_has_no_order_is_named() -> None:
    with pytest.raises(InputError, match="7 items need as many different values; got 7"):
        cyclic_order(circle(7), np.zeros(7, dtype=int))
    with pytest.raises(InputError, match="fewer than two dimensions"):
        cyclic_order(np.arange(7.0)[:, None])
    with pytest.raises(InputError, match="'top' or 'round'"):
        cyclic_order(circle(7), plane="flat")
