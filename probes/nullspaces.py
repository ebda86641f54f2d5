"""Erasure by projection: INLP, which removes one classifier after another, and R-LACE, the best few directions at once.

Both remove a subspace orthogonally; neither has LEACE's guarantee, so both report what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from interp.errors import InputError
from interp.intervals import wilson_interval
from probes.erasing import Eraser, finished, joint_of, matrix, targets

__all__ = ["inlp", "rlace"]


def inlp(x: Any, z: Any, *, probe: Any = None, n_steps: int = 20, seed: int = 0) -> Eraser:
    """Iterative nullspace projection: fit a classifier, project out its weights, until it is no better than guessing.

    Parameters
    ----------
    x, z
        Rows [sample, d] and classes [sample].
    probe
        The classifier to clone; a weakly penalised :class:`probes.LogisticProbe` by default.
    n_steps
        Classifiers at most.
    seed
        Of the half of the rows on which each classifier is judged.

    Notes
    -----
    Stops when the accuracy on the other half lies within the 95% interval of the majority's. Removes more directions
    than LEACE needs: compare ``.distortion``.

    References
    ----------
    Ravfogel et al. 2020, Null it out, algorithm 1.
    """
    from probes.linear import LogisticProbe

    rows, labels = matrix(x), np.asarray(z)
    joint = joint_of(rows, labels)
    template = LogisticProbe(C=1.0, max_iter=500) if probe is None else probe
    judged = np.random.default_rng(seed).permutation(len(rows)) < len(rows) // 2
    basis, rest = np.zeros((0, rows.shape[1])), rows - joint.mean
    _, codes = np.unique(labels[judged], return_inverse=True)
    majority = float(np.bincount(codes).max() / judged.sum())
    high = wilson_interval(majority * judged.sum(), int(judged.sum()))[1]
    for _ in range(n_steps):
        fitted = clone(template).fit(rest[~judged], labels[~judged])
        if float((fitted.predict(rest[judged]) == labels[judged]).mean()) <= high:
            break
        new = np.asarray(fitted.coef_) - (np.asarray(fitted.coef_) @ basis.T) @ basis
        _, s, directions = np.linalg.svd(new, full_matrices=False)
        basis = np.concatenate([basis, directions[s > 1e-8 * s[0]]])
        basis = np.linalg.qr(basis.T)[0].T
        rest = rows - joint.mean - (rows - joint.mean) @ basis.T @ basis
        if len(basis) >= rows.shape[1]:
            break
    return finished(joint, basis.T, basis, method="inlp")


def rlace(
    x: Any,
    z: Any,
    *,
    rank: int = 1,
    n_steps: int = 500,
    lr: float = 0.05,
    penalty: float = 1e-4,
    seed: int = 0,
) -> Eraser:
    """The orthogonal projection of given rank that makes the best logistic classifier worst.

    Parameters
    ----------
    x, z
        Rows [sample, d] and classes [sample].
    rank
        Directions to remove.
    n_steps, lr
        Of the alternating gradient steps, on standardised scale.
    penalty
        On the classifier's squared weights.

    Notes
    -----
    The projection moves in the Fantope (0 <= P <= 1, trace = rank); its top ``rank`` eigenvectors are removed at the
    end, of the iterate that left a refitted classifier worst. It starts from the leading directions of cov(x, z), which
    for squared loss are the optimum.

    References
    ----------
    Ravfogel et al. 2022, Linear adversarial concept erasure, section 3.2.
    """
    rows, columns = matrix(x), targets(z)
    joint = joint_of(rows, z)
    d = rows.shape[1]
    if not 1 <= rank < d:
        raise InputError(f"rank = {rank}; it lies between 1 and {d - 1}")
    scale = float(np.sqrt(joint.xx.trace() / joint.n / d)) or 1.0
    data = torch.as_tensor((rows - joint.mean) / scale)
    label = torch.as_tensor(columns.argmax(1))
    start = torch.as_tensor(np.linalg.svd(joint.xz, full_matrices=False)[0][:, :rank])
    extra = torch.randn(
        d, rank - start.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    start = torch.linalg.qr(torch.cat([start, extra], 1))[0]
    soft = (start @ start.T).requires_grad_()
    weights = torch.zeros(d, columns.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(columns.shape[1], dtype=torch.float64, requires_grad=True)
    player = torch.optim.Adam([weights, bias], lr=lr)
    best, chosen = -np.inf, start
    for step in range(n_steps):
        loss = _loss(data - data @ soft, label, weights, bias) + penalty * weights.square().sum()
        (slope,) = torch.autograd.grad(loss, [soft], retain_graph=True)
        player.zero_grad()
        loss.backward(inputs=[weights, bias])
        player.step()
        with torch.no_grad():
            soft.copy_(_fantope(soft + lr * (slope + slope.T) / 2, rank))
        if step % 50 == 49 or step == n_steps - 1:
            top = torch.linalg.eigh(soft.detach())[1][:, -rank:]
            left = _refit(data - data @ top @ top.T, label, columns.shape[1])
            if left > best:
                best, chosen = left, top
    q = chosen.numpy()
    return finished(joint, q, q.T, method=f"rlace[{rank}]")


def _loss(data: torch.Tensor, label: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(data @ weights + bias, label)


def _refit(data: torch.Tensor, label: torch.Tensor, n_classes: int) -> float:
    """Cross-entropy of the best classifier on what is left, nats."""
    from probes.torch_logistic import minimise

    codes = label.numpy()
    rows = data.numpy()
    coef, bias, *_ = minimise(
        rows, codes, penalty=1e-3, weights=np.ones(len(codes)), max_iter=50, tol=1e-5, device="cpu"
    )
    scores = torch.as_tensor(rows @ coef.T + bias)
    if n_classes == 2:
        scores = torch.cat([torch.zeros_like(scores), scores], 1)
    return float(torch.nn.functional.cross_entropy(scores, label))


def _fantope(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest symmetric matrix with eigenvalues in [0, 1] and trace ``rank``."""
    values, vectors = torch.linalg.eigh(matrix)
    low, high = float(values[0]) - 1, float(values[-1])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((values - middle).clamp(0, 1).sum()) > rank else (low, middle)
    return (vectors * (values - (low + high) / 2).clamp(0, 1)) @ vectors.T
