"""Matching: do single neurons of two representations correspond, one to one, one to many, or a few to one?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import NOT_ASKED, outcome
from interp.metrics.rows import Data, Groups, Rows, leave_out, paired, plain_rows
from interp.moments.accumulator import SiteMoments
from interp.results import Result

__all__ = ["co_clusters", "correlations", "match_neurons", "sparse_prediction"]


def correlations(x: Data, y: Data) -> Float64[Tensor, "d e"]:
    """Pearson correlation of every column of ``x`` with every column of ``y``; 0 where a column is constant."""
    if isinstance(x, SiteMoments) and isinstance(y, SiteMoments):
        cross, own = x.cross(y), [s.scatter.diagonal() for s in (x, y)]
    else:
        a, b = paired(plain_rows(x, "x", "correlation"), plain_rows(y, "y", "correlation"))
        cross, own = a.T @ b, [s.square().sum(0) for s in (a, b)]
    inverse = [torch.where(v > 1e-20 * v.max(), 1 / v.sqrt(), 0.0) for v in own]
    return cross * inverse[0][:, None] * inverse[1]


def match_neurons(x: Data, y: Data, *, how: str = "one_to_one", absolute: bool = False) -> Result:
    """Mean correlation of each neuron of ``x`` with its match in ``y``.

    Parameters
    ----------
    x, y
        [sample, d] and [sample, e], or two sites of one Moments.
    how
        ``"one_to_one"``: the assignment with the largest sum (Hungarian). ``"one_to_many"``: every neuron takes its
        best partner, so that partners are shared; the value is the mean over both directions.
    absolute
        Match on |r|.

    Returns
    -------
    Result
        ``.provenance["match"]``: for each neuron of ``x`` its partner (-1 for none). ``.chance``: the same over rows
        permuted (None for Moments). The standard error is over neurons, not over rows. A rotation lowers this where CKA
        stays 1.

    References
    ----------
    Li et al. 2016 (Convergent Learning).
    """
    if how not in ("one_to_one", "one_to_many"):
        raise InputError(f"how={how!r}; it is 'one_to_one' or 'one_to_many'")
    table = correlations(x, y)
    value, match = _matched(table, how, absolute)
    chance, n = None, x.n if isinstance(x, SiteMoments) else len(x)
    if not isinstance(x, SiteMoments):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        shuffled = correlations(torch.as_tensor(x)[order], y)
        chance = _matched(shuffled, how, absolute)[0]
    kept = table[torch.arange(len(table)), match].where(match >= 0, torch.nan)
    spread = kept[torch.isfinite(kept)].std(correction=1) / max(1, int((match >= 0).sum())) ** 0.5
    return outcome(
        "neuron matching", value, n=n, d=tuple(table.shape), stderr=float(spread), chance=chance,
        no_stderr="one neuron: the error is over neurons", no_chance="moments hold no rows to permute",
        convention=f"mean {'|r|' if absolute else 'r'}, {how.replace('_', ' ')}; error over neurons, not rows",
        provenance={"match": match.tolist()},
    )  # fmt: skip


def _matched(table: Tensor, how: str, absolute: bool) -> tuple[float, Tensor]:
    from scipy.optimize import linear_sum_assignment

    score = table.abs() if absolute else table
    if how == "one_to_many":
        return float((score.amax(0).mean() + score.amax(1).mean()) / 2), score.argmax(1)
    left, right = linear_sum_assignment(score.cpu().numpy(), maximize=True)
    match = torch.full((len(table),), -1, dtype=torch.long)
    match[left] = torch.as_tensor(right)
    return float(score[left, right].mean()), match


def sparse_prediction(
    x: Rows, y: Rows, *, n_predictors: Sequence[int] = (1, 2, 4, 8), seed: int = 0
) -> Result:
    """Held-out R^2 of each neuron of ``y`` from its best few neurons of ``x``, averaged, by number of predictors.

    The predictors are the first to enter the L1 (lasso) path on one half of the rows, their least-squares fit is
    scored on the other half.

    References
    ----------
    Li et al. 2016, section 4.
    """
    from sklearn.linear_model import lars_path

    a, b = paired(x, y)
    n = len(a)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    train, test = order[: n // 2], order[n // 2 :]
    most = max(n_predictors)
    if not min(n_predictors) > 0 or most > a.shape[1] or most >= len(train):
        raise InputError(
            f"n_predictors {list(n_predictors)} of {a.shape[1]} neurons and {len(train)} training rows"
        )
    scale = a[train].std(0).clamp_min(1e-300)
    at, bt = (a[train] - a[train].mean(0)) / scale, b[train] - b[train].mean(0)
    scores = np.zeros((b.shape[1], len(n_predictors)))
    for j in range(b.shape[1]):
        *_, path = lars_path(at.numpy(), bt[:, j].numpy(), method="lasso", max_iter=2 * most)
        entered = list(dict.fromkeys(i for step in path.T for i in np.flatnonzero(step)))
        for column, k in enumerate(n_predictors):
            chosen = torch.as_tensor(entered[:k] or [0])
            weights = torch.linalg.lstsq(at[:, chosen], bt[:, j : j + 1]).solution
            guess = ((a[test][:, chosen] - a[train][:, chosen].mean(0)) / scale[chosen]) @ weights
            rest = b[test, j] - b[train, j].mean()
            scores[j, column] = 1 - float((rest - guess[:, 0]).square().sum() / rest.square().sum())
    return outcome(
        "sparse prediction", scores.mean(0), n=len(test), d=(a.shape[1], b.shape[1]), axes=("predictors",),
        ticks=(tuple(map(str, n_predictors)),), stderr=scores.std(0, ddof=1) / len(scores) ** 0.5, chance=0.0,
        convention="held-out R^2 from the first neurons on the L1 path, mean over neurons of y; error over neurons",
        provenance={"seed": seed},
    )  # fmt: skip


def co_clusters(
    x: Data, y: Data, *, n_clusters: int, seed: int = 0, groups: Groups = None, n_blocks: int = 8
) -> Result:
    """Groups of neurons that span the same subspace on both sides: spectral co-clustering of |r|.

    ``.value``: the share of the total |r| that lies within clusters. ``.chance``: the same over rows permuted (of a
    Moments: the share if |r| were spread evenly). The standard error leaves out blocks of rows (``groups``: whole
    ones), clusters found anew. ``.provenance["x"]``, ``["y"]``: the cluster of each neuron.

    References
    ----------
    Li et al. 2016, section 5; Dhillon 2001.
    """
    table = correlations(x, y).abs().cpu().numpy()
    if not 1 < n_clusters <= min(table.shape):
        raise InputError(f"n_clusters = {n_clusters} of {table.shape[0]} and {table.shape[1]} neurons")
    value, even, found = _clustered(table, n_clusters, seed)
    if isinstance(x, SiteMoments) or isinstance(y, SiteMoments):
        n, chance, stderr, how = x.n if isinstance(x, SiteMoments) else len(x), even, None, "spread evenly"
    else:
        a, b = paired(x, y)
        n, how = len(a), "rows permuted"

        def share(left: Tensor, right: Tensor) -> float:
            return _clustered(correlations(left, right).abs().numpy(), n_clusters, seed)[0]

        stderr = leave_out(lambda kept: share(a[kept], b[kept]), n, n_blocks=n_blocks, groups=groups)
        chance = share(a[torch.randperm(n, generator=torch.Generator().manual_seed(seed))], b)
    return outcome(
        "co-clusters", value, n=n, d=table.shape, chance=chance, stderr=stderr,
        no_stderr="moments hold no rows to leave out" if isinstance(x, SiteMoments) else NOT_ASKED,
        convention=f"share of |r| within {n_clusters} spectral co-clusters; chance: {how}",
        provenance={"x": found[0].tolist(), "y": found[1].tolist(), "seed": seed},
    )  # fmt: skip


def _clustered(table: np.ndarray, n_clusters: int, seed: int) -> tuple[float, float, list[np.ndarray]]:
    """The share of |r| within clusters, that of an even spread, and the clusters of rows and columns."""
    from sklearn.cluster import SpectralCoclustering

    fitted = SpectralCoclustering(n_clusters=n_clusters, random_state=seed).fit(table + 1e-12)
    same = fitted.row_labels_[:, None] == fitted.column_labels_[None, :]
    return (
        float(table[same].sum() / table.sum()),
        float(same.mean()),
        [fitted.row_labels_, fitted.column_labels_],
    )
