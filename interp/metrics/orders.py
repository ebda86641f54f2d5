"""Orders: do items lie along a line, or around a circle, in the order of their values? The shape is found without it.

The order is used once, afterwards, to judge; the p-value is over permutations of the items' values. All of them where
they are few.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import factorial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import outcome
from interp.metrics.rows import jackknife, rows64
from interp.metrics.structure import find_circle
from interp.results import Result

__all__ = ["cyclic_order", "linear_order", "plane_of"]

_ALL = 5040
"""Permutations up to which all are tried."""


def linear_order(
    x: Float[Tensor, "item d"] | Float[np.ndarray, "item d"],
    values: Int[np.ndarray, "item"] | None = None,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
) -> Result:
    """|Spearman correlation| of the items' values with their place along their first principal component.

    Parameters
    ----------
    x
        One row an item.
    values
        [item] what orders them; 0, 1, 2, ... by default.

    Returns
    -------
    Result
        ``.provenance``: ``p_value``, ``share`` (of the variance along the component), ``direction``. ``.chance``: mean
        over permutations of the values. The error leaves out one item at a time.
    """
    from scipy.stats import rankdata

    rows, order = rows64(x), _values(values, len(x))
    _, s, directions = torch.linalg.svd(rows, full_matrices=False)

    def scorer(kept: Tensor) -> Score:
        part = rows[kept] - rows[kept].mean(0)
        u = torch.linalg.svd(part, full_matrices=False)[0]
        place, ranks = _standard(rankdata(u[:, 0].numpy())), _standard(rankdata(order[kept.numpy()]))
        return lambda orders: np.abs(ranks[orders] @ place)

    return _judged(
        "linear order", scorer, rows, n_permutations, seed,
        convention="|Spearman| of the values with the first principal component",
        provenance={"share": float(s[0] ** 2 / s.square().sum()), "direction": directions[0].tolist()},
    )  # fmt: skip


def cyclic_order(
    x: Float[Tensor, "item d"] | Float[np.ndarray, "item d"],
    values: Int[np.ndarray, "item"] | None = None,
    *,
    period: int | None = None,
    plane: str = "top",
    n_permutations: int = 2000,
    seed: int = 0,
) -> Result:
    """Do the items' angles in a plane follow their values around a circle? |mean exp i(angle - 2 pi value / period)|.

    Parameters
    ----------
    x
        One row an item.
    values, period
        [item] and what they are taken modulo: 0, 1, 2, ... and the number of items by default.
    plane
        The plane, found without the values: ``"top"`` (the first two principal components) or ``"round"`` (the two of
        the first six in which the items are most nearly on a circle: :func:`find_circle`).

    Returns
    -------
    Result
        1: evenly around a circle in their order, either way round; the error leaves out one item at a time, the plane
        kept. ``.provenance``: ``p_value``, ``roundness``, ``share`` of the variance in the plane, and its two
        ``directions``. ``.chance``: mean over permutations.

    References
    ----------
    Engels et al. 2024 (Not all language model features are linear), whose example are the days of the week.
    """
    rows, order = rows64(x), _values(values, len(x))
    cycle = len(rows) if period is None else period
    if cycle < 3:
        raise InputError(f"period = {cycle}; a circle of fewer than three values has no order")
    axes, roundness = plane_of(rows, plane)
    seen = rows @ axes.T
    angle = torch.atan2(seen[:, 1], seen[:, 0]).numpy()

    def scorer(kept: Tensor) -> Score:
        seen_at, turned = np.exp(1j * angle[kept.numpy()]), np.exp(2j * np.pi * order[kept.numpy()] / cycle)

        def score(orders: np.ndarray) -> np.ndarray:
            there = turned[orders]
            return np.maximum(np.abs((there * seen_at).mean(1)), np.abs((there.conj() * seen_at).mean(1)))

        return score

    return _judged(
        "cyclic order", scorer, rows, n_permutations, seed,
        convention=f"resultant length of angle against value modulo {cycle}, plane: {plane}",
        provenance={
            "roundness": roundness, "share": float(seen.square().sum() / rows.square().sum()),
            "directions": axes.tolist(),
        },
    )  # fmt: skip


def plane_of(rows: Tensor, plane: str) -> tuple[Tensor, float]:
    """Two orthonormal directions [2, d], and how nearly the centred rows lie on a circle there (1: exactly)."""
    if plane == "round":
        found = find_circle(rows)
        if found.reason:
            raise InputError(f"the items have no plane: {found.reason}")
        return torch.tensor(found.provenance["directions"], dtype=torch.float64), float(found.value)
    if plane != "top":
        raise InputError(f"plane={plane!r}; it is 'top' or 'round'")
    u, s, directions = torch.linalg.svd(rows, full_matrices=False)
    if len(s) < 2 or s[1] <= 1e-10 * s[0]:
        raise InputError("the items have no plane: the points span fewer than two dimensions")
    radius = u[:, :2].norm(dim=1)
    return directions[:2], 1 - float(radius.std(correction=0) / radius.mean())


def _values(values: np.ndarray | None, n: int) -> np.ndarray:
    order = np.arange(n) if values is None else np.asarray(values)
    if len(order) != n or len(np.unique(order)) != n:
        raise InputError(
            f"{n} items need as many different values; got {len(order)} ({len(np.unique(order))} different)"
        )
    return order


def _standard(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean()
    return centred / np.linalg.norm(centred)


def _orders(n: int, n_permutations: int, seed: int) -> np.ndarray:
    """[permutation, n], the order itself among them."""
    if factorial(n) <= _ALL:
        return np.array(list(permutations(range(n))))
    rng = np.random.default_rng(seed)
    return np.stack([np.arange(n), *(rng.permutation(n) for _ in range(n_permutations - 1))])


Score = Callable[[np.ndarray], np.ndarray]
"""Orders of the items [permutation, n] -> a score each."""


def _judged(
    name: str, scorer: Callable[[Tensor], Score], rows: Tensor, n_permutations: int, seed: int, *,
    convention: str, provenance: dict,
) -> Result:  # fmt: skip
    """``scorer(items kept)`` judged on all items, over permutations, and with each item left out."""
    n, d = rows.shape
    score = scorer(torch.arange(n))
    value, drawn = float(score(np.arange(n)[None])[0]), score(_orders(n, n_permutations, seed))
    p = float((drawn >= value - 1e-9).mean())
    left = [scorer(torch.cat([torch.arange(i), torch.arange(i + 1, n)])) for i in range(n if n > 4 else 0)]
    apart = [float(one(np.arange(n - 1)[None])[0]) for one in left]
    return outcome(
        name, value, n=n, d=d, chance=float(drawn.mean()), convention=convention,
        stderr=float(jackknife(torch.tensor(apart, dtype=torch.float64))) if apart else None,
        no_stderr="four items: none can be left out",
        provenance=provenance | {"p_value": p, "n_permutations": len(drawn), "seed": seed},
    )  # fmt: skip
