"""Grids: any metric of two representations for all pairs of sites, layer by layer or model by model, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.metrics.declared import outcome
from interp.metrics.similarity import cka, cka_matrix
from interp.moments.moments import Moments
from interp.results import Result

__all__ = ["similarity_matrix"]


def similarity_matrix(
    acts: Mapping[Any, Any] | Moments,
    others: Mapping[Any, Any] | None = None,
    *,
    metric: Callable[..., Result] = cka,
    symmetric: bool = True,
    **options: Any,
) -> Result:
    """``metric`` of every pair of sites: a matrix [site, site] with errors and chance levels.

    Parameters
    ----------
    acts
        Site -> rows of the same samples (or a Moments with cross blocks).
    others
        The sites of another model on the same samples; by default ``acts`` itself.
    metric
        Any function of two representations in this package; its ``options`` are passed on.
    symmetric
        Whether metric(x, y) = metric(y, x), so that half the pairs do (within one set of sites).

    Notes
    -----
    CKA shares each side's work between pairs (:func:`interp.metrics.cka_matrix`); other metrics cost a call a pair.
    """
    if metric is cka:
        return cka_matrix(acts, others, **options)  # type: ignore[arg-type]
    first = (
        {s: acts[s] for s in acts.sites}
        if isinstance(acts, Moments)
        else {str(s): x for s, x in acts.items()}
    )
    second = first if others is None else {str(s): x for s, x in others.items()}
    if not first or not second:
        raise InputError("a similarity matrix needs at least one site on each side")
    shape = (len(first), len(second))
    value, stderr, chance = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    reasons, last = set(), None
    for i, (a, x) in enumerate(first.items()):
        for j, (b, y) in enumerate(second.items()):
            if symmetric and second is first and j < i:
                value[i, j], stderr[i, j], chance[i, j] = value[j, i], stderr[j, i], chance[j, i]
                continue
            last = metric(x, y, **options)
            value[i, j] = float(last.value)
            stderr[i, j] = np.nan if last.stderr is None else float(last.stderr)
            chance[i, j] = np.nan if last.chance is None else float(last.chance)
            if last.reason is not None:
                reasons.add(f"{a} with {b}: {last.reason}")
    assert last is not None  # there is at least one pair
    convention = last.convention.rpartition("; n/d")[0]
    return outcome(
        last.name, value, n=last.n, d=int(np.max(last.provenance["d"])), axes=("site", "site"),
        ticks=(tuple(first), tuple(second)), stderr=stderr if np.isfinite(stderr).any() else None,
        chance=chance if np.isfinite(chance).any() else None, convention=convention,
        no_stderr=last.no_stderr, no_chance=last.no_chance,
        reason="; ".join(sorted(reasons)) or None,
    )  # fmt: skip
