"""Recovery of a planted dictionary: closed forms, brute force over all matchings, and firing that is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

import sae
from interp.errors import InputError


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def planted(n: int, n_features: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(n, n_features, generator=generator) < 0.2
    return on * (1 + torch.rand(n, n_features, generator=generator))


def test_the_true_dictionary_in_another_order_is_found_whole() -> None:
    truth, order = gaussian(12, 8, 0), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    codes = planted(300, 12)
    found = sae.recovery(3 * truth[order], truth, codes=codes[:, order] / 3, true_codes=codes)
    assert found.value == pytest.approx(1)
    assert (found.mmcs, found.mmcs_latents, found.found, found.uniqueness) == (pytest.approx(1),) * 4
    np.testing.assert_array_equal(order[found.match], np.arange(12))
    for name in ("precision", "recall", "f1"):
        np.testing.assert_array_equal(getattr(found, name), 1)
    np.testing.assert_allclose(found.shrinkage, 0, atol=1e-6)
    assert found.chance < 0.7


def test_mcc_is_the_best_of_all_matchings() -> None:
    truth, learned = gaussian(5, 4, 0), gaussian(5, 4, 1)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (truth.double(), learned.double())]
    table = (unit[0] @ unit[1].T).numpy()
    best = max(np.mean([table[i, p[i]] for i in range(5)]) for p in permutations(range(5)))
    found = sae.recovery(learned, truth)
    assert found.value == pytest.approx(best)
    assert found.mmcs == pytest.approx(table.max(1).mean())
    assert found.mmcs_latents == pytest.approx(table.max(0).mean())
    assert found.uniqueness == len(set(table.argmax(0))) / 5
    unsigned = max(np.mean([abs(table[i, p[i]]) for i in range(5)]) for p in permutations(range(5)))
    assert sae.recovery(learned, truth, signed=False).value == pytest.approx(unsigned)


def test_three_copies_of_one_feature_are_not_unique_and_the_others_are_missed() -> None:
    truth = torch.eye(4)
    found = sae.recovery(truth[[0, 0, 0]], truth)
    np.testing.assert_allclose(np.sort(found.cosine), [0, 0, 0, 1])
    assert (found.match == -1).sum() == 1
    assert found.uniqueness == pytest.approx(1 / 3)
    assert found.mmcs == pytest.approx(1 / 4)


def test_latents_that_fire_too_often_too_rarely_or_too_weakly_are_measured() -> None:
    truth, codes = torch.eye(3), planted(2000, 3)
    changed = codes.clone()
    half = torch.arange(2000) % 2 == 0
    changed[half, 0] = 0  # misses half
    changed[:, 1] = torch.where(codes[:, 1] > 0, codes[:, 1], 0.1)  # always on
    changed[:, 2] *= 0.75  # a quarter too small
    found = sae.recovery(truth, truth, codes=changed, true_codes=codes)
    on = codes > 0
    missed = float(on[~half, 0].sum() / on[:, 0].sum())
    np.testing.assert_allclose(found.recall, [missed, 1, 1])
    np.testing.assert_allclose(found.precision, [1, float(on[:, 1].double().mean()), 1])
    np.testing.assert_allclose(found.f1[0], 2 * missed / (1 + missed))
    assert found.shrinkage[2] == pytest.approx(0.25, abs=1e-6)
    np.testing.assert_allclose(found.shrinkage[1], 0, atol=1e-6)


def test_random_directions_score_as_chance_and_bad_input_is_named() -> None:
    truth = gaussian(20, 16, 0)
    found = sae.recovery(gaussian(20, 16, 5), truth)
    assert float(found.value) == pytest.approx(float(found.chance), abs=0.1)  # 20 features, sd 0.1 each
    assert found.f1.size == 0
    with pytest.raises(InputError, match="go together"):
        sae.recovery(truth, truth, codes=planted(5, 20))
    with pytest.raises(InputError, match="do not fit 20 latents and 20 features"):
        sae.recovery(truth, truth, codes=planted(5, 19), true_codes=planted(5, 20))
    with pytest.raises(InputError, match="length 0"):
        sae.recovery(truth, torch.zeros(2, 16))
