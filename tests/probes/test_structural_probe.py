"""The structural probe: planted trees are seen, permuted ones are not, and the language's nested lists are trees."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path
from scipy.stats import spearmanr

from interp.errors import InputError
from probes import StructuralProbe, parents_of_depths, structural_probe, tree_distance
from probes.trees import rank_agreement, shared_edges


def random_tree(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.array([-1, *(rng.integers(0, i) for i in range(1, n))])


def planted(n_texts: int = 50, size: int = 8, d: int = 24, seed: int = 0):
    """Every node adds a direction of its own to its parent's row, so squared distance is tree distance; then noise."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    rows, parents, texts = [], [], []
    for t in range(n_texts):
        up = random_tree(size, rng)
        x = np.zeros((size, d))
        for i in range(1, size):
            x[i] = x[up[i]]
            x[i, i] += 1.0
        x[:, size:] = rng.normal(size=(size, d - size)) * 3  # louder than the tree
        rows.append(x @ turn + 20)
        parents.append(up)
        texts.append(np.full(size, t))
    return np.concatenate(rows), np.concatenate(parents), np.concatenate(texts)


def test_planted_trees_are_seen_and_permuted_ones_are_not() -> None:
    x, parents, texts = planted()
    found = structural_probe(x, parents, texts, ranks=[1, 7])
    assert found.value[1] > 0.9
    assert found.spearman[1] > 0.9
    assert found.interval[1, 0] > max(found.chance, found.other_trees[1]) + 0.2
    assert found.other_trees[1] < 0.45  # 7 edges of 28 pairs: a quarter by chance
    assert found.spearman[0] < found.spearman[1] - 0.1  # one direction cannot hold a tree with branches


def test_trees_that_are_nowhere_in_the_rows_are_not_seen() -> None:
    x, parents, texts = planted()
    noise = np.random.default_rng(3).normal(size=x.shape)
    found = structural_probe(noise, parents, texts, ranks=[7])
    assert found.interval[0, 0] < 0.3
    assert abs(found.spearman[0]) < 0.15


def test_distances_are_those_of_a_shortest_path_search() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 9, 15):
        up = random_tree(n, rng)
        graph = np.zeros((n, n))
        graph[np.arange(1, n), up[1:]] = 1
        np.testing.assert_array_equal(tree_distance(up), shortest_path(graph, directed=False))


def test_the_tree_of_a_nested_list_is_its_brackets() -> None:
    # ( a , [ b c ] , d )
    depths = [0, 1, 1, 1, 2, 2, 1, 1, 1, 0]
    assert parents_of_depths(depths).tolist() == [-1, 0, 0, 0, 3, 3, 0, 0, 0, 0]
    assert tree_distance(parents_of_depths(depths))[4, 9] == 3


def test_the_scores_are_what_they_say() -> None:
    rng = np.random.default_rng(1)
    true = tree_distance(random_tree(7, rng))
    assert shared_edges(true.astype(float), true) == 6
    assert rank_agreement(true.astype(float), true) == pytest.approx(1)
    seen = rng.random((7, 7))
    each = [
        spearmanr(np.delete(seen[i], i), np.delete(true[i], i))[0]
        for i in range(7)
        if np.ptp(np.delete(true[i], i))
    ]
    assert rank_agreement(seen, true) == pytest.approx(np.mean(each))
    star = tree_distance([-1, 0, 0, 0])
    chain = np.abs(np.subtract.outer(np.arange(4), np.arange(4))).astype(float)
    assert shared_edges(chain, star) == 1


def test_the_objective_falls_and_a_turned_stream_is_seen_alike() -> None:
    x, parents, _ = planted(12)
    texts = list(x.reshape(12, 8, -1))
    apart = [tree_distance(up) for up in parents.reshape(12, 8)]
    probe = StructuralProbe(6, n_steps=60).fit(texts, apart)
    assert probe.losses_[-1] < 0.6 * probe.losses_[0]
    seen = probe.distances(texts[0])
    np.testing.assert_allclose(seen, probe.distances(texts[0] + 100), atol=1e-8)
    pairs = (texts[0][:, None] - texts[0][None]) @ probe.B_.T
    np.testing.assert_allclose(seen, (pairs**2).sum(-1), atol=1e-8)


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([-1, -1, 0], r"one root; rows \[0, 1\]"),
        ([-1, 5, 0], "row 1 has the parent 5; the text has 3 rows"),
        ([-1, 2, 1], "row 1 is its own ancestor"),
    ],
)
def test_what_is_no_tree_is_named_with_its_row(parents: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tree_distance(parents)
    x = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(InputError, match=message if len(parents) < 3 else "no parent|text"):
        structural_probe(x, parents * 2, [7, 7, 7, 8, 8, 8])
