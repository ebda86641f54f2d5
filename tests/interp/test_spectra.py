"""Spectrum, entropy and views: analytic values, the sample-size bias and its cure, what published code computes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.errors import InputError
from interp.metrics import (
    alpha_req,
    dataset_entropy,
    dime,
    effective_rank,
    infonce,
    lidar,
    nesum,
    participation_ratio,
    prompt_entropy,
    rankme,
    renyi_entropy,
    stable_rank,
    vne_regulariser,
    von_neumann_entropy,
)
from interp.moments import Moments
from tests.interp.oracles import metric_data

ORACLES = json.loads((Path(__file__).parent / "oracles" / "metric_values.json").read_text())["values"]


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(eig: Tensor, n: int = 400, seed: int = 0) -> Tensor:
    """Centred rows whose scatter matrix has exactly the eigenvalues ``eig``."""
    frame = torch.cat([torch.ones(n, 1, dtype=torch.float64), gaussian(n, len(eig), seed)], 1)
    basis = torch.linalg.qr(gaussian(len(eig), len(eig), seed + 1))[0]
    return torch.linalg.qr(frame)[0][:, 1:] * eig.sqrt() @ basis


@pytest.mark.parametrize("k", [1, 5, 20])
def test_exactly_white_data_have_every_rank_k(k: int) -> None:
    x = with_spectrum(torch.ones(k, dtype=torch.float64)) @ torch.linalg.qr(gaussian(64, 64, 3))[0][:k]
    for metric in (rankme, effective_rank, participation_ratio, stable_rank, nesum):
        assert metric(x, n_blocks=0).value == pytest.approx(k, rel=1e-9)
    for alpha in (0.5, 1.0, 2.0):
        assert renyi_entropy(x * 1e3, alpha=alpha, n_blocks=0).value <= math.log(k) + 1e-9


@pytest.mark.parametrize("a", [0.5, 1.0, 1.5])
def test_a_power_law_spectrum_gives_its_exponent(a: float) -> None:
    x = with_spectrum(torch.arange(1, 121, dtype=torch.float64) ** -a)
    result = alpha_req(x, n_blocks=0)
    assert result.value == pytest.approx(a, abs=1e-9)
    assert result.provenance["r2"] == pytest.approx(1, abs=1e-9)
    assert (result.provenance["first"], result.provenance["last"]) == (11, 100)


def test_alpha_without_a_tail_to_fit_has_a_reason() -> None:
    assert "none to fit" in str(alpha_req(gaussian(100, 8, 0)).reason)
    assert alpha_req(gaussian(100, 8, 0), first=1).reason is None


def test_spectra_of_moments_are_those_of_the_rows() -> None:
    x = with_spectrum(torch.arange(1, 121, dtype=torch.float64) ** -1.0, n=600) * 30 + 4
    moments = Moments.of(x, products="float64", chunk=256)["x"]
    for metric in (effective_rank, participation_ratio, stable_rank, alpha_req, von_neumann_entropy):
        assert metric(moments).value == pytest.approx(metric(x, n_blocks=0).value, rel=1e-8), metric
    # small singular values lose half their digits in a scatter matrix, and RankMe weighs them most
    assert rankme(moments).value == pytest.approx(rankme(x, n_blocks=0).value, rel=1e-6)
    unbiased = participation_ratio(moments, unbiased=True)
    assert unbiased.value == pytest.approx(participation_ratio(x, unbiased=True).value, rel=1e-9)
    parts = Moments.of(x, products="float64", chunk=256, parts=2)["x"]
    assert effective_rank(parts).stderr is not None


def test_the_unbiased_participation_ratio_is_d_where_the_sample_one_is_n_d_over_n_plus_d() -> None:
    draws = [gaussian(128, 128, s) for s in range(8)]
    assert np.mean([participation_ratio(x, n_blocks=0).value for x in draws]) == pytest.approx(64, rel=0.02)
    fair = np.array([participation_ratio(x, unbiased=True, n_blocks=0).value for x in draws])
    assert abs(fair.mean() - 128) < 4 * fair.std(ddof=1) / 8**0.5 + 0.01 * 128


def test_unbiased_sums_equal_the_average_over_four_distinct_rows() -> None:
    from itertools import permutations

    x = gaussian(6, 3, 0)
    top = bottom = 0.0
    for i, j, k, m in permutations(range(6), 4):
        top += float((x[i] - x[j]).square().sum() * (x[k] - x[m]).square().sum()) / 4
        bottom += float((x[i] - x[j]) @ (x[k] - x[m])) ** 2 / 4
    assert participation_ratio(x, unbiased=True, n_blocks=0).value == pytest.approx(top / bottom, rel=1e-9)


def test_the_published_conventions_are_reproduced_by_name() -> None:
    x = metric_data.decaying()
    assert rankme(x, compat="reptrix", n_blocks=0).value == pytest.approx(ORACLES["reptrix rankme"], abs=1e-6)
    assert alpha_req(x, n_blocks=0).value == pytest.approx(ORACLES["reptrix alpha"], abs=1e-6)
    views = torch.from_numpy(metric_data.views())
    assert lidar(views, compat="reptrix").value == pytest.approx(ORACLES["reptrix lidar"], rel=1e-5)
    p = torch.linalg.svdvals(torch.from_numpy(x))
    p = p / p.sum() + 1e-7
    assert rankme(x, compat="garrido", n_blocks=0).value == pytest.approx(
        float((-p * p.log()).sum().exp()), rel=1e-12
    )
    assert rankme(x, n_blocks=0).value > 1.5 * rankme(x, compat="reptrix", n_blocks=0).value


def test_few_samples_are_said_in_the_log_and_in_the_result(caplog: pytest.LogCaptureFixture) -> None:
    result = effective_rank(gaussian(40, 30, 0))
    assert "below 10 d" in result.caveat
    assert result.n_over_d == pytest.approx(40 / 30)
    from interp.metrics import cka

    cka(gaussian(20, 30, 0), gaussian(20, 30, 1), unbiased=False)
    assert "biased CKA of unrelated data is far above 0" in caplog.text


# -- entropies --------------------------------------------------------------------------------------


def test_matrix_entropy_of_isotropic_and_of_parallel_rows() -> None:
    axes = torch.eye(16, dtype=torch.float64).repeat(3, 1)
    for alpha in (0.5, 1.0, 2.0):
        assert renyi_entropy(axes, alpha=alpha).value == pytest.approx(math.log(16), abs=1e-9)
    parallel = torch.arange(1, 9).double()[:, None] * gaussian(1, 5, 0)
    assert von_neumann_entropy(parallel).value == pytest.approx(0, abs=1e-9)


def test_order_two_is_the_log_of_the_participation_ratio() -> None:
    z = torch.nn.functional.normalize(gaussian(200, 10, 0) * torch.arange(1, 11))
    rho = z.T @ z / 200
    assert renyi_entropy(z, alpha=2).value == pytest.approx(-float(rho.square().sum().log()), rel=1e-10)


def test_token_side_and_feature_side_agree_and_the_published_clamp_does_not() -> None:
    x = gaussian(40, 12, 0) + torch.linspace(-1, 1, 12)
    z = torch.nn.functional.normalize(x)
    eig = torch.linalg.eigvalsh(z @ z.T / 40).clamp_min(0)
    mine = prompt_entropy(x[None]).value
    assert mine == pytest.approx(float(torch.special.entr(eig).sum()), rel=1e-9)
    centred = torch.nn.functional.normalize(x - x.mean(0))
    gram = (centred.T @ centred).clamp_min(0)
    p = torch.linalg.eigvalsh(gram / gram.trace())
    published = float(torch.special.entr(p.clamp_min(0)).sum())
    assert prompt_entropy(x[None], compat="skean").value == pytest.approx(published, rel=1e-9)
    assert prompt_entropy(x[None], compat="skean").value > von_neumann_entropy(x - x.mean(0)).value + 0.01


def test_prompt_entropy_leaves_padding_out_and_is_normalised_on_request() -> None:
    x = gaussian(10, 6, 0).view(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    alone = [prompt_entropy(x[:1]).value, prompt_entropy(x[1:, :3]).value]
    assert prompt_entropy(x, mask).value == pytest.approx(np.mean(alone), rel=1e-12)
    scaled = [alone[0] / math.log(5), alone[1] / math.log(3)]
    assert prompt_entropy(x, mask, normalise="log_n").value == pytest.approx(np.mean(scaled), rel=1e-12)
    pooled = torch.stack([x[0].mean(0), x[1, :3].mean(0)] * 3)
    assert dataset_entropy(x.repeat(3, 1, 1), mask.repeat(3, 1)).value == pytest.approx(
        von_neumann_entropy(pooled).value, rel=1e-9
    )


def test_the_regulariser_is_the_metric_and_moves_it_both_ways() -> None:
    z = gaussian(64, 8, 0) * torch.arange(1, 9)
    assert float(vne_regulariser(z)) == pytest.approx(von_neumann_entropy(z).value, rel=1e-9)
    assert torch.autograd.gradcheck(vne_regulariser, (gaussian(5, 3, 1).requires_grad_(),))
    start = float(vne_regulariser(z))
    for sign in (1, -1):
        moving = z.clone().requires_grad_()
        for _ in range(60):
            (grad,) = torch.autograd.grad(vne_regulariser(moving), moving)
            moving = (moving + sign * 20 * grad).detach().requires_grad_()
        assert sign * (float(vne_regulariser(moving.detach())) - start) > 0.05


# -- views ------------------------------------------------------------------------------------------


def test_lidar_is_the_definition_and_its_ceiling_is_reached_by_spread_classes() -> None:
    x = torch.from_numpy(metric_data.views())
    centre = x.mean(1)
    sb = torch.cov(centre.T, correction=0)
    sw = torch.cov((x - centre[:, None]).flatten(0, 1).T, correction=0) + 1e-4 * torch.eye(8)
    eig = torch.linalg.eigvals(torch.linalg.solve(sw, sb)).real
    p = eig / eig.sum()
    assert lidar(x).value == pytest.approx(float((-p * p.log()).sum().exp()), rel=1e-8)
    spread = 100 * torch.eye(6, dtype=torch.float64)[:, None] + 1e-3 * gaussian(24, 6, 0).view(6, 4, 6)
    assert lidar(spread, delta=1.0).value == pytest.approx(5, rel=1e-3)  # samples - 1


def test_infonce_of_equal_and_of_unrelated_views() -> None:
    x = gaussian(128, 32, 0)
    same, other = infonce(x, x), infonce(x, gaussian(128, 32, 1))
    assert same.value < 0.1
    assert other.value > 0.95 * other.chance
    assert same.provenance["bound"] == pytest.approx(math.log(128) - same.value)


def test_dime_is_nought_for_unrelated_views() -> None:
    x = gaussian(60, 8, 0)
    related, unrelated = dime(x, x + 0.1 * gaussian(60, 8, 1)), dime(x, gaussian(60, 8, 2))
    assert related.value > 10 * abs(unrelated.value)
    assert abs(unrelated.value) < 5 * unrelated.stderr + 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rankme(x, compat="paper"), "compat='paper'"),
        (lambda x: renyi_entropy(x, alpha=0), "alpha = 0"),
        (lambda x: lidar(x[None]), "3 samples and 2 views"),
        (lambda x: prompt_entropy(x[:1, None]), "two real tokens"),
        (lambda x: infonce(x, x, temperature=0), "temperature = 0"),
        (lambda x: participation_ratio(x, unbiased=True, center=False), "center=True"),
        (lambda x: von_neumann_entropy(Moments.of(x, twin=False)["x"]), "twin=True"),
    ],
)
def test_wrong_options_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(gaussian(20, 3, 0))
