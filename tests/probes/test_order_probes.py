"""Order probes: planted circles and lines become probes of held-out rows; an order that is not there does not."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import InputError
from probes import circle_probe, ordinal_probe


def around(
    n: int = 500, period: int = 12, d: int = 16, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, period, n)
    plane = np.linalg.qr(rng.normal(size=(d, d)))[0][:2]
    angle = 2 * np.pi * y / period
    return (
        6 * np.stack([np.cos(angle), np.sin(angle)], 1) @ plane + rng.normal(size=(n, d)),
        y,
        np.arange(n) // 5,
    )


def test_a_planted_circle_reads_held_out_rows_without_having_seen_the_order() -> None:
    x, y, groups = around()
    found = circle_probe(x, y, period=12, groups=groups)
    assert found.value > 0.95
    assert found.p_value < 0.01
    assert found.roundness > 0.8
    assert found.share > 0.9
    assert found.accuracy_interval[0] > found.guessing + 0.2
    assert found.error < 0.6 < 2.5 < found.error_guessing
    assert found.places.shape == (12, 2)


def test_values_that_are_told_apart_but_lie_in_no_order_are_not_a_circle() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 12, 600)
    x = 4 * np.eye(16)[y] + 0.3 * rng.normal(size=(600, 16))  # a simplex: every order is as good
    found = circle_probe(x, y, period=12)
    assert found.p_value > 0.05
    assert found.value < 0.75


def test_a_random_label_has_neither_circle_nor_reading() -> None:
    x, y, _ = around()
    noise = np.random.default_rng(2).permutation(y)
    found = circle_probe(x, noise, period=12)
    assert found.accuracy_interval[0] <= found.guessing + 0.03
    assert found.error > found.error_guessing - 0.4


def test_a_planted_line_is_read_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 6, 400)
    x = rng.normal(size=(400, 9)) + 3 * y[:, None] * np.eye(9)[2]
    found = ordinal_probe(x, y, groups=np.arange(400) // 4)
    assert found.value == pytest.approx(1)
    assert found.p_value == pytest.approx(2 / 720)
    assert found.accuracy > 0.8
    assert found.error < 0.2
    none = ordinal_probe(rng.normal(size=(400, 9)), y)
    assert none.accuracy < 0.3


def test_unusable_values_are_named() -> None:
    x, y, _ = around(80)
    with pytest.raises(InputError, match="has the value 11; with period 7 values end at 6"):
        circle_probe(x[np.argsort(-y)], -np.sort(-y), period=7)
    few = np.where(np.arange(80) == 3, 5, y % 4)
    with pytest.raises(InputError, match="value 5 has no train rows"):
        for seed in range(12):  # the one row of value 5 is held out in some split
            circle_probe(x, few, period=12, seed=seed)
    with pytest.raises(InputError, match=r"values \[0, 1, 2\]: an order of fewer than four"):
        ordinal_probe(x, y % 3)
