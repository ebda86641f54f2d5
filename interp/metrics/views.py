"""Views: does a representation keep what augmentation leaves alone? LiDAR, InfoNCE, DiME."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import known_compat, outcome
from interp.metrics.entropies import _entropy
from interp.metrics.rows import Groups, Rows, clustered, jackknife, leave_out, paired
from interp.metrics.spectrum import eigenvalues
from interp.results import Result

__all__ = ["dime", "infonce", "lidar"]


def lidar(x: Float[Tensor, "sample view d"], *, delta: float = 1e-4, compat: str | None = None) -> Result:
    """exp entropy of the eigenvalues of Sw^-1/2 Sb Sw^-1/2, each sample with its views a class.

    Parameters
    ----------
    x
        [sample, view, d]: several augmented views of each sample.
    delta
        Added to Sw's diagonal. The value depends on it where Sw has small eigenvalues.
    compat
        ``"reptrix"``: that library runs PCA on the matrix as if it were rows of data, with scatter not divided by the
        samples and delta 1e-6. ``"skean"``: log of this value (their published figure is the entropy).

    Returns
    -------
    Result
        In [1, min(samples - 1, d)], its ``.chance``. The standard error leaves out blocks of samples.

    References
    ----------
    Thilak et al. 2024 (LiDAR), eq. 1-4.
    """
    known_compat(compat, "reptrix", "skean")
    if x.ndim != 3 or x.shape[0] < 3 or x.shape[1] < 2:
        raise InputError(
            f"lidar takes [sample, view, d] with 3 samples and 2 views at least; got {list(x.shape)}"
        )
    rows = x.detach().double()
    n, _, d = rows.shape
    value = _lidar(rows, delta, compat)
    left = [
        _lidar(rows[torch.arange(n) % blocks != b], delta, compat)
        for blocks in [min(8, n)]
        for b in range(blocks)
    ]
    stderr = float(jackknife(torch.tensor(left, dtype=torch.float64))) if n >= 8 else None
    return outcome(
        "LiDAR", value, n=n, d=d, stderr=stderr, no_stderr="fewer than 8 samples", chance=float(min(n - 1, d)),
        convention=f"{'log of ' * (compat == 'skean')}exp entropy of the LDA matrix's eigenvalues, delta {delta:g}"
        + (f" (compat {compat})" if compat else "; chance is the ceiling min(samples - 1, d)"),
        provenance={"views": rows.shape[1]},
    )  # fmt: skip


def _lidar(rows: Tensor, delta: float, compat: str | None) -> float:
    n, views, d = rows.shape
    centre = rows.mean(1, keepdim=True)
    between = (centre - centre.mean(0, keepdim=True)).squeeze(1)
    within = (rows - centre).flatten(0, 1)
    sb, sw = between.T @ between / n, within.T @ within / (n * views)
    if compat == "reptrix":
        sb, sw, delta = sb * n, sw * views, 1e-6
    eig, vectors = torch.linalg.eigh(sw + delta * torch.eye(d, dtype=rows.dtype))
    root = vectors / eig.sqrt() @ vectors.T
    matrix = root @ sb @ root
    if compat == "reptrix":
        spread = torch.linalg.svdvals(matrix - matrix.mean(0)).square()
        p = spread / spread.sum() + 1e-7
        return float((-p * p.log()).sum().exp())
    p = torch.linalg.eigvalsh(matrix).clamp_min(0)
    entropy = _entropy(p / p.sum(), 1.0)
    return float(entropy if compat == "skean" else entropy.exp())


def infonce(x: Rows, y: Rows, *, temperature: float = 0.1) -> Result:
    """Symmetric InfoNCE of two views: cross-entropy, in nats, of finding each row's partner by cosine.

    Lower is more invariant; ``.chance`` is log n. ``.provenance["bound"]``: log n - loss, a lower bound of the mutual
    information of the views. Rows are centred and scaled to length 1.

    References
    ----------
    van den Oord et al. 2018; Skean et al. 2024.
    """
    if temperature <= 0:
        raise InputError(f"temperature = {temperature}; it is positive")
    a, b = (torch.nn.functional.normalize(side, dim=1) for side in paired(x, y))
    logits = a @ b.T / temperature
    target = torch.arange(len(a))
    losses = (
        sum(torch.nn.functional.cross_entropy(m, target, reduction="none") for m in (logits, logits.T)) / 2
    )
    assert isinstance(losses, Tensor)  # sum() of tensors is typed as possibly 0
    value, top = float(losses.mean()), float(np.log(len(a)))
    return outcome(
        "InfoNCE", value, n=len(a), d=(a.shape[1], b.shape[1]), stderr=clustered(losses), chance=top,
        convention=f"nats, both directions, cosine of centred rows, temperature {temperature:g}",
        provenance={"bound": top - value},
    )  # fmt: skip


def dime(
    x: Rows,
    y: Rows,
    *,
    alpha: float = 1.0,
    n_permutations: int = 10,
    seed: int = 0,
    groups: Groups = None,
    n_blocks: int = 8,
) -> Result:
    """Difference of matrix entropies: that of the joint kernel with partners permuted, minus with partners in place.

    The joint kernel is the elementwise product of the two Gram matrices of rows at length 1 (centred), trace 1. 0 for
    unrelated views; in nats. ``.stderr`` leaves out blocks of rows (``groups``: whole ones), two permutations each.

    Notes
    -----
    Cost: 1 + ``n_permutations`` + 3 ``n_blocks`` eigenvalue problems of n x n.

    References
    ----------
    Skean et al. 2023 (DiME), eq. 6.
    """
    grams = []
    for side in paired(x, y):
        z = torch.nn.functional.normalize(side, dim=1)
        grams.append((1 + z @ z.T) / 2)  # positive entries, so that the product cannot cancel
    n = len(grams[0])

    def entropy(kept: Tensor, order: Tensor) -> float:
        joint = grams[0][kept][:, kept] * grams[1][order][:, order]
        return float(_entropy(eigenvalues(joint / joint.trace()), alpha))

    def difference(kept: Tensor, count: int) -> tuple[float, float]:
        """The value, and its spread over permutations."""
        generator = torch.Generator().manual_seed(seed)
        orders = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(count)]
        mixed = [entropy(kept, order) for order in orders]
        spread = float(np.std(mixed, ddof=1) / count**0.5) if count > 1 else 0.0
        return float(np.mean(mixed)) - entropy(kept, kept), spread

    if n_permutations < 1:
        raise InputError(f"n_permutations = {n_permutations}; DiME is a difference from permuted partners")
    value, spread = difference(torch.arange(n), n_permutations)
    sampled = leave_out(lambda kept: difference(kept, 2)[0], n, n_blocks=n_blocks, groups=groups)
    return outcome(
        "DiME", value, n=n, d=(x.shape[1], y.shape[1]), chance=0.0,
        stderr=None if sampled is None else float(np.hypot(sampled, spread)),
        convention=f"nats, order {alpha:g}, kernel (1 + cosine) / 2, {n_permutations} permutations",
        provenance={"seed": seed},
    )  # fmt: skip
