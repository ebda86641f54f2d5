"""Toy models of superposition: closed forms, the published phenomena, and the models that ship."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import interp
from interp.errors import InputError
from interp.toys import (
    Superposition,
    SuperpositionRecipe,
    collection,
    embedded,
    feature_dimensionality,
    features_per_dimension,
    superposition_loss,
    train_superposition_networks,
)
from interp.toys.train_superposition import SHIPPED, card_of, main

QUICK = {"steps": 1500, "batch_size": 256, "lr": 1e-2}


def polygon(n: int) -> Tensor:
    """[2, n] unit vectors at equal angles."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()])


def by_hand(weight: Tensor, *, density: float) -> Superposition:
    module = Superposition(weight.shape[1], weight.shape[0], density=density)
    module.load_state_dict({"weight": weight.float(), "bias": torch.zeros(weight.shape[1])})
    return module


def mean_loss(module: Superposition, recipe: SuperpositionRecipe) -> float:
    with torch.no_grad():
        x = module.features(20_000, seed=9)
        return float(superposition_loss(module, x, importance=recipe.importance).mean())


@pytest.mark.parametrize(("n", "share"), [(3, 2 / 3), (4, 1 / 2), (5, 2 / 5), (8, 1 / 4)])
def test_features_at_the_corners_of_a_polygon_share_two_dimensions_alike(n: int, share: float) -> None:
    weight = polygon(n)
    torch.testing.assert_close(feature_dimensionality(weight), torch.full((n,), share, dtype=torch.float64))
    assert features_per_dimension(weight) == pytest.approx(n / 2)


def test_antipodal_pairs_have_half_a_dimension_each_and_orthogonal_features_a_whole_one() -> None:
    pair = torch.tensor([[1.0, -1.0, 0, 0], [0, 0, 2.0, 0]])
    torch.testing.assert_close(
        feature_dimensionality(pair), torch.tensor([0.5, 0.5, 1.0, 0.0], dtype=torch.float64)
    )


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 999))
def test_the_dimensionalities_sum_to_at_most_the_rank(m: int, n: int, seed: int) -> None:
    weight = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shares = feature_dimensionality(weight)
    # G_ii^2 <= P_ii (G^2)_ii with P the projection on the row space, whose trace is the rank
    assert float(shares.sum()) <= min(m, n) + 1e-9
    turned = torch.linalg.qr(
        torch.randn(m, m, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )[0]
    torch.testing.assert_close(feature_dimensionality(turned @ weight), shares)
    torch.testing.assert_close(feature_dimensionality(3 * weight), shares)


def test_the_loss_of_an_antipodal_pair_is_a_third_of_the_squared_density() -> None:
    # It errs only where both are active, by the smaller of the two, twice: p^2 * 2 E[min^2] = p^2 / 3.
    for density in (0.2, 0.7):
        module = by_hand(torch.tensor([[1.0, -1.0]]), density=density)
        loss = superposition_loss(module, module.features(200_000, seed=0)).detach()
        error = float(loss.std()) / 200_000**0.5
        assert abs(float(loss.mean()) - density**2 / 3) < 4 * error


def test_one_dimension_holds_a_pair_where_sparse_and_the_more_important_feature_where_dense() -> None:
    # A pair costs p^2/3; one feature and the other's mean cost p/3 - p^2/4: the pair wins below p = 4/7.
    recipe = SuperpositionRecipe(n_features=2, d_hidden=1, importance_decay=0.8, **QUICK)
    # on a line two features that start on one side cannot pass each other: the best of several starts counts
    models = train_superposition_networks([0.2] * 6 + [1.0] * 6, seed=0, recipe=recipe)
    sparse, dense = (
        min(half, key=lambda model: mean_loss(model, recipe)) for half in (models[:6], models[6:])
    )
    assert mean_loss(sparse, SuperpositionRecipe(n_features=2)) == pytest.approx(0.2**2 / 3, rel=0.1)
    norms = sparse.weight.detach()[0]
    assert norms.abs().min() > 0.8
    assert norms[0] * norms[1] < 0
    shares = feature_dimensionality(sparse.weight)
    torch.testing.assert_close(shares, torch.full((2,), 0.5).double(), rtol=0, atol=0.02)
    norms = dense.weight.detach()[0].abs()
    assert norms[0] > 0.9
    assert norms[1] < 0.1


def test_dense_features_give_principal_components_and_sparse_ones_superposition() -> None:
    recipe = SuperpositionRecipe(
        n_features=10, d_hidden=3, importance_decay=0.6, steps=2500, batch_size=256, lr=1e-2
    )
    densities = [1.0, 0.3, 0.1, 0.03]
    models = train_superposition_networks(densities, seed=0, recipe=recipe)
    dense = models[0].weight.detach()
    # the three most important, orthogonal and of norm 1; the others not at all
    expected = torch.diag(torch.tensor([1.0] * 3 + [0.0] * 7))
    torch.testing.assert_close(dense.T @ dense, expected, rtol=0, atol=0.15)  # the third and fourth part last
    counts = [features_per_dimension(model.weight) for model in models]
    assert counts[0] == pytest.approx(1, abs=0.05)
    assert counts == sorted(counts)
    assert counts[-1] > 1.8


def test_training_is_deterministic_and_one_model_does_not_depend_on_the_others_of_its_sweep_being_there() -> (
    None
):
    recipe = SuperpositionRecipe(steps=20, batch_size=16)
    first, second = (train_superposition_networks([0.5, 0.1], seed=3, recipe=recipe) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.weight, two.weight)
    assert [model.density for model in first] == [0.5, 0.1]
    assert not torch.equal(
        first[0].weight, train_superposition_networks([0.5], seed=4, recipe=recipe)[0].weight
    )


def test_a_model_is_a_source_of_activations_with_a_known_dictionary() -> None:
    module = embedded("superposition:many").module
    x = module.features(4000, seed=1)
    assert torch.equal(x, module.features(4000, seed=1))
    assert not torch.equal(x, module.features(4000, seed=2))
    assert x.shape == (4000, 64)
    active = (x > 0).double().mean()
    assert abs(float(active) - module.density) < 4 * (module.density / x.numel()) ** 0.5
    assert module.directions.shape == (64, 16)
    torch.testing.assert_close(module.activations(x), x @ module.directions)
    model = interp.load("superposition:many")
    torch.testing.assert_close(model.capture(x, "hidden")["hidden"], module.activations(x))
    torch.testing.assert_close(model.logits(x), module(x).detach())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_what_its_card_says(name: str) -> None:
    made = embedded(f"superposition:{name}")
    again = card_of(made.module, SHIPPED[name][1], seed=made.card["seed"])
    assert again["loss"] == pytest.approx(made.card["loss"], rel=1e-4)
    assert again["features_per_dimension"] == pytest.approx(made.card["features_per_dimension"], rel=1e-6)
    assert made.inputs(5).shape == (5, made.card["recipe"]["n_features"])
    assert f"{made.card['features_per_dimension']:.2f} features a dimension" in made.notes[0]


def test_the_shipped_geometries_are_the_known_ones() -> None:
    shares = {
        name: feature_dimensionality(embedded(f"superposition:{name}").module.weight) for name in SHIPPED
    }
    near = {"rtol": 0, "atol": 0.03}  # training ends close to the polygon, not on it
    torch.testing.assert_close(shares["pairs"], torch.full((4,), 1 / 2).double(), **near)
    torch.testing.assert_close(shares["pentagon"], torch.full((5,), 2 / 5).double(), **near)
    torch.testing.assert_close(shares["many"], torch.full((64,), 1 / 4).double(), **near)
    torch.testing.assert_close(shares["dense"], torch.tensor([1.0] * 5 + [0] * 15).double(), **near)
    weight = embedded("superposition:pairs").module.directions
    partners = torch.nn.functional.cosine_similarity(weight[:, None], weight[None], dim=-1).amin(1)
    assert (partners < -0.99).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="0 < density <= 1"):
        Superposition(3, 2, density=0.0)
    with pytest.raises(InputError, match="importance_decay must lie in"):
        SuperpositionRecipe(importance_decay=1.5)
    with pytest.raises(InputError, match="sizes and steps must be at least 1"):
        SuperpositionRecipe(d_hidden=0)
    with pytest.raises(InputError, match="no densities were given"):
        train_superposition_networks([])
    with pytest.raises(InputError, match="n must be at least 1"):
        Superposition(3, 2, density=0.5).features(0)
    with pytest.raises(InputError, match="takes feature vectors, not tokens"):
        interp.analyze("superposition:pairs", out="nowhere_at_all")


def test_the_script_writes_models_and_cards(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHIPPED, "pairs", (0.1, SuperpositionRecipe(n_features=4, steps=30)))
    assert main(["--only", "pairs", "--out", str(tmp_path)]) == 0
    monkeypatch.setattr(collection, "WEIGHTS", tmp_path)
    card = json.loads((tmp_path / "superposition-pairs.json").read_text())
    made = embedded("superposition:pairs")
    assert made.card == card
    assert features_per_dimension(made.module.weight) == pytest.approx(card["features_per_dimension"])
