"""Similarity beyond CKA: closed forms, oracles' values, permutations planted and recovered, negative controls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp.errors import InputError
from interp.metrics import (
    angular_distance,
    cca,
    cka,
    cka_matrix,
    cka_rbf,
    cknna,
    co_clusters,
    linear_predictivity,
    loss_barrier,
    match_activations,
    match_neurons,
    match_weights,
    mlp_units,
    mutual_knn,
    permuted,
    procrustes,
    pwcca,
    relative_representation,
    rsa,
    similarity_matrix,
    sparse_prediction,
    svcca,
    zero_shot_stitch,
)
from interp.moments import Moments
from tests.interp.oracles import metric_data

ORACLES = json.loads((Path(__file__).parent / "oracles" / "metric_values.json").read_text())["values"]


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed))[0]


def related(n: int = 400) -> tuple[Tensor, Tensor]:
    x = gaussian(n, 8, 0)
    return x, torch.tanh(x @ gaussian(8, 6, 1)) + 0.5 * gaussian(n, 6, 2)


# -- what other libraries compute ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mine", "tolerance"),
    [
        ("ckatorch linear biased", lambda x, y: cka(x, y, unbiased=False), 1e-8),
        ("ckatorch linear unbiased", lambda x, y: cka(x, y), 1e-8),
        ("pytorch-cka unbiased", lambda x, y: cka(x, y), 1e-8),
        # medians over i < j against medians that count the diagonal: 2e-4 at n = 200
        ("ckatorch rbf", lambda x, y: cka_rbf(x, y), 5e-4),
        ("rsatoolbox euclidean spearman", lambda x, y: rsa(x, y, n_permutations=0), 1e-8),
        ("rsatoolbox euclidean corr", lambda x, y: rsa(x, y, comparison="pearson", n_permutations=0), 1e-8),
        (
            "rsatoolbox correlation corr",
            lambda x, y: rsa(x, y, distance="correlation", comparison="pearson", n_permutations=0),
            1e-8,
        ),
    ],
)
def test_values_are_those_of_the_libraries_that_agree(name: str, mine, tolerance: float) -> None:
    x, y = metric_data.pair()
    assert mine(x, y).value == pytest.approx(ORACLES[name], abs=tolerance)


def test_procrustes_is_scipys_disparity_by_another_name() -> None:
    from scipy.spatial import procrustes as scipys

    x, y = (a.numpy() for a in related())
    disparity = scipys(x, np.pad(y, ((0, 0), (0, 2))))[2]
    assert procrustes(x, y).value == pytest.approx(2 - 2 * np.sqrt(1 - disparity), abs=1e-10)
    assert angular_distance(x, y).value == pytest.approx(np.arccos(np.sqrt(1 - disparity)), abs=1e-10)


# -- closed forms -----------------------------------------------------------------------------------


def test_canonical_correlations_are_those_that_were_planted() -> None:
    r = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    white = torch.linalg.qr(gaussian(500, 6, 0) - gaussian(500, 6, 0).mean(0))[0]
    a, b = white[:, :3], white[:, :3] * r + white[:, 3:] * (1 - r**2).sqrt()
    x, y = a @ gaussian(3, 3, 1), b @ gaussian(3, 3, 2)
    assert cca(x, y).value == pytest.approx(0.5, abs=1e-9)
    assert cca(x, y, summary="r2").value == pytest.approx(float(r.square().mean()), abs=1e-9)
    # of white data CKA is sum r^2 / sqrt(d e)
    assert cka(a, b, unbiased=False).value == pytest.approx(float(r.square().sum() / 3), abs=1e-9)


def test_cca_sees_no_linear_map_and_cka_does() -> None:
    x, _ = related()
    mapped = x @ gaussian(8, 8, 5)
    assert cca(x, mapped).value == pytest.approx(1, abs=1e-9)
    assert cka(x, mapped).value < 0.95


def test_projection_weights_are_those_of_the_sample_space_definition() -> None:
    x, y = (a - a.mean(0) for a in related())
    ux, uy = (torch.linalg.svd(a, full_matrices=False)[0] for a in (x, y))
    u, r, _ = torch.linalg.svd(ux.T @ uy, full_matrices=False)
    weights = ((ux @ u).T @ x).abs().sum(1)
    one = float((weights * r).sum() / weights.sum())
    assert pwcca(x, y).value == pytest.approx(one, abs=1e-9)
    assert pwcca(x, y, compat="repsim").value == pytest.approx((one + pwcca(y, x).value) / 2, abs=1e-9)


def test_svcca_code_drops_trailing_correlations() -> None:
    x, y = related()
    u = [torch.linalg.svd(a - a.mean(0), full_matrices=False)[0] for a in (x, y)]
    r = torch.linalg.svdvals(u[0].T @ u[1])
    kept = next(i for i in range(len(r) + 1) if float(r[:i].sum() / r.sum()) >= 0.98)
    assert cca(x, y, compat="svcca").value == pytest.approx(float(r[:kept].mean()), abs=1e-9)
    assert svcca(x, y, variance=1.0).value == pytest.approx(cca(x, y).value, abs=1e-9)


def test_too_few_samples_for_cca_are_refused_with_the_reason() -> None:
    result = cca(gaussian(20, 12, 0), gaussian(20, 12, 1))
    assert np.isnan(result.value)
    assert "1 whatever the data" in str(result.reason)
    independent = cca(gaussian(60, 12, 0), gaussian(60, 12, 1))
    assert independent.value > 0.3  # what unrelated data give at n = 5 d
    assert independent.chance == pytest.approx(independent.value, abs=0.06)


def test_cosine_of_double_centred_distances_is_cka() -> None:
    x, y = related(60)
    centred = []
    for a in (x, y):
        d = torch.cdist(a, a).square()
        centred.append(d - d.mean(0) - d.mean(1, keepdim=True) + d.mean())
    cosine = float((centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm()))
    assert cosine == pytest.approx(cka(x, y, unbiased=False).value, abs=1e-10)


def test_subspace_metrics_of_moments_are_those_of_the_rows() -> None:
    x, y = related()
    moments = Moments.of({"x": x + 50, "y": y}, cross=True, products="float64", chunk=256)
    for metric in (cca, svcca, pwcca, procrustes, angular_distance, match_neurons):
        # eigenvalues of a scatter matrix keep half the digits of singular values
        assert metric(moments["x"], moments["y"]).value == pytest.approx(metric(x, y).value, abs=1e-7), metric


def test_rsa_has_a_permutation_p_value_that_unrelated_data_fail() -> None:
    x, y = related(60)
    assert rsa(x, y, n_permutations=99).provenance["p"] == pytest.approx(0.01)
    ps = [
        rsa(x[:40], gaussian(40, 6, 100 + s), n_permutations=49, seed=s, n_blocks=0).provenance["p"]
        for s in range(12)
    ]
    assert 0.2 < np.mean(ps) < 0.8


def test_mutual_neighbours_by_brute_force_and_their_chance() -> None:
    x, y = related(80)
    near = []
    for a in (x, y):
        z = a / a.norm(dim=1, keepdim=True)
        cosine = (z @ z.T).fill_diagonal_(-2)
        near.append([set(row.argsort(descending=True)[:5].tolist()) for row in cosine])
    expected = np.mean([len(a & b) / 5 for a, b in zip(*near, strict=True)])
    assert mutual_knn(x, y, k=5).value == pytest.approx(expected, abs=1e-12)
    unrelated = mutual_knn(x, gaussian(80, 6, 9), k=5)
    assert unrelated.chance == pytest.approx(5 / 79)
    assert abs(unrelated.value - unrelated.chance) < 4 * unrelated.stderr
    assert mutual_knn(x, y, k=5, score="jaccard").value < expected


def test_cknna_over_all_neighbours_is_debiased_cka() -> None:
    x, y = related(50)
    x, y = (a / a.norm(dim=1, keepdim=True) for a in (x, y))
    assert cknna(x, y, k=49).value == pytest.approx(cka(x, y).value, abs=1e-9)
    assert cknna(x, x @ rotation(8, 3)).value == pytest.approx(1, abs=1e-9)
    assert cknna(x, gaussian(50, 6, 7)).value < 0.6 * cknna(x, y).value


def test_the_published_kernel_width_and_masked_alignment_are_reproduced_by_name() -> None:
    x, y = related(40)
    kernels = [torch.exp(-torch.cdist(a - a.mean(0), a - a.mean(0)).square() / 2) for a in (x, y)]
    centred = [k - k.mean(0) - k.mean(1, keepdim=True) + k.mean() for k in kernels]
    platonic = float((centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm()))
    assert cka_rbf(x, y, compat="platonic").value == pytest.approx(platonic, rel=1e-9)
    wide = [gaussian(40, 60, s) for s in (0, 1)]
    assert cka_rbf(*wide, compat="platonic").value > 0.999  # unrelated, and the kernels are both the identity
    assert cka_rbf(*wide, unbiased=True).value < 0.2
    # rows as they are: over all neighbours it is debiased CKA of them, with 1e-6 below
    assert cknna(x, y, k=39, compat="platonic").value == pytest.approx(cka(x, y).value, abs=1e-4)


# -- linear maps, anchors ---------------------------------------------------------------------------


def test_held_out_predictivity_finds_a_linear_map_and_nothing_in_noise() -> None:
    x, _ = related(300)
    y = x[:, :4] @ gaussian(4, 5, 3)
    assert linear_predictivity(x, y).value == pytest.approx(1, abs=1e-9)
    assert linear_predictivity(y, x).value < 0.8  # asymmetric: y has lost half of x
    assert linear_predictivity(x, gaussian(300, 5, 8)).value < 0.02
    overfit = linear_predictivity(gaussian(40, 30, 0), gaussian(40, 5, 8), in_sample=True)
    assert overfit.value == pytest.approx(overfit.chance, abs=0.1)


def test_relative_representations_see_what_their_similarity_sees() -> None:
    x = gaussian(30, 6, 0)
    turned, moved = 3 * x @ rotation(6, 1), x @ rotation(6, 1) + 5
    same = relative_representation(x, x[:8])
    torch.testing.assert_close(relative_representation(turned, turned[:8]), same)
    assert float((relative_representation(moved, moved[:8]) - same).abs().max()) > 0.1
    for kind in ("euclidean", "l1", "linf"):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            relative_representation(x[:, order], x[:8, order], similarity=kind),
            relative_representation(x, x[:8], similarity=kind),
        )
    assert relative_representation(x, x[:8], similarity=["cosine", "l1"]).shape == (30, 16)


def test_a_decoder_moves_between_rotated_spaces_only_through_anchors() -> None:
    labels = torch.arange(600) % 4
    x = 2 * gaussian(4, 10, 0)[labels] + gaussian(600, 10, 1)
    result = zero_shot_stitch(x, x @ rotation(10, 2), labels.numpy())
    own, stitched, absolute = np.asarray(result.value)
    assert own > 0.9
    assert stitched == pytest.approx(own, abs=1e-9)  # the relative representations are equal
    assert absolute < 0.6


# -- neurons ----------------------------------------------------------------------------------------


def test_matching_recovers_a_planted_permutation_and_a_rotation_hides_it_where_cka_stays_1() -> None:
    x = torch.relu(gaussian(400, 12, 0))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    found = match_neurons(x, 3 * x[:, order] + 1)
    assert found.value == pytest.approx(1, abs=1e-12)
    assert order[torch.tensor(found.provenance["match"])].tolist() == list(range(12))
    turned = x @ rotation(12, 5)
    assert match_neurons(x, turned).value < 0.8
    assert cka(x, turned).value == pytest.approx(1, abs=1e-9)
    assert match_neurons(x, gaussian(400, 12, 6)).value == pytest.approx(
        match_neurons(x, gaussian(400, 12, 6)).chance, abs=0.05
    )


def test_one_to_many_shares_partners() -> None:
    x = gaussian(300, 3, 0)
    doubled = torch.cat([x, x], 1)
    assert match_neurons(doubled, x, how="one_to_many").value == pytest.approx(1, abs=1e-12)
    assert match_neurons(doubled, x).provenance["match"].count(-1) == 3


def test_sparse_prediction_needs_as_many_neurons_as_were_planted() -> None:
    x = gaussian(800, 10, 0)
    y = torch.stack([x[:, 0] + x[:, 3], x[:, 5] - x[:, 7]], 1)
    value = np.asarray(sparse_prediction(x, y, n_predictors=(1, 2, 4)).value)
    assert value[0] == pytest.approx(0.5, abs=0.1)
    assert value[1] == pytest.approx(1, abs=1e-6)
    assert (np.asarray(sparse_prediction(x, gaussian(800, 2, 9)).value) < 0.02).all()


def test_co_clusters_find_planted_blocks() -> None:
    shared = gaussian(500, 2, 0)
    side = torch.arange(8) % 2
    x, y = (shared[:, side] + 0.3 * gaussian(500, 8, s) for s in (1, 2))
    result = co_clusters(x, y, n_clusters=2)
    labels = np.array(result.provenance["x"])
    assert len({*zip(labels, side.tolist(), strict=True)}) == 2
    assert result.value > max(0.95, result.chance + 5 * result.stderr)


def test_weight_matching_undoes_a_planted_permutation_of_hidden_units() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 3)).double()
    weights, units = {k: v.detach() for k, v in net.named_parameters()}, mlp_units(net)
    generator = torch.Generator().manual_seed(1)
    planted = {g: torch.randperm(weights[p[0][0]].shape[0], generator=generator) for g, p in units.items()}
    other = permuted(weights, units, planted)
    x = gaussian(50, 6, 2)

    def run(w: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(net, w, (x,))

    torch.testing.assert_close(run(other), run(weights))  # the same function
    back = permuted(other, units, match_weights(weights, other, units))
    for name, value in weights.items():
        torch.testing.assert_close(back[name], value)
    hidden = {
        name: torch.relu(x @ w["0.weight"].T + w["0.bias"]) for name, w in (("a", weights), ("b", other))
    }
    order = match_activations({"0": hidden["a"]}, {"0": hidden["b"]})["0"]
    assert planted["0"][order].tolist() == list(range(20))

    def loss(w: dict[str, Tensor]) -> float:
        return float((run(w) - run(weights)).square().mean())

    straight, matched = loss_barrier(loss, weights, other), loss_barrier(loss, weights, back)
    assert matched.provenance["barrier"] < 1e-12 < 1e-3 < straight.provenance["barrier"]


def test_a_loss_that_is_no_number_on_the_way_is_told() -> None:
    a, b = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    for odd, reason in ((float("nan"), "the loss is not finite at t = 0.50"), (0.0, None)):
        assert loss_barrier(lambda w: odd if w["w"] == 0.5 else 0.0, a, b, n_points=5).reason == reason  # noqa: B023


# -- matrices of any metric, bad input --------------------------------------------------------------


def test_a_matrix_of_any_metric_holds_the_pairwise_values() -> None:
    x, y = related(60)
    mine, theirs = {"a": x, "b": y}, {"c": x @ rotation(8, 0), "d": gaussian(60, 3, 3)}
    matrix = similarity_matrix(mine, theirs, metric=procrustes)
    assert np.asarray(matrix.value)[0, 0] == pytest.approx(0, abs=1e-9)
    assert np.asarray(matrix.value)[1, 1] == pytest.approx(procrustes(y, theirs["d"]).value)
    assert matrix.ticks == (("a", "b"), ("c", "d"))
    square = similarity_matrix(mine, metric=mutual_knn, k=3)
    np.testing.assert_array_equal(np.asarray(square.value), np.asarray(square.value).T)
    between = similarity_matrix(mine, theirs)
    assert np.asarray(between.value)[0, 0] == pytest.approx(1, abs=1e-9)
    assert np.asarray(cka_matrix(mine, theirs).value)[1, 0] == pytest.approx(
        cka(y, theirs["c"]).value, abs=1e-9
    )


def test_feature_and_gram_space_agree() -> None:
    x, y = gaussian(150, 40, 0), gaussian(150, 60, 1)
    wide = {"x": x, "y": y, "z": torch.cat([x, 0.3 * y], 1), "w": y[:, :9]}
    for unbiased in (True, False):
        together = np.asarray(cka_matrix(wide, unbiased=unbiased).value)  # Gram space: n <= 2 d
        for i, a in enumerate(wide.values()):
            for j, b in enumerate(wide.values()):
                tall = [torch.cat([s, s.new_zeros(0, s.shape[1])]) for s in (a, b)]
                assert together[i, j] == pytest.approx(cka(*tall, unbiased=unbiased).value, abs=1e-10)


@pytest.mark.parametrize(
    "metric", [cca, svcca, pwcca, procrustes, angular_distance, rsa, mutual_knn, cka_rbf, cknna]
)
def test_every_metric_names_mismatched_and_nan_rows(metric) -> None:
    with pytest.raises(InputError, match="x has 12 samples and y has 13"):
        metric(gaussian(12, 3, 0), gaussian(13, 3, 0))
    broken = gaussian(12, 3, 0)
    broken[4, 1] = torch.nan
    with pytest.raises(InputError, match="in 1 of 12 rows, the first of them row 4"):
        metric(broken, gaussian(12, 3, 0))


def test_float32_grams_give_values_and_errors_of_float64_features() -> None:
    wide = {
        str(i): gaussian(70, 40, 0) @ gaussian(40, 40, i + 1) + gaussian(70, 40, 20 + i) for i in range(5)
    }
    narrow = {name: x.float() for name, x in wide.items()}  # n > d: Grams of the products' type
    for unbiased in (True, False):
        together = cka_matrix(narrow, unbiased=unbiased)
        assert "float32" in together.convention
        for i, a in enumerate(wide):
            for j, b in enumerate(wide):
                pair = cka(wide[a], wide[b], unbiased=unbiased)  # feature space
                assert np.asarray(together.value)[i, j] == pytest.approx(pair.value, abs=1e-5)
                if i != j:
                    assert np.asarray(together.stderr)[i, j] == pytest.approx(pair.stderr, rel=1e-3)


@pytest.mark.parametrize("metric", [cca, svcca, pwcca, procrustes, angular_distance, rsa, cka_rbf])
def test_a_constant_representation_gives_a_reason(metric) -> None:
    result = metric(torch.ones(40, 3), gaussian(40, 3, 0))
    assert np.isnan(result.value)
    assert result.reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cca(x, x, compat="google"), "compat='google'"),
        (lambda x: cca(x, x, summary="median"), "'mean' or 'r2'"),
        (lambda x: rsa(x, x, distance="euclid"), "did you mean 'euclidean'"),
        (lambda x: mutual_knn(x, x, k=40), "k = 40 neighbours among 40 rows"),
        (lambda x: match_neurons(x, x, how="all"), "one_to_one"),
        (lambda x: relative_representation(x, x, similarity="dot"), "similarity='dot'"),
        (lambda x: mlp_units(nn.Sequential(nn.Linear(3, 3))), "at least two nn.Linear"),
    ],
)
def test_wrong_options_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(gaussian(40, 3, 0))
