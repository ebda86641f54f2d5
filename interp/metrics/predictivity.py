"""Predictivity: can one representation be read off another by a linear map, or through common anchors?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.metrics.declared import outcome
from interp.metrics.rows import Groups, Rows, blocks_of, checked, leave_out, paired
from interp.results import Result

__all__ = ["linear_predictivity", "relative_representation", "zero_shot_stitch"]

_SIMILARITIES = ("cosine", "euclidean", "l1", "linf")


def linear_predictivity(
    x: Rows, y: Rows, *, ridge: float = 0.0, n_folds: int = 5, in_sample: bool = False, groups: Groups = None
) -> Result:
    """Share of the variance of ``y`` that a linear map from ``x`` predicts on rows it was not fitted on.

    Parameters
    ----------
    x, y
        [sample, d] and [sample, e].
    ridge
        Penalty as a share of the mean eigenvalue of x's covariance; 0 is least squares, blind to any invertible map.
    n_folds
        Folds; whole ``groups`` [sample] if given. The standard error is that of the mean over folds;
        in sample it leaves out blocks.
    in_sample
        Fit and score on the same rows: Kornblith's |Qx'Yc|^2 / |Yc|^2, which grows with d / n.

    Returns
    -------
    Result
        ``.value`` <= 1, may be negative; ``.chance`` 0 held out, d / (n - 1) in sample. Asymmetric.

    References
    ----------
    Kornblith et al. 2019, section 2 (linear regression).
    """
    a, b = paired(x, y)
    n, d = a.shape
    if float(b.abs().max()) <= 1e-12 * float(torch.as_tensor(y).abs().max()):
        return outcome(
            "linear predictivity", float("nan"), n=n, d=(d, b.shape[1]), convention="R^2",
            reason="y is constant: it has no variance to predict",
        )  # fmt: skip
    if in_sample:
        fit = _fit(a, b, ridge)
        value = float(1 - (b - a @ fit).square().sum() / b.square().sum())

        def left(kept: Tensor) -> float:
            p, q = a[kept] - a[kept].mean(0), b[kept] - b[kept].mean(0)
            return float(1 - (q - p @ _fit(p, q, ridge)).square().sum() / q.square().sum())

        stderr = leave_out(left, n, n_blocks=8, groups=groups)
    else:
        scores, weights = [], []
        for fold in blocks_of(n, n_folds, groups):
            train = torch.ones(n, dtype=torch.bool)
            train[fold] = False
            mx, my = a[train].mean(0), b[train].mean(0)
            guess = (a[fold] - mx) @ _fit(a[train] - mx, b[train] - my, ridge) + my
            base = float((b[fold] - my).square().sum())
            scores.append(1 - float((b[fold] - guess).square().sum()) / base)
            weights.append(base)
        value = float(np.average(scores, weights=weights))
        stderr = float(np.std(scores, ddof=1) / len(scores) ** 0.5)
    split = (
        "in sample" if in_sample else f"held out, {n_folds} folds{' of whole groups' * (groups is not None)}"
    )
    return outcome(
        "linear predictivity", value, n=n, d=(d, b.shape[1]), stderr=stderr,
        chance=d / (n - 1) if in_sample else 0.0,
        convention=f"R^2 of y from x over all columns, ridge {ridge:g} x mean eigenvalue, {split}",
        bias="" if not in_sample else "in-sample R^2 of unrelated data is d / n",
    )  # fmt: skip


def _fit(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    if ridge == 0:
        return torch.linalg.lstsq(a, b, driver="gelsd").solution
    gram = a.T @ a
    return torch.linalg.solve(gram + ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram), a.T @ b)


def relative_representation(
    x: Rows, anchors: Rows, *, similarity: str | Sequence[str] = "cosine"
) -> Float64[Tensor, "sample anchor"]:
    """Each row by its similarity to anchors: comparable between models that were given the same anchors.

    Parameters
    ----------
    x, anchors
        [sample, d] and [anchor, d].
    similarity
        ``"cosine"`` (blind to rotation and scale), ``"euclidean"`` (rotation and shift), ``"l1"``, ``"linf"``
        (permutation), distances with a minus sign; several are each standardised by row and laid side by side.

    References
    ----------
    Moschella et al. 2023; Cannistraci et al. 2024 (From Bricks to Bridges).
    """
    rows, marks = checked(x, least=1), checked(anchors, "anchors", least=1)
    if rows.shape[1] != marks.shape[1]:
        raise InputError(f"x has {rows.shape[1]} columns and the anchors {marks.shape[1]}")
    kinds = [similarity] if isinstance(similarity, str) else list(similarity)
    parts = []
    for kind in kinds:
        if kind not in _SIMILARITIES:
            raise InputError(f"similarity={kind!r}{nearest(kind, _SIMILARITIES)}")
        if kind == "cosine":
            part = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(marks, dim=1).T
        else:
            part = -torch.cdist(rows, marks, p={"euclidean": 2.0, "l1": 1.0, "linf": float("inf")}[kind])
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    return torch.cat([torch.nn.functional.layer_norm(part, part.shape[1:]) for part in parts], 1)


def zero_shot_stitch(
    x: Rows,
    y: Rows,
    labels: Int64[Tensor, "sample"] | np.ndarray,
    *,
    n_anchors: int = 64,
    similarity: str | Sequence[str] = "cosine",
    ridge: float = 1e-3,
    seed: int = 0,
) -> Result:
    """Accuracy of a decoder trained on the relative representation of ``x`` and run, untrained, on that of ``y``.

    Rows are split in halves: anchors and training rows from the first, scores from the second. The decoder is ridge
    regression to one-hot labels. ``.ticks``: own (trained and run on x), stitched (run on y), absolute (the decoder
    of x's own coordinates run on y; where widths differ, on y's leading columns). ``.chance``: the largest class's
    share.

    References
    ----------
    Moschella et al. 2023, section 4.3.
    """
    a, b = paired(x, y)
    target = torch.as_tensor(labels).long()
    n = len(a)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    train, test = order[: n // 2], order[n // 2 :]
    if n_anchors > len(train):
        raise InputError(f"n_anchors = {n_anchors}, but only {len(train)} rows are for training")
    onehot = torch.nn.functional.one_hot(target[train]).double()
    marks = train[:n_anchors]
    ra, rb = (relative_representation(side, side[marks], similarity=similarity) for side in (a, b))
    width = min(a.shape[1], b.shape[1])

    def decode(source: Tensor, *others: Tensor) -> list[float]:
        mean = source[train].mean(0)
        weights = _fit(source[train] - mean, onehot - onehot.mean(0), ridge)
        guesses = [((z[test] - mean) @ weights + onehot.mean(0)).argmax(1) for z in others]
        return [float((g == target[test]).double().mean()) for g in guesses]

    own, stitched = decode(ra, ra, rb)
    (absolute,) = decode(a[:, :width], b[:, :width])
    value = np.array([own, stitched, absolute])
    return outcome(
        "zero-shot stitching", value, n=len(test), d=(a.shape[1], b.shape[1]),
        stderr=np.sqrt(value * (1 - value) / len(test)), axes=("decoder",),
        ticks=(("own", "stitched", "absolute"),),
        chance=float(torch.bincount(target[test]).max() / len(test)),
        convention=f"accuracy of a ridge decoder over {n_anchors} anchors, {similarity}", provenance={"seed": seed},
    )  # fmt: skip
