"""Similarity and rank: closed forms, brute force, invariances, and what unrelated data give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.errors import InputError
from interp.metrics import (
    cka,
    cka_matrix,
    cknna,
    co_clusters,
    effective_rank,
    find_circle,
    linear_predictivity,
    participation_ratio,
    rankme,
)
from interp.metrics.rows import blocks_of


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed))[0]


def gram_cka(x: Tensor, y: Tensor, *, unbiased: bool) -> float:
    """The n x n definition: Kornblith et al. 2019 eq. 4, or HSIC_1 of Song et al. 2012 eq. 5."""
    x, y = x - x.mean(0), y - y.mean(0)
    n = len(x)

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        if not unbiased:
            return (k * m).sum()
        k, m = (a - torch.diag(a.diagonal()) for a in (k, m))
        ones = torch.ones(n, dtype=k.dtype)
        return (
            (k @ m).trace()
            + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (ones @ k @ m @ ones)
        ) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_equals_the_gram_matrix_definition(unbiased: bool) -> None:
    x = gaussian(60, 7, 0)
    y = torch.relu(x @ gaussian(7, 11, 1)) + 5
    # float64 products of order-1 rows over 60 samples: rounding is far below 1e-10
    assert cka(x, y, unbiased=unbiased).value == pytest.approx(gram_cka(x, y, unbiased=unbiased), abs=1e-10)


@settings(max_examples=20)
@given(st.integers(6, 30), st.integers(1, 8), st.integers(1, 8), st.integers(0, 10**6), st.booleans())
def test_cka_equals_the_gram_matrix_definition_at_any_shape(
    n: int, d: int, e: int, seed: int, unbiased: bool
) -> None:
    x, y = gaussian(n, d, seed), gaussian(n, e, seed + 1)
    expected = gram_cka(x, y, unbiased=unbiased)
    result = cka(x, y, unbiased=unbiased)
    if result.reason is None:
        # tiny n makes the debiased denominator small, which multiplies rounding
        assert result.value == pytest.approx(expected, rel=1e-6, abs=1e-8)
    else:
        assert math.isnan(result.value)


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_sees_no_rotation_scale_or_shift(unbiased: bool) -> None:
    x = gaussian(200, 12, 0)
    assert cka(x, 3 * x @ rotation(12, 1) + 40, unbiased=unbiased).value == pytest.approx(1, abs=1e-10)
    stretched = cka(x, x @ gaussian(12, 12, 2), unbiased=unbiased).value
    assert stretched < 0.9  # it does see a general linear map


def test_debiased_cka_of_unrelated_data_is_nought_where_the_biased_is_not() -> None:
    pairs = [(gaussian(120, 60, 2 * s), gaussian(120, 60, 2 * s + 1)) for s in range(6)]
    fair = np.array([cka(x, y).value for x, y in pairs])
    biased = [cka(x, y, unbiased=False) for x, y in pairs]
    assert abs(fair.mean()) < 3 * fair.std(ddof=1) / len(fair) ** 0.5 + 1e-3
    assert (fair < 0).any()  # negative values are legitimate and kept
    # d / (n + d) = 1/3 to first order
    assert np.mean([r.value for r in biased]) == pytest.approx(1 / 3, abs=0.02)
    assert biased[0].chance == pytest.approx(1 / 3)


@pytest.mark.parametrize("norm", [300.0, 3000.0])
def test_a_large_common_mean_in_float32_does_not_drown_cka(norm: float) -> None:
    x, noise = gaussian(400, 16, 0), gaussian(400, 16, 1)
    y = x @ gaussian(16, 16, 2) * 0.3 + noise
    truth = cka(x, y).value
    offset = torch.full((16,), norm / 4)
    # float32 itself rounds rows of norm 3000 to 2e-4, which is the error that remains
    assert cka((x + offset).float(), (y + offset).float()).value == pytest.approx(truth, abs=1e-4)


def test_the_jackknife_error_is_that_of_repeated_draws() -> None:
    mix = gaussian(6, 6, 99)
    draws = []
    for seed in range(25):
        x = gaussian(300, 6, seed)
        draws.append(cka(x, x @ mix + gaussian(300, 6, 1000 + seed)))
    spread = np.std([r.value for r in draws], ddof=1)
    # 25 draws know a standard deviation to about 14%, the jackknife over 16 blocks to about 18% each
    assert np.mean([r.stderr for r in draws]) == pytest.approx(spread, rel=0.4)


def test_duplicated_rows_in_one_group_widen_the_error() -> None:
    x = gaussian(40, 5, 0)
    y = x + gaussian(40, 5, 1)
    groups = torch.arange(40).repeat_interleave(8)
    tall = [a.repeat_interleave(8, dim=0) for a in (x, y)]
    # eight copies of a row carry the information of one
    assert cka(*tall, groups=groups).stderr > 1.8 * cka(*tall, groups=torch.arange(320)).stderr


def test_a_matrix_of_sites_holds_the_pairwise_values() -> None:
    acts = {"a": gaussian(80, 4, 0), "b": gaussian(80, 6, 1)}
    acts["c"] = acts["a"] @ rotation(4, 3)
    result = cka_matrix(acts)
    value = np.asarray(result.value)
    assert value[0, 1] == pytest.approx(cka(acts["a"], acts["b"]).value, abs=1e-12)
    assert value[0, 2] == pytest.approx(1, abs=1e-10)
    np.testing.assert_array_equal(value, value.T)
    np.testing.assert_allclose(np.diagonal(value), 1, atol=1e-12)
    assert np.asarray(result.stderr)[0, 1] == pytest.approx(cka(acts["a"], acts["b"]).stderr, rel=1e-6)


def test_constant_rows_give_a_reason_and_not_a_bare_nan() -> None:
    result = cka(torch.full((20, 3), 1e4), gaussian(20, 3, 0))
    assert math.isnan(result.value)
    assert "constant" in str(result.reason)
    matrix = cka_matrix({"flat": torch.ones(20, 3), "x": gaussian(20, 3, 0), "y": gaussian(20, 3, 1)})
    assert np.isnan(np.asarray(matrix.value)[0]).all()
    assert np.isfinite(np.asarray(matrix.value)[1, 2])
    assert "flat" in str(matrix.reason)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(6, 2), "x has 5 samples and y has 6"),
        (torch.zeros(3, 2), torch.zeros(3, 2), "at least 4 samples"),
        (torch.zeros(5, 2, 2), torch.zeros(5, 2), r"must be a matrix \[sample, d\]"),
        (
            torch.zeros(5, 2),
            torch.tensor([[0.0], [1.0], [math.nan], [2.0], [math.inf]]),
            "in 2 of 5 rows, the first of them row 2",
        ),
    ],
)
def test_cka_names_what_is_wrong_with_its_input(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cka(x, y)


def test_numpy_rows_and_half_precision_are_read() -> None:
    x = gaussian(50, 4, 0)
    assert cka(x.numpy(), x.half()).value == pytest.approx(1, abs=1e-4)  # half rounds to 5e-4


@pytest.mark.parametrize("k", [1, 5, 20])
def test_white_data_of_k_dimensions_have_rank_k(k: int) -> None:
    frame = torch.linalg.qr(gaussian(500, k, 0) - gaussian(500, k, 0).mean(0))[0]
    x = (frame - frame.mean(0)) @ rotation(64, 1)[:k]
    x = torch.linalg.qr(x)[0][:, :k] @ rotation(64, 1)[:k] if k == 1 else x
    for result in (effective_rank(x), effective_rank(x, on="singular"), rankme(x), participation_ratio(x)):
        assert result.value == pytest.approx(k, rel=2e-2 if k > 1 else 1e-9)


def test_ranks_equal_their_formulas_on_a_given_spectrum() -> None:
    s = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    frame = torch.linalg.qr(torch.cat([torch.ones(40, 1, dtype=torch.float64), gaussian(40, 4, 0)], 1))[0][
        :, 1:
    ]
    x = frame * s  # columns orthonormal and orthogonal to the constant: singular values s exactly, mean 0
    p, q = s / s.sum(), s**2 / (s**2).sum()
    assert effective_rank(x).value == pytest.approx(float((-q * q.log()).sum().exp()), rel=1e-12)
    assert rankme(x).value == pytest.approx(float((-p * p.log()).sum().exp()), rel=1e-12)
    assert participation_ratio(x).value == pytest.approx(float((s**2).sum() ** 2 / (s**4).sum()), rel=1e-12)


def test_rankme_and_effective_rank_are_two_numbers_on_a_decaying_spectrum() -> None:
    x = gaussian(4000, 100, 0) * torch.arange(1, 101).double() ** -0.5
    assert rankme(x).value > 1.5 * effective_rank(x).value


def test_a_common_mean_counts_only_where_it_is_not_taken_away() -> None:
    x = gaussian(2000, 32, 0)
    assert effective_rank(x + 50).value == pytest.approx(effective_rank(x).value, rel=1e-9)
    assert rankme(x + 50).value < 0.6 * rankme(x).value
    assert rankme(x + 50, center=True).value == pytest.approx(rankme(x, center=True).value, rel=1e-9)


def test_isotropic_data_reach_their_own_ceiling_and_the_known_bias() -> None:
    result = participation_ratio(gaussian(256, 256, 3))
    assert result.value == pytest.approx(128, rel=0.02)  # n d / (n + d)
    assert result.chance == pytest.approx(result.value, rel=0.02)
    assert "below 10 d" in result.provenance["caveat"]
    assert participation_ratio(gaussian(500, 4, 0)).provenance["caveat"] == ""


def test_the_rank_error_is_that_of_repeated_draws() -> None:
    draws = [participation_ratio(gaussian(400, 8, s) * torch.arange(1, 9)) for s in range(30)]
    spread = np.std([r.value for r in draws], ddof=1)
    assert np.mean([r.stderr for r in draws]) == pytest.approx(spread, rel=0.4)


def test_rank_of_equal_rows_has_a_reason() -> None:
    result = effective_rank(torch.full((10, 3), 7.0))
    assert math.isnan(result.value)
    assert "every row is the same" in str(result.reason)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=20), st.integers(2, 8))
def test_blocks_hold_every_row_once_and_no_group_is_split(sizes: list[int], n_blocks: int) -> None:
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    blocks = blocks_of(len(groups), n_blocks, groups)
    assert sorted(torch.cat(blocks).tolist()) == list(range(len(groups)))
    owners = [set(groups[b].tolist()) for b in blocks]
    assert sum(len(o) for o in owners) == len(sizes)


@pytest.mark.parametrize(("n", "groups"), [(4, None), (100, [0] * 97 + [1] * 3)])
def test_samples_too_few_to_leave_any_out_give_a_value_without_an_error(
    n: int, groups: list[int] | None
) -> None:
    x, y = gaussian(n, 3, 0), gaussian(n, 3, 1)
    for result in (
        cknna(x, y, k=2, groups=groups),
        co_clusters(x, y, n_clusters=2, groups=groups),
        linear_predictivity(x, y, in_sample=True, groups=groups),
        find_circle(x, groups=groups),
    ):
        assert np.isfinite(result.value)
        assert result.stderr is None
        assert "too few" in result.no_stderr
    enough = cknna(gaussian(40, 3, 0), gaussian(40, 3, 1), k=5)
    assert enough.stderr is not None
    assert enough.stderr > 0
