"""Geometry, dimension, collapse and structure: closed forms, planted shapes, and their negative controls."""

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
    class_distance_variance,
    curvature,
    feature_variance_share,
    find_circle,
    fourier_concentration,
    intra_sentence_similarity,
    max_explainable_variance,
    mean_cosine,
    mixture_index,
    mle_dimension,
    neural_collapse,
    parallelogram_rqi,
    self_similarity,
    separability,
    token_homogeneity,
    two_nn,
)
from interp.moments import Moments
from tests.interp.oracles import metric_data

ORACLES = json.loads((Path(__file__).parent / "oracles" / "metric_values.json").read_text())["values"]


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- paths ------------------------------------------------------------------------------------------


def test_curvature_of_a_line_a_circle_a_walk_and_of_independent_points() -> None:
    line = torch.arange(20).double()[:, None] * gaussian(1, 5, 0)
    assert curvature(line).value == pytest.approx(0, abs=1e-6)
    angle = torch.arange(37).double() * (2 * torch.pi / 36)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    assert curvature(circle).value == pytest.approx(10, abs=1e-9)
    steps = gaussian(400, 256, 1)
    assert curvature(steps.cumsum(0)).value == pytest.approx(90, abs=1)
    assert curvature(steps).value == pytest.approx(120, abs=1)
    assert curvature(steps, compat="skean").value == pytest.approx(90, abs=1)  # states, not differences
    assert curvature(torch.ones(1, 6, 3)).reason is not None


def test_curvature_leaves_padding_out() -> None:
    x = gaussian(24, 4, 0).view(2, 12, 4)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 5:] = False
    expected = (curvature(x[0]).value + curvature(x[1, :5]).value) / 2
    assert curvature(x, mask).value == pytest.approx(expected)


# -- cones ------------------------------------------------------------------------------------------


def test_mean_cosine_is_the_average_over_all_pairs() -> None:
    x = gaussian(30, 6, 0) + 1
    z = torch.nn.functional.normalize(x)
    off = (z @ z.T)[~torch.eye(30, dtype=torch.bool)].mean()
    assert mean_cosine(x).value == pytest.approx(float(off), abs=1e-12)
    moments = Moments.of(x, products="float64")["x"]
    assert mean_cosine(moments).value == pytest.approx(float(off), abs=1e-10)
    isotropic = mean_cosine(gaussian(2000, 20, 1))
    assert abs(isotropic.value) < 3 * isotropic.stderr + 1e-3


def test_one_rogue_dimension_makes_the_cone_and_dropping_it_unmakes_it() -> None:
    x = gaussian(500, 30, 0)
    x[:, 7] += 20
    assert mean_cosine(x).value > 0.9
    dropped = mean_cosine(x, drop_top=1)
    assert dropped.provenance["dropped"] == [7]
    assert abs(dropped.value) < 0.02


def test_static_words_are_self_similar_and_shuffled_words_are_not() -> None:
    words = torch.arange(300) % 20
    static = gaussian(20, 16, 0)[words] * (1 + torch.rand(300, 1, generator=torch.Generator().manual_seed(1)))
    assert self_similarity(static, words).value == pytest.approx(1, abs=1e-12)
    assert max_explainable_variance(static, words).value == pytest.approx(1, abs=1e-12)
    contextual = gaussian(300, 16, 2)
    result, mev = self_similarity(contextual, words), max_explainable_variance(contextual, words)
    assert abs(result.provenance["adjusted"]) < 4 * result.stderr
    assert abs(mev.provenance["adjusted"]) < 4 * mev.stderr
    assert result.provenance["adjusted"] == pytest.approx(result.value - mean_cosine(contextual).value)
    with pytest.raises(InputError, match="no word occurs 2 times"):
        self_similarity(contextual, torch.arange(300))


def test_sentences_of_one_direction_agree_with_their_mean() -> None:
    x = gaussian(8, 12, 0)[:, None] * torch.rand(8, 5, 1, generator=torch.Generator().manual_seed(1)).double()
    assert intra_sentence_similarity(x).value == pytest.approx(1, abs=1e-12)
    homogeneous = token_homogeneity({"a": x, "b": gaussian(40, 12, 2).view(8, 5, 12)})
    assert np.asarray(homogeneous.value)[0] == pytest.approx(1, abs=1e-12)
    assert abs(np.asarray(homogeneous.value)[1]) < 0.1
    z = torch.nn.functional.normalize(x.flatten(0, 1)).view(8, 5, 12)
    across = torch.einsum("aid,bjd->abij", z, z)[~torch.eye(8, dtype=torch.bool)].mean()
    assert np.asarray(homogeneous.chance)[0] == pytest.approx(float(across), abs=1e-12)


# -- dimension --------------------------------------------------------------------------------------


def test_intrinsic_dimensions_are_those_of_the_library() -> None:
    assert two_nn(metric_data.cloud(2)).value == pytest.approx(ORACLES["skdim twonn 2"], rel=1e-6)
    assert two_nn(metric_data.cloud(8)).value == pytest.approx(ORACLES["skdim twonn 8"], rel=1e-6)
    assert mle_dimension(metric_data.cloud(2)).value == pytest.approx(ORACLES["skdim mle 2"], rel=1e-6)
    assert mle_dimension(metric_data.cloud(8)).value == pytest.approx(ORACLES["skdim mle 8"], rel=1e-6)


def test_dimension_is_that_of_the_manifold_and_duplicates_are_dropped_and_counted() -> None:
    x = torch.from_numpy(metric_data.cloud(3))
    doubled = two_nn(torch.cat([x, x[:100]]))
    assert doubled.provenance["duplicates"] == 100
    for value in (doubled.value, two_nn(x, method="ml").value, mle_dimension(x, average="mean").value):
        assert value == pytest.approx(3, rel=0.12)  # 3 / sqrt(n) is 2%, the estimators' bias more
    with pytest.raises(InputError, match="distinct points"):
        two_nn(torch.ones(20, 2))


# -- collapse ---------------------------------------------------------------------------------------


def simplex(c: int, d: int) -> Tensor:
    """The c corners of a regular simplex about 0, turned into d dimensions."""
    corners = torch.eye(c, dtype=torch.float64) - 1 / c
    return corners @ torch.linalg.qr(gaussian(d, d, 0))[0][:c]


def test_classes_at_the_corners_of_a_simplex_have_collapsed() -> None:
    labels = torch.arange(60) % 4
    means = simplex(4, 9)
    result = neural_collapse(
        means[labels] + 3, labels, weight=2 * means, bias=-2 * means @ torch.full((9,), 3.0).double()
    )
    assert result.ticks[0] == ("NC1", "NC1 ratio", "NC2", "NC2 norms", "NC3", "NC4")
    np.testing.assert_allclose(np.asarray(result.value), 0, atol=1e-7)
    assert class_distance_variance(means[labels], labels).value == pytest.approx(0, abs=1e-12)


def test_collapse_measures_equal_their_definitions_from_rows_and_from_moments() -> None:
    labels = torch.arange(90) % 3
    x = gaussian(3, 5, 1)[labels] * 2 + gaussian(90, 5, 2)
    means = torch.stack([x[labels == c].mean(0) for c in range(3)])
    within = sum((x[labels == c] - means[c]).T @ (x[labels == c] - means[c]) for c in range(3)) / 90
    m = means - x.mean(0)
    between = m.T @ m / 3
    nc1 = float((within @ torch.linalg.pinv(between, rtol=1e-10)).trace() / 3)
    gram = m @ m.T
    nc2 = float((gram / gram.norm() - (torch.eye(3) - 1 / 3) / math.sqrt(2)).norm())
    moments = Moments.of(x + 40, labels=labels, products="float64")["x"]
    for result in (neural_collapse(x, labels), neural_collapse(moments)):
        np.testing.assert_allclose(np.asarray(result.value)[[0, 2]], [nc1, nc2], rtol=1e-8)
        assert "NC3 and NC4 need" in str(result.reason)
    spread = torch.stack([(x[labels == c] - means[c]).square().sum(1).mean() for c in range(3)])
    pairs = [(0, 1), (0, 2), (1, 2)]
    cdnv = np.mean(
        [float((spread[i] + spread[j]) / (2 * (means[i] - means[j]).square().sum())) for i, j in pairs]
    )
    assert class_distance_variance(x, labels).value == pytest.approx(cdnv, rel=1e-10)
    assert class_distance_variance(moments).value == pytest.approx(cdnv, rel=1e-8)


def test_collapse_without_usable_classes_is_refused() -> None:
    with pytest.raises(InputError, match="have no class"):
        neural_collapse(gaussian(10, 3, 0), torch.tensor([-1, 0, 1, 0, 1, 0, 1, 0, 1, 0]))
    with pytest.raises(InputError, match="one class only"):
        neural_collapse(gaussian(10, 3, 0), torch.zeros(10, dtype=torch.long))
    with pytest.raises(InputError, match="hold no classes"):
        neural_collapse(Moments.of(gaussian(10, 3, 0))["x"])
    twin = gaussian(2, 3, 0).repeat(4, 1)
    assert "same mean" in str(class_distance_variance(twin, torch.tensor([0, 0, 1, 1] * 2)).reason)


# -- structure --------------------------------------------------------------------------------------


def test_a_linear_embedding_is_all_parallelograms_and_a_random_one_is_not() -> None:
    line = torch.arange(12).double()[:, None] * gaussian(1, 4, 0) + 2
    assert parallelogram_rqi(line).value == 1
    assert parallelogram_rqi(line).chance == 0
    assert parallelogram_rqi(gaussian(12, 4, 1)).value < 0.02
    angle = torch.arange(12).double() * (2 * torch.pi / 12)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    assert parallelogram_rqi(circle, modulus=12).value < parallelogram_rqi(line, modulus=None).value


def test_a_single_frequency_takes_all_the_power() -> None:
    t = torch.arange(59).double()
    wave = torch.stack([(2 * torch.pi * 7 * t / 59).cos(), (2 * torch.pi * 7 * t / 59).sin()], 1)
    result = fourier_concentration(wave @ gaussian(2, 8, 0))
    assert result.value == pytest.approx(1, abs=1e-12)
    assert result.provenance["frequencies"] == [7]
    noise = fourier_concentration(gaussian(59, 64, 1))
    assert noise.value == pytest.approx(noise.chance, abs=0.03)
    even = fourier_concentration(gaussian(8, 3, 2), n_frequencies=4)
    assert even.value == pytest.approx(1)  # all frequencies, the last one without a mirror


def test_the_share_of_variance_is_that_of_the_class_means() -> None:
    label = torch.arange(400) % 2
    x = gaussian(400, 6, 0)
    x[:, 0] += 4 * label
    total = x.var(0, correction=0).sum()
    between = sum((x[label == c].mean(0) - x.mean(0)).square().sum() / 2 for c in range(2))
    assert feature_variance_share(x, label).value == pytest.approx(float(between / total), rel=1e-9)
    unrelated = feature_variance_share(x, torch.arange(400) // 2 % 2)
    assert unrelated.value < 5 * unrelated.chance


def test_a_circle_is_irreducible_and_two_independent_features_are_not() -> None:
    angle = torch.rand(1500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 * torch.pi
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    uniform = torch.rand(1500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = uniform @ torch.linalg.qr(gaussian(2, 2, 3))[0]
    assert separability(circle).value > 3 * separability(circle).chance
    assert separability(turned).value < 2 * separability(turned).chance
    sparse = torch.where(uniform[:, :1] < 0.8, 0.0, 1.0) * circle  # mostly off: a mixture with a point
    assert mixture_index(sparse).value > 0.75
    assert mixture_index(circle).value < 0.25


def test_a_planted_circle_is_found_in_its_plane_and_a_cloud_holds_none() -> None:
    angle = torch.arange(200).double() * (2 * torch.pi / 200)
    x = gaussian(200, 8, 0) * 0.2
    x[:, 2] += 3 * angle.cos()
    x[:, 5] += 3 * angle.sin()
    found = find_circle(x)
    assert found.value > 0.9
    assert found.provenance["coverage"] > 0.95
    directions = torch.tensor(found.provenance["directions"])
    assert float(directions[:, [2, 5]].square().sum()) == pytest.approx(2, abs=0.05)
    assert find_circle(gaussian(2000, 4, 1)).value == pytest.approx(find_circle(x).chance, abs=0.05)
    assert "fewer than two dimensions" in str(find_circle(torch.arange(9).double()[:, None]).reason)
