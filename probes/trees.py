"""The structural probe: is there a linear view of the rows in which squared distances are distances in a tree?

A text's tree is given by the parent of each of its rows; :func:`parents_of_depths` makes one of nesting depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.results import Result
from interp.showing import Shown
from probes.controls import group_interval, split_by_group
from probes.erasing import matrix

__all__ = ["StructuralProbe", "TreeResult", "parents_of_depths", "structural_probe", "tree_distance"]

_SHORTEST = 4
"""Rows of the shortest text that is scored: below, most trees are alike."""


def parents_of_depths(depths: Any) -> Int[np.ndarray, "token"]:
    """The parent of each token of one text in the tree that its nesting depths draw; -1 for the first token, the root.

    The parent is the last earlier token that lies less deep; a token that no earlier one encloses hangs from the first.
    """
    levels = np.asarray(depths)
    parents = np.full(len(levels), -1)
    for i in range(1, len(levels)):
        above = np.flatnonzero(levels[:i] < levels[i])
        parents[i] = above[-1] if len(above) else 0
    return parents


def tree_distance(parents: Any) -> Int[np.ndarray, "token token"]:
    """Edges between every two nodes of one tree, given the index of each node's parent (-1: the root).

    Raises
    ------
    InputError
        Not a tree: no root or several, a parent that does not exist, or a circle.
    """
    up = np.asarray(parents)
    n, roots = len(up), np.flatnonzero(np.asarray(parents) < 0)
    if len(roots) != 1:
        raise InputError(f"a tree has one root; rows {roots[:5].tolist()} of this text have no parent")
    if up.max() >= n:
        raise InputError(f"row {int(up.argmax())} has the parent {int(up.max())}; the text has {n} rows")
    on_path = np.eye(n, dtype=bool)  # [node, ancestor or itself]
    at = up.copy()
    for _ in range(n):
        live = at >= 0
        if not live.any():
            break
        on_path[np.flatnonzero(live), at[live]] = True
        at = np.where(live, up[at], -1)
    else:
        raise InputError(
            f"row {int(np.flatnonzero(at >= 0)[0])} is its own ancestor: the parents go in a circle"
        )
    depth = on_path.sum(1)
    shared = on_path.astype(int) @ on_path.T.astype(int)
    return depth[:, None] + depth[None, :] - 2 * shared


class StructuralProbe(Shown):
    """Rows h seen through B: the squared length of B (h_i - h_j) is to be the tree distance of i and j.

    Minimises the mean over texts of sum_ij |distance - squared length| / size^2 by Adam on white rows. It starts from
    a closed form: the leading eigenvectors of sum_texts X' G X, G the Gram matrix that the distances imply (as in
    classical scaling), which for white rows is the least-squares answer's direction.

    Parameters
    ----------
    rank
        Rows of B.
    n_steps, lr
        Of Adam; the rate falls to zero along a cosine.

    Attributes
    ----------
    B_
        [rank, d] in input coordinates.
    losses_
        [step] the objective.

    References
    ----------
    Hewitt & Manning 2019, A structural probe for finding syntax in word representations, (1) and section 2.2.
    """

    def __init__(self, rank: int = 16, *, n_steps: int = 150, lr: float = 0.02) -> None:
        self.rank, self.n_steps, self.lr = rank, n_steps, lr

    def _facts(self) -> dict[str, Any]:
        said = {"rank": self.rank, "steps": self.n_steps, "rate": self.lr}
        return said | ({"fitted": self.B_} if hasattr(self, "B_") else {"fitted": False})

    def fit(self, texts: Sequence[np.ndarray], distances: Sequence[np.ndarray]) -> StructuralProbe:
        """Fit on the rows [token, d] of each text and their tree distances [token, token]."""
        d, longest = texts[0].shape[1], max(map(len, texts))
        if not 1 <= self.rank <= d:
            raise InputError(f"rank = {self.rank}; it lies between 1 and {d}")
        centred = [x - x.mean(0) for x in texts]
        white = _whitening(np.concatenate(centred))
        rows = torch.zeros(len(texts), longest, white.shape[1], dtype=torch.float64)
        wanted = torch.zeros(len(texts), longest, longest, dtype=torch.float64)
        weight = torch.zeros_like(wanted)
        for i, (x, apart) in enumerate(zip(centred, distances, strict=True)):
            rows[i, : len(x)] = torch.as_tensor(x @ white)
            wanted[i, : len(x), : len(x)] = torch.as_tensor(apart)
            weight[i, : len(x), : len(x)] = 1 / len(x) ** 2 / len(texts)
        view, self.losses_ = self._minimised(rows, wanted, weight)
        self.B_ = view @ white.T
        return self

    def _minimised(self, rows: Tensor, wanted: Tensor, weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
        view = _start(rows, wanted, weight > 0, self.rank).requires_grad_()
        optimizer = torch.optim.Adam([view], lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_steps)
        losses = np.zeros(self.n_steps)
        for step in range(self.n_steps):
            optimizer.zero_grad()
            loss = ((_squared(rows @ view.T) - wanted).abs() * weight).sum()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[step] = float(loss.detach())
        return view.detach().numpy(), losses

    def distances(self, x: Float[np.ndarray, "token d"]) -> Float[np.ndarray, "token token"]:
        """Squared distances of one text's rows as the probe sees them."""
        rows = np.asarray(x, dtype=np.float64)
        return _squared(torch.as_tensor((rows - rows.mean(0)) @ self.B_.T)).numpy()


def _whitening(rows: np.ndarray) -> np.ndarray:
    """[d, kept] to rows of unit covariance, softened where variance is less than a thousandth of the mean."""
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    kept = values > 1e-10 * values[-1]
    return vectors[:, kept] / np.sqrt(values[kept] + 1e-3 * values.mean())


def _start(rows: Tensor, wanted: Tensor, real: Tensor, rank: int) -> Tensor:
    size = real[:, :, 0].sum(1).double()[:, None, None]
    one = real[:, :, :1].double()
    centre = (torch.diag_embed(one[..., 0]) - one @ one.mT / size) @ rows  # rows are centred; padding stays 0
    inner = (centre.mT @ (-0.5 * wanted) @ centre).sum(0)
    values, vectors = torch.linalg.eigh(inner)
    if rank > len(values):
        raise InputError(f"rank = {rank}; the rows span {len(values)} directions")
    view = vectors[:, -rank:].T * values[-rank:].clamp_min(1e-3 * float(values[-1])).sqrt()[:, None]
    seen = _squared(rows @ view.T)[real & (wanted > 0)]
    return view * (wanted[real & (wanted > 0)].mean() / seen.mean().clamp_min(1e-300)).sqrt()


def _squared(seen: Tensor) -> Tensor:
    power = seen.square().sum(-1)
    return power[..., :, None] + power[..., None, :] - 2 * seen @ seen.mT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TreeResult(Result):
    """Held-out UUAS by rank of the probe; ``chance`` is that of joining each token to the one before it."""

    spearman: np.ndarray
    """[rank] Spearman correlation of seen and true distances, a token's row at a time, mean over texts."""
    spearman_interval: np.ndarray
    """[rank, 2]"""
    spearman_chain: float
    """The same of the distance along the text."""
    other_trees: np.ndarray
    """[rank] UUAS of probes fitted on, and tested on, trees whose nodes were permuted within their text."""
    other_spearman: np.ndarray
    """[rank] Spearman of these."""


def structural_probe(
    x: Any,
    parents: Any,
    texts: Any,
    *,
    ranks: Sequence[int] = (1, 2, 4, 8, 16),
    n_steps: int = 150,
    seed: int = 0,
    test_fraction: float = 0.3,
) -> TreeResult:
    """Can the trees of held-out texts be seen in their rows?

    Parameters
    ----------
    x
        Activations [sample, d].
    parents
        [sample] place of each row's parent among the rows of its text (counted from 0), -1 for the root.
    texts
        [sample] which text a row is of; whole texts are held out.

    Returns
    -------
    TreeResult
        ``.value`` [rank]: *UUAS*, the share of the true edges that the minimum spanning tree of the seen distances has.

    Notes
    -----
    Two fits a rank, the second of permuted trees: what a probe of that rank gets out of any tree of the same shape.

    References
    ----------
    Hewitt & Manning 2019, section 3.
    """
    rows, up, belongs = matrix(x), np.asarray(parents), np.asarray(texts)
    if not len(rows) == len(up) == len(belongs):
        raise InputError(f"{len(rows)} rows, {len(up)} parents and {len(belongs)} texts; one of each a row")
    held = split_by_group(belongs, test_fraction=test_fraction, seed=seed)
    index = [np.flatnonzero(belongs == name) for name in np.unique(belongs)]
    index = [i for i in index if len(i) >= _SHORTEST]
    true = [_named_distance(up[i], belongs[i[0]]) for i in index]
    rng = np.random.default_rng([seed, 5])
    orders = [rng.permutation(len(i)) for i in index]
    false = [apart[np.ix_(order, order)] for apart, order in zip(true, orders, strict=True)]
    tested = np.array([bool(held[i[0]]) for i in index])
    if not 0 < tested.sum() < len(tested):
        raise InputError(
            f"of {len(tested)} texts of {_SHORTEST} rows or more {tested.sum()} are held out; give more"
        )

    def scored(trees: list[np.ndarray], rank: int) -> tuple[np.ndarray, np.ndarray]:
        train = [(rows[i], t) for i, t, out in zip(index, trees, tested, strict=True) if not out]
        probe = StructuralProbe(rank, n_steps=n_steps).fit(*zip(*train, strict=True))
        seen = [(probe.distances(rows[i]), t) for i, t, out in zip(index, trees, tested, strict=True) if out]
        return np.array([shared_edges(a, b) for a, b in seen]), np.array(
            [rank_agreement(a, b) for a, b in seen]
        )

    own, other = [scored(true, r) for r in ranks], [scored(false, r) for r in ranks]
    edges = np.array([len(i) - 1 for i, out in zip(index, tested, strict=True) if out], dtype=float)
    chain = [
        (np.abs(np.subtract.outer(*[np.arange(len(t))] * 2)), t)
        for t, out in zip(true, tested, strict=True)
        if out
    ]
    stderr, ends = group_interval(np.stack([hits for hits, _ in own]), edges)
    orders_interval = group_interval(np.stack([agree for _, agree in own]), np.ones(len(edges)))[1]
    return TreeResult(
        name="structural probe", value=np.array([hits.sum() / edges.sum() for hits, _ in own]), stderr=stderr,
        interval=ends, n=int(tested.sum()), axes=("rank",), ticks=(tuple(str(r) for r in ranks),),
        chance=float(sum(shared_edges(a, b) for a, b in chain) / edges.sum()),
        convention=f"UUAS over held-out texts of {_SHORTEST} rows or more; bootstrap over texts; chance: a chain",
        spearman=np.array([agree.mean() for _, agree in own]), spearman_interval=orders_interval,
        spearman_chain=float(np.mean([rank_agreement(a, b) for a, b in chain])),
        other_trees=np.array([hits.sum() / edges.sum() for hits, _ in other]),
        other_spearman=np.array([agree.mean() for _, agree in other]),
        provenance={"n_train": int((~tested).sum()), "seed": seed},
    )  # fmt: skip


def _named_distance(up: np.ndarray, text: Any) -> np.ndarray:
    try:
        return tree_distance(up)
    except InputError as error:
        raise InputError(f"text {text}: {error}") from None


def shared_edges(seen: np.ndarray, true: np.ndarray) -> int:
    """How many edges of the true tree the minimum spanning tree of the seen distances has."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    shift = seen - seen.min() + 1e-9 * max(float(np.ptp(seen)), 1e-300)  # a zero would be no edge at all
    found = minimum_spanning_tree(shift).tocoo()
    return int((true[found.row, found.col] == 1).sum())


def rank_agreement(seen: np.ndarray, true: np.ndarray) -> float:
    """Mean over nodes of the Spearman correlation of their seen and true distances to the others.

    A node that is equally far from all others in the true tree has no order to agree with and is left out.
    """
    from scipy.stats import rankdata

    found = []
    for i in range(len(true)):
        a, b = (rankdata(np.delete(m[i], i)) for m in (seen, true))
        a, b = a - a.mean(), b - b.mean()
        size = float(np.sqrt((a @ a) * (b @ b)))
        if b.any():
            found.append(float(a @ b) / size if size else 0.0)
    return float(np.mean(found)) if found else 0.0
