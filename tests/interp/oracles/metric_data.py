"""The data of the metric oracles: numpy only, so that any environment makes the same."""

from __future__ import annotations

import numpy as np


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two related representations of 200 samples, 12 and 9 wide, float64, with a mean."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 12)) * np.arange(1, 13) ** -0.5 + 2.0
    y = np.maximum(x @ rng.standard_normal((12, 9)), 0) + 0.5 * rng.standard_normal((200, 9))
    return x, y


def concept() -> np.ndarray:
    """A class of three, one-hot, of each sample of :func:`pair`, which its first columns know something of."""
    x, _ = pair()
    score = x[:, :3] - x[:, :3].mean(0) + 0.5 * np.random.default_rng(4).standard_normal((len(x), 3))
    return np.eye(3)[score.argmax(1)]


def decaying() -> np.ndarray:
    """600 samples whose covariance eigenvalues fall about as 1 / i, 128 wide."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((128, 128)))[0]
    return (rng.standard_normal((600, 128)) * np.arange(1, 129) ** -0.5) @ basis


def views() -> np.ndarray:
    """30 samples with 6 views each, 8 wide."""
    rng = np.random.default_rng(2)
    return rng.standard_normal((30, 1, 8)) * np.arange(1, 9) ** -0.5 + 0.3 * rng.standard_normal((30, 6, 8))


def cloud(k: int) -> np.ndarray:
    """2000 Gaussian points of k dimensions, turned into 10."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((2000, k)) @ np.linalg.qr(rng.standard_normal((10, 10)))[0][:k]


def far(norm: float) -> tuple[np.ndarray, np.ndarray]:
    """1024 samples of spread 8 in 64 dimensions about a common mean of this length, float32: related by 0.35."""
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((1024, 64)), rng.standard_normal((1024, 64))
    y = 0.737 * x @ np.linalg.qr(rng.standard_normal((64, 64)))[0] + noise
    away = [v / np.linalg.norm(v) for v in rng.standard_normal((2, 64))]
    return (x + norm * away[0]).astype(np.float32), (y + norm * away[1]).astype(np.float32)
