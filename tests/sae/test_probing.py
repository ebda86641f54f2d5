"""Concepts in few latents, absorption, targeted and spurious removal: planted worlds with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import sae
from interp.errors import InputError
from sae.codes import codes_of_rows
from sae.labels import IGNORE
from sae.probing import fit_probe

D = 16


def world(n: int = 3000, seed: int = 0, rate: float = 0.3) -> tuple[Tensor, np.ndarray]:
    """Rows that are sums of orthogonal features with positive codes, and which are on [row, feature]."""
    rng = np.random.default_rng(seed)
    on = rng.random((n, D)) < rate
    x = on * rng.uniform(1, 2, (n, D))
    return torch.as_tensor(x, dtype=torch.float32), on


def reader(directions: Tensor, k: int = D, bias: float = 0.0) -> sae.Coder:
    """Codes are the positive parts of the rows along ``directions``."""
    coder = sae.Coder(D, len(directions), min(k, len(directions)), kind="relu")
    with torch.no_grad():
        coder.W_dec.copy_(directions)
        coder.W_enc.copy_(directions.T)
        coder.b_enc.fill_(bias)
    return coder


def test_one_latent_suffices_for_its_own_feature_and_two_for_their_union() -> None:
    x, on = world()
    codes = codes_of_rows(reader(torch.eye(D)), x)
    single = sae.sparse_probing(codes, on[:, 3].astype(int), k=(1, 2), rows=x)
    assert single.latents[0] == 3
    np.testing.assert_allclose(single.value, 1.0)
    assert single.whole == pytest.approx(1.0)
    np.testing.assert_array_equal(single.coordinates, single.value)  # here the coordinates are the latents
    both = sae.sparse_probing(codes, (on[:, 3] | on[:, 5]).astype(int), k=(1, 2))
    assert set(both.latents[:2]) == {3, 5}
    value = np.asarray(both.value, dtype=float)
    # one latent misses the tokens with only the other: (1 - q) q of q + (1 - q) q, that is 0.7 / 1.7 of half of all
    assert value[0] == pytest.approx(1 - 0.5 * 0.7 / 1.7, abs=0.03)
    assert value[1] == pytest.approx(1.0, abs=0.01)
    assert both.whole is None


def test_a_concept_of_nothing_is_told_at_chance() -> None:
    x, _ = world()
    random = np.random.default_rng(9).integers(0, 2, len(x))
    found = sae.sparse_probing(codes_of_rows(reader(torch.eye(D)), x), random, k=(1, 5))
    np.testing.assert_allclose(
        np.asarray(found.value, dtype=float), 0.5, atol=0.06
    )  # 1,400 tokens, four errors


def test_a_probes_weights_are_those_of_the_rows_own_units() -> None:
    x, on = world()
    a = fit_probe(x.numpy(), on[:, 0])
    b = fit_probe(x.numpy() * 10 + 3, on[:, 0])
    np.testing.assert_allclose(a.weight, 10 * b.weight, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(a.score(x.numpy()), b.score(x.numpy() * 10 + 3), atol=0.05)


def absorbed_world() -> tuple[Tensor, np.ndarray, np.ndarray]:
    """A parent feature (0), a child (1) that never comes without it and comes with a quarter of it."""
    x, on = world(4000, seed=1)
    rng = np.random.default_rng(2)
    on[:, 1] = on[:, 0] & (rng.random(4000) < 0.25)
    x[:, 1] = torch.as_tensor(on[:, 1] * rng.uniform(1, 2, 4000))
    x[:, 0] = torch.as_tensor(on[:, 0] * 1.5)
    return x, on[:, 0], on[:, 1]


def test_absorption_is_the_share_of_tokens_that_the_child_has_swallowed() -> None:
    x, parent, child = absorbed_world()
    directions = torch.eye(D)
    directions[1] = (directions[0] + directions[1]) / 2**0.5
    coder = reader(directions)
    with torch.no_grad():  # the parent's latent is silent where the child is on
        coder.W_enc[1, 0] = -10
        coder.W_enc[:, 1] = 0
        coder.W_enc[1, 1] = 1.5
    codes = codes_of_rows(coder, x)
    found = sae.absorption(codes, coder, x, parent.astype(int))
    np.testing.assert_array_equal(found.main, [0, 1])  # as a splitting: the child adds 0.14 to F1
    strict = sae.absorption(codes, coder, x, parent.astype(int), splitting=0.5)
    np.testing.assert_array_equal(strict.main, [0])
    assert float(strict.value) == pytest.approx(
        child.sum() / parent.sum(), abs=0.03
    )  # 600 tokens, two errors
    assert strict.silent == pytest.approx(float(strict.value))
    assert strict.absorbers == {"1": round(float(strict.value) * strict.n)}


def test_a_dictionary_with_a_latent_each_absorbs_nothing() -> None:
    x, parent, _ = absorbed_world()
    coder = reader(torch.eye(D))
    found = sae.absorption(codes_of_rows(coder, x), coder, x, parent.astype(int))
    assert (found.value, found.f1, found.silent) == (0.0, 1.0, 0.0)
    np.testing.assert_array_equal(found.main, [0])


def test_targeted_perturbation_is_one_sided_where_latents_are_pure() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2000)
    x = torch.as_tensor(np.eye(D)[labels] * 1.5 + 0.1 * rng.standard_normal((2000, D)), dtype=torch.float32)
    pure = sae.targeted_perturbation(reader(torch.eye(D)), x, labels, n_latents=(1,))
    np.testing.assert_allclose(pure.accuracy, 1, atol=0.01)
    own = np.einsum("aii->ai", pure.loss)
    np.testing.assert_allclose(
        own, 0.5, atol=0.05
    )  # a probe without its class's rows says no to all: half are wrong
    assert float(np.asarray(pure.value)[0]) == pytest.approx(
        own.mean() - (pure.loss.sum() - own.sum()) / 12, abs=1e-9
    )
    assert float(np.asarray(pure.value)[0]) > 0.4
    assert abs(float(np.asarray(pure.chance)[0])) < 0.3
    mixed = torch.ones(D, D) + 0.2 * torch.eye(D)
    blunt = sae.targeted_perturbation(
        reader(mixed / mixed.norm(dim=1, keepdim=True)), x, labels, n_latents=(1,)
    )
    assert float(np.asarray(blunt.value)[0]) < 0.25  # every latent writes every class


def test_spurious_removal_gives_back_what_the_spurious_feature_cost() -> None:
    rng = np.random.default_rng(0)
    target, spurious = rng.integers(0, 2, (2, 6000))
    x = 0.3 * rng.standard_normal((6000, D))
    x[:, 0] += 0.6 * target  # faint
    x[:, 1] += 3.0 * spurious  # loud
    rows = torch.as_tensor(x, dtype=torch.float32)
    found = sae.spurious_removal(reader(torch.eye(D)), rows, target, spurious, n_latents=(1, 16))
    assert found.biased < 0.6 < found.oracle
    assert found.provenance["latents"][0] == 1
    assert float(np.asarray(found.value)[0]) > 0.8
    # with all latents gone the target is gone too, but for the negative parts of rows, which no latent reads
    assert float(np.asarray(found.value)[1]) < 0.6
    assert found.direction > 0.8
    want = (found.accuracy[0] - found.biased) / (found.oracle - found.biased)
    assert float(np.asarray(found.value)[0]) == pytest.approx(want)


def test_bad_concepts_are_named() -> None:
    x, on = world(300)
    coder = reader(torch.eye(D))
    codes = codes_of_rows(coder, x)
    with pytest.raises(InputError, match="a concept is 1, 0 or -100"):
        sae.sparse_probing(codes, np.full(300, 7))
    few = np.zeros(300, dtype=int)
    few[:4] = 1
    with pytest.raises(InputError, match="tokens with the concept in one half"):
        sae.sparse_probing(codes, few)
    with pytest.raises(InputError, match="299 rows for codes of 300"):
        sae.absorption(codes, coder, x[:-1], on[:, 0].astype(int))
    with pytest.raises(InputError, match="of 1 classes"):
        sae.targeted_perturbation(coder, x, np.zeros(300))
    with pytest.raises(InputError, match="0 or 1, one for each of 300"):
        sae.spurious_removal(coder, x, np.full(300, 2), np.zeros(300))
    with pytest.raises(InputError, match="the second label misleads nobody"):
        x, on = world()
        sae.spurious_removal(coder, x, on[:, 0], np.random.default_rng(0).integers(0, 2, len(x)))


def test_tokens_that_do_not_count_are_left_out() -> None:
    x, on = world(2000)
    codes = codes_of_rows(reader(torch.eye(D)), x)
    half = np.where(np.arange(2000) < 1000, on[:, 0].astype(int), IGNORE)
    found = sae.sparse_probing(codes, half, k=(1,))
    assert np.asarray(found.value)[0] == pytest.approx(1.0)
    assert found.n + found.provenance["fitted_on"] <= 2 * on[:1000, 0].sum()
