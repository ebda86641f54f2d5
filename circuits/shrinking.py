"""Shrinking: the smallest circuit of a graph's best edges that is faithful enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from circuits.evaluation import measured, shares_of
from circuits.graph import By, Graph
from circuits.references import Ablation
from interp.errors import InputError

__all__ = ["shrink"]


def shrink(
    model: Any,
    graph: Graph,
    task: Any,
    *,
    least: float = 0.9,
    by: By = "abs",
    ablation: Ablation = "corrupted",
    batch_size: int | None = None,
    budget: float = 2e9,
) -> Graph:
    """The circuit of the fewest best edges from which on every larger one that was tried keeps at least ``least``.

    Faithfulness need not rise with size: one edge fewer may do as well further down, where something between fails.
    Sizes are tried on a geometric grid, then between the last that failed and the first that held, until they are
    neighbours.

    Returns
    -------
    Graph
        With ``chosen``, without dangling parts; the provenance says ``size`` (edges before those were removed),
        ``faithfulness``, ``least``, ``by`` and ``tried``: the faithfulness of each size.

    Raises
    ------
    InputError
        ``least`` is not in (0, 1], no behaviour to keep, or a graph of another network.

    Notes
    -----
    Cost: about 24 + 12 log(edges) / log(12) forward passes an example.
    """
    if not 0 < least <= 1:
        raise InputError(
            f"least={least}; the whole network has a faithfulness of 1, so that it lies in (0, 1]"
        )
    n, tried = graph.n_edges, {}
    sizes = np.unique(np.geomspace(1, n, 24).round().astype(int))
    while True:
        masks = np.stack([graph.top(int(k), by=by).chosen for k in sizes])  # type: ignore[arg-type]
        clean, scores = measured(
            model, graph, task, np.concatenate([~masks, np.ones((1, n), bool)]), ablation=ablation,
            batch_size=batch_size, budget=budget,
        )  # fmt: skip
        tried |= dict(zip(sizes.tolist(), shares_of(scores[:-1], clean, scores[-1]).tolist(), strict=True))
        tried[n] = 1.0  # the network itself, not what rounding made of it
        failed = max((k for k, share in tried.items() if share < least), default=0)
        size = min(k for k in tried if k > failed)
        sizes = np.unique(np.linspace(failed, size, 14).round().astype(int)[1:-1])
        sizes = sizes[(sizes > failed) & (sizes < size)]
        if not len(sizes):
            break
    found = {
        "size": size,
        "faithfulness": tried[size],
        "least": least,
        "by": by,
        "ablation": ablation,
        "tried": [[k, tried[k]] for k in sorted(tried)],
    }
    return replace(graph.top(size, by=by), provenance={**graph.provenance, "shrunk": found})
