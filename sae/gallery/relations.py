"""Which latents belong together: codes that go up and down together, directions that point alike, and a map.

The map lays every latent that fires out in the plane by its nearest directions: neighbours attract each other, random
pairs repel, with UMAP's forces at a = b = 1 (McInnes et al. 2018, eq. 13 of the appendix) and PCA as the start. Near
means alike; far says little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sae.codes import Codes

__all__ = [
    "CoordinateSums",
    "Partners",
    "correlated_latents",
    "decoder_neighbours",
    "layout",
    "leading_coordinates",
]

_PAIRS = 5e7
"""Pairs of codes looked at for correlations: rows are thinned out to stay below."""


@dataclass(frozen=True, slots=True, eq=False)
class Partners:
    """[latent, shown] indices (-1: none) and how strongly."""

    index: np.ndarray
    value: np.ndarray


def correlated_latents(codes: Codes, *, n_shown: int = 5) -> tuple[Partners, int]:
    """Pearson correlation of codes over tokens, the largest partners of each latent; and over how many tokens."""
    matrix = codes.matrix.tocsr()
    per_row = float(np.mean(np.diff(matrix.indptr).astype(float) ** 2))
    n = int(min(codes.n, max(1000, _PAIRS / max(per_row, 1))))
    if n < codes.n:
        matrix = matrix[np.linspace(0, codes.n - 1, n).astype(int)]
    together = (matrix.T @ matrix).tocoo()
    total = np.asarray(matrix.sum(0)).ravel().astype(float)
    power = np.asarray(matrix.multiply(matrix).sum(0)).ravel().astype(float)
    spread = np.sqrt(np.maximum(n * power - total**2, 0))
    a, b = together.coords
    keep = (a != b) & (spread[a] > 0) & (spread[b] > 0)
    a, b, cross = a[keep], b[keep], together.data[keep].astype(float)
    r = (n * cross - total[a] * total[b]) / (spread[a] * spread[b])
    order = np.lexsort((-r, a))
    return _first(a[order], b[order], r[order], codes.d_sae, n_shown), n


def _first(a: np.ndarray, b: np.ndarray, value: np.ndarray, n: int, n_shown: int) -> Partners:
    """The first few of each run of ``a``."""
    starts = np.searchsorted(a, np.arange(n))
    rank = np.arange(len(a)) - starts[a]
    kept = rank < n_shown
    index, held = np.full((n, n_shown), -1), np.zeros((n, n_shown))
    index[a[kept], rank[kept]] = b[kept]
    held[a[kept], rank[kept]] = value[kept]
    return Partners(index, held)


class CoordinateSums:
    """Correlations of codes with the coordinates of the site, gathered while codes are made."""

    def __init__(self, d_sae: int, d: int, *, at_most: int = 200_000) -> None:
        self.cross = np.zeros((d_sae, d))
        self.code = np.zeros((2, d_sae))
        self.row = np.zeros((2, d))
        self.n, self.at_most = 0, at_most
        self.shift: np.ndarray | None = None

    def __call__(self, rows: Tensor, codes: sp.csr_array) -> None:
        """Take in one batch."""
        if self.n >= self.at_most:
            return
        x = rows.detach().cpu().double().numpy()
        if self.shift is None:
            self.shift = x.mean(0)  # coordinates may lie far from 0: sums of squares are taken about here
        x = x - self.shift
        z = codes.astype(np.float64)
        self.cross += z.T @ x
        self.code += np.stack([np.asarray(m.sum(0)).ravel() for m in (z, z.multiply(z))])
        self.row += np.stack([x.sum(0), (x**2).sum(0)])
        self.n += len(x)

    def partners(self, n_shown: int = 3) -> Partners:
        """The coordinates with the largest |correlation|."""
        n = self.n
        spread = [np.sqrt(np.maximum(n * s[1] - s[0] ** 2, 0)) for s in (self.code, self.row)]
        scale = spread[0][:, None] * spread[1]
        r = (n * self.cross - self.code[0][:, None] * self.row[0]) / np.where(scale > 0, scale, 1.0)
        r = np.where(scale > 0, r, 0.0)
        index = np.argsort(-np.abs(r), axis=1)[:, :n_shown]
        value = np.take_along_axis(r, index, 1)
        return Partners(np.where(value != 0, index, -1), value)


def leading_coordinates(directions: Tensor, n_shown: int = 3) -> Partners:
    """The coordinates of the site in which a direction is largest, as shares of its length: alignment with one."""
    unit = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-30)
    index = unit.abs().topk(min(n_shown, unit.shape[1]), dim=1).indices
    return Partners(index.numpy(), unit.gather(1, index).numpy())


def decoder_neighbours(
    directions: Tensor, *, n_shown: int = 5, n_linked: int = 10
) -> tuple[Partners, Partners]:
    """Nearest directions by cosine: those to show, and the wider ring that the map is made of."""
    unit = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-30)
    k = min(n_linked, len(unit) - 1)
    index, value = [], []
    for start in range(0, len(unit), 1024):
        cosine = unit[start : start + 1024] @ unit.T
        here = torch.arange(len(cosine))
        cosine[here, here + start] = -2.0
        best = cosine.topk(k, dim=1)
        index.append(best.indices.numpy())
        value.append(best.values.numpy())
    whole = Partners(np.concatenate(index), np.concatenate(value))
    return Partners(whole.index[:, :n_shown], whole.value[:, :n_shown]), whole


def layout(
    directions: Tensor, ring: Partners, alive: np.ndarray, *, epochs: int = 150, seed: int = 0
) -> np.ndarray:
    """[latent, 2] in [0, 1]; latents that never fire lie at 0."""
    n = len(directions)
    if alive.sum() < 3:
        return np.zeros((n, 2))
    rng = np.random.default_rng(seed)
    place = _start(directions, alive, rng)
    i = np.repeat(np.arange(n), ring.index.shape[1])
    j, weight = ring.index.ravel(), np.maximum(ring.value.ravel(), 0)
    keep = alive[i] & alive[j] & (weight > 0)
    i, j, weight = i[keep], j[keep], weight[keep]
    members = np.flatnonzero(alive)
    for epoch in range(epochs):
        rate = 1.0 - epoch / epochs
        apart = place[i] - place[j]
        square = (apart**2).sum(1)
        pull = np.clip(-2 * (weight / (1 + square))[:, None] * apart, -4, 4)
        step = _scattered(i, pull, n) - _scattered(j, pull, n)
        a, b = (members[rng.integers(len(members), size=2 * len(i))] for _ in range(2))
        apart = place[a] - place[b]
        square = (apart**2).sum(1)
        push = np.clip((0.4 / ((0.01 + square) * (1 + square)))[:, None] * apart, -4, 4)
        step += _scattered(a, push, n)
        place += 0.1 * rate * step
    low, high = np.quantile(place[alive], [0.002, 0.998], axis=0)
    shown = np.clip((place - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.where(alive[:, None], shown, 0.0)


def _start(directions: Tensor, alive: np.ndarray, rng: Any) -> np.ndarray:
    unit = (directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-30)).double().numpy()
    centred = unit - unit[alive].mean(0)
    axes = np.linalg.eigh(centred[alive].T @ centred[alive])[1][:, -2:]
    axes = axes if axes.shape[1] == 2 else np.pad(axes, ((0, 0), (0, 1)))
    place = centred @ axes
    place = 10 * place / max(float(place[alive].std()), 1e-12)
    return place + 0.01 * rng.standard_normal(place.shape)


def _scattered(index: np.ndarray, value: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(index, weights=value[:, c], minlength=n) for c in range(2)], 1)
