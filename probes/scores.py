"""How good are a probe's scores? Discrimination (AUROC) and calibration (Brier, expected calibration error)."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from interp.errors import InputError

__all__ = ["auroc", "brier", "calibration_error"]


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a row of a class outscores one of another class; for several classes the mean over them.

    ``scores`` [sample, class], or [sample] for two classes; ``labels`` [sample] codes from 0. Ties count a half.
    Classes that no row has, or all have, are left out.
    """
    columns = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores
    values = []
    for k in range(columns.shape[1]) if columns.shape[1] > 2 else (1,):
        inside = labels == k
        n_in, n_out = int(inside.sum()), int((~inside).sum())
        if n_in and n_out:
            rank = rankdata(columns[:, k])[inside].sum()
            values.append((rank - n_in * (n_in + 1) / 2) / (n_in * n_out))
    if not values:
        raise InputError("AUROC needs rows of two classes; the tested rows are all of one")
    return float(np.mean(values))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of the probabilities [sample, class] from the truth, summed over classes (0 to 2)."""
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    return float(((probabilities - truth) ** 2).sum(1).mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, n_bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence| of the likeliest class, over bins of equal width.

    References
    ----------
    Guo et al. 2017, (5).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(labels))
