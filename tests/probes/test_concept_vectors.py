"""Concept vectors: a concept spread over units is put together, one that is in no unit is not."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import InputError
from probes import net2vec


def spread(n: int = 1200, d: int = 15, seed: int = 0):
    """A concept of which each of three units sees a part."""
    rng = np.random.default_rng(seed)
    concept = rng.random(n) < 0.3
    part = rng.integers(0, 3, n)
    x = rng.normal(size=(n, d)) * 0.5
    for k in range(3):
        x[concept & (part == k), 4 + k] += 6.0
    return x, concept.astype(int), np.arange(n) // 10


def test_a_concept_spread_over_units_is_found_in_their_vector_and_in_no_single_one() -> None:
    x, concept, groups = spread()
    found = net2vec(x, concept[:, None], groups=groups, quantile=0.1, n_units=[1, 3])
    iou = dict(zip(found.ticks[1], found.value[0], strict=True))
    assert iou["3"] > 0.9  # a part is 0.1 of the rows up to chance, a unit is on in 0.1 exactly
    assert iou["15"] > 0.9
    assert found.single[0] < 0.45
    assert iou["1"] < 0.45
    assert {*np.argsort(-found.weights[0])[:3]} == {4, 5, 6}
    assert found.units[0] in (4, 5, 6)
    assert found.interval[0, 1, 0] > max(found.chance[0, 0], found.permuted[0], found.single[0])


def test_a_concept_that_is_in_no_unit_has_no_vector() -> None:
    x, concept, groups = spread()
    noise = np.random.default_rng(4).permutation(concept)
    found = net2vec(x, noise[:, None], groups=groups, quantile=0.1)
    assert found.value[0, -1] < found.chance[0, 0] + 0.05  # saying yes everywhere is as good


def test_cosines_tell_which_concepts_are_written_alike_and_which_against_each_other() -> None:
    x, concept, groups = spread()
    rng = np.random.default_rng(1)
    nearly = np.where(rng.random(len(concept)) < 0.02, 1 - concept, concept)
    other = rng.integers(0, 2, len(concept))
    x[other == 1, 9] += 6
    columns = np.stack([concept, nearly, 1 - concept, other], 1)
    found = net2vec(x, columns, groups=groups, quantile=0.1, bias=True, names=["a", "b", "not a", "c"])
    assert found.ticks[0] == ("a", "b", "not a", "c")
    assert found.cosines[0, 1] > 0.9
    assert found.cosines[0, 2] < -0.9
    assert abs(found.cosines[0, 3]) < 0.2


def test_classes_are_concepts_one_each() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 600)
    x = rng.normal(size=(600, 5)) * 0.3
    x[np.arange(600), y] += 4
    found = net2vec(x, y, quantile=0.33, n_units=[1])
    assert found.value.shape == (3, 2)
    assert found.units.tolist() == [0, 1, 2]
    assert found.value.min() > 0.9


def test_units_are_on_in_their_share_of_the_train_rows() -> None:
    x, concept, groups = spread()
    found = net2vec(x * 100 - 3, concept[:, None], groups=groups, quantile=0.2)
    assert (x * 100 - 3 > found.thresholds).mean() == pytest.approx(0.2, abs=0.02)
    same = net2vec(
        np.exp(x), concept[:, None], groups=groups, quantile=0.2
    )  # any growing map of a unit is the same unit
    np.testing.assert_allclose(same.value, found.value)


def test_unusable_concepts_are_named() -> None:
    x, concept, groups = spread(200)
    with pytest.raises(InputError, match="concept 1 is nowhere in the train rows"):
        net2vec(x, np.stack([concept, 0 * concept], 1), groups=groups)
    with pytest.raises(InputError, match="columns of 0 and 1"):
        net2vec(x, np.stack([concept, concept], 1) * 0.5)
    with pytest.raises(InputError, match="quantile = 5"):
        net2vec(x, concept[:, None], quantile=5)
    with pytest.raises(InputError, match="100 concept rows were given for 200 rows"):
        net2vec(x, concept[:100, None])
