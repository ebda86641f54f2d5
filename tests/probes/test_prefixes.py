"""Nested prefixes: an order that was planted shows, an order that was not shows nothing, and the corner is the fit."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import InputError
from probes import LDAProbe, prefix_curve
from probes.controls import split_by_group


def nested(n: int = 900, d: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first two coordinates hold four classes, quietly among louder ones; groups of five rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    x = rng.normal(size=(n, d)) * np.linspace(1, 4, d)
    x[:, :2] += 3.0 * np.stack([2 * (y % 2) - 1, 2 * (y // 2) - 1], 1)
    return x, y, np.arange(n) // 5


def test_a_planted_order_shows_in_short_prefixes_and_against_both_controls() -> None:
    x, y, groups = nested()
    found = prefix_curve(x, y, sizes=[1, 2, 4, 16], groups=groups, seeds=[0, 1])
    assert found.value[0] == pytest.approx(0.5, abs=0.08)  # one of two bits
    assert found.value[1] > 0.97
    assert found.interval[1, 0] > max(found.shuffled_order[1], found.principal[1]) + 0.2
    assert found.shuffled_order[-1] == pytest.approx(
        found.value[-1], abs=0.01
    )  # all coordinates, in whatever order
    assert len(found.plot().data) >= 4


def test_a_random_label_is_in_no_prefix_and_an_order_without_meaning_is_no_better_than_another() -> None:
    x, y, groups = nested()
    noise = np.random.default_rng(1).integers(0, 2, len(y))
    assert np.abs(prefix_curve(x, noise, groups=groups).value - 0.5).max() < 0.08
    turned = x @ np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))[0]
    found = prefix_curve(turned, y, sizes=[2, 4], groups=groups)
    assert np.abs(found.value - found.shuffled_order).max() < 0.25


def test_a_corner_of_the_scatter_is_the_fit_of_the_prefix() -> None:
    x, y, groups = nested(300)
    x = x.astype(np.float32)
    found = prefix_curve(x, y, sizes=[3], groups=groups, seeds=[4])
    test = split_by_group(groups, test_fraction=0.3, seed=4)
    rows = x[:, :3].astype(np.float64)
    assert found.value[0] == pytest.approx(LDAProbe().fit(rows[~test], y[~test]).score(rows[test], y[test]))


def test_the_adaptive_reader_reads_less_where_it_is_sure_and_all_where_it_never_is() -> None:
    x, y, groups = nested()
    found = prefix_curve(x, y, groups=groups)
    size, right = found.adaptive_size, found.adaptive_accuracy
    assert (np.diff(size) >= 0).all()
    assert size[found.sure.index(0.9)] < 4 < 16
    assert right[found.sure.index(0.9)] > 0.95
    blind = prefix_curve(np.random.default_rng(0).normal(size=x.shape), y, groups=groups)
    assert blind.adaptive_size[-1] == pytest.approx(16)


def test_unusable_prefixes_are_named() -> None:
    x, y, groups = nested(100)
    with pytest.raises(InputError, match="a prefix has 1 to 16 coordinates"):
        prefix_curve(x, y, sizes=[17], groups=groups)
    with pytest.raises(InputError, match="RidgeProbe is no closed form with probabilities"):
        prefix_curve(x, y, probe="ridge", groups=groups)
