"""Nulls: what a count of codes would be if clean and corrupted prompts were exchanged at random within their pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuits.layout import Layout

__all__ = ["Null", "against_chance", "paired_swaps"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Null:
    """Observed statistics of parts and edges beside their null."""

    observed: np.ndarray
    """[source]"""
    chance: np.ndarray
    """[source] the mean of the null."""
    p: np.ndarray
    """[source] share of the null at or above the observed, itself counted."""
    score: np.ndarray
    """[source] standard score."""
    edges: np.ndarray
    """[edge] standard scores, of each the least of the edge's and its ends', shifted to begin at 0."""


def paired_swaps(n: int, n_draws: int, seed: int) -> np.ndarray:
    """[1 + draw, 2 n] 1 where a row counts as clean: first as it is, then with pairs exchanged at random."""
    swap = np.random.default_rng(seed).random((n_draws, n)) < 0.5
    clean = np.concatenate([np.zeros((1, n), bool), swap]).astype(np.float64)
    return np.concatenate([1 - clean, clean], axis=1)


def against_chance(codes: np.ndarray, labels: np.ndarray, *, layout: Layout, statistic: str) -> Null:
    """Node and edge statistics of codes [row source] over their null."""
    n_sources, most = codes.shape[1], int(codes.max()) + 1
    each = np.stack([_statistic(codes[:, s], labels, statistic) for s in range(n_sources)])
    score = np.array([_standard(row) for row in each])
    worth, pairs = np.empty(layout.n_edges), {}

    def joint(s: int, f: int) -> float:
        if (s, f) not in pairs:  # queries, keys and values of a head ask the same
            pairs[s, f] = _standard(_statistic(codes[:, s] * most + codes[:, f], labels, statistic))
        return pairs[s, f]

    for d, feeds in enumerate(layout.feeds):
        start = layout.offsets[d]
        for s in range(layout.reads[d]):
            ends = [score[s], max((score[f] for f in feeds), default=np.inf)]
            worth[start + s] = min(*ends, max((joint(s, f) for f in feeds), default=np.inf))
    return Null(
        observed=each[:, 0],
        chance=each[:, 1:].mean(1),
        p=(1 + (each[:, 1:] >= each[:, :1]).sum(1)) / each.shape[1],
        score=score,
        edges=worth - worth.min(),
    )


def _statistic(codes: np.ndarray, labels: np.ndarray, statistic: str) -> np.ndarray:
    """[draw] codes that only clean rows have, or the information (nats) between code and label."""
    _, code = np.unique(codes, return_inverse=True)
    total = np.bincount(code)
    clean = labels @ np.eye(len(total))[code]
    if statistic == "unique":
        return ((clean == total) & (total > 0)).sum(1).astype(float)
    n = len(codes)
    counts = np.stack([clean, total - clean])
    # the label's two halves are equal in every draw
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts / n * np.log(2 * counts / total), 0.0)
    return terms.sum((0, 2))


def _standard(draws: np.ndarray) -> float:
    """The first value over the others' mean and deviation; 0 where they do not vary."""
    spread = draws[1:].std()
    return float((draws[0] - draws[1:].mean()) / spread) if spread > 0 else 0.0
