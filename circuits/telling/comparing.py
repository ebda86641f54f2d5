"""Two circuits side by side: which edges one has and the other lacks, and whether their scores agree.

``circuits.diff(a, b)``; ``interp circuit diff A B``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.graph import Graph
from circuits.telling.checking import graph_of, read
from interp.errors import InputError
from interp.results import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CircuitDifference", "diff", "opened"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CircuitDifference(Result):
    """``value``: the Jaccard overlap of the two circuits' edges."""

    gained: tuple[str, ...]
    """Edges of the second circuit only, the largest score first."""
    lost: tuple[str, ...]
    """Edges of the first circuit only."""
    common: tuple[str, ...]
    correlation: float | None
    """Pearson correlation of all scores; None where either does not vary."""
    rank: float | None
    """Spearman correlation of the scores' sizes."""
    sizes: np.ndarray
    """[size] numbers of edges at which the best edges of both are compared."""
    overlap: np.ndarray
    """[size] their Jaccard overlap."""
    by_chance: np.ndarray
    """[size] that of two random sets of that size."""
    scores: np.ndarray
    """[2, edge]"""
    names: tuple[str, ...]

    def edges(self) -> pd.DataFrame:
        """A row per edge that either circuit has: which has it, and both scores."""
        import pandas as pd

        at = {name: i for i, name in enumerate(self.names)}
        rows = [
            (name, kind, *self.scores[:, at[name]])
            for kind in ("common", "lost", "gained")
            for name in getattr(self, kind)
        ]
        return pd.DataFrame(rows, columns=pd.Index(["edge", "in", "first", "second"]))


def opened(what: Graph | str | Path) -> Graph:
    """A graph, or the one in a ``.safetensors`` file or a report's JSON twin."""
    if isinstance(what, Graph):
        return what
    return graph_of(read(what)) if Path(what).suffix == ".json" else Graph.load(what)


def diff(a: Graph | str | Path, b: Graph | str | Path) -> CircuitDifference:
    """Compare two graphs with chosen circuits (or files that hold them).

    Raises
    ------
    InputError
        They are of networks of different shape, or have no circuit or no scores.
    StoreError
        A file is no graph and no circuit report.
    """
    first, second = opened(a), opened(b)
    if first.layout.to_dict() != second.layout.to_dict():
        raise InputError(
            f"the graphs are of different networks: {first.n_edges} edges ({first.provenance.get('model', 'unnamed')}, "
            f"{first.layout.gqa}) and {second.n_edges} ({second.provenance.get('model', 'unnamed')}, "
            f"{second.layout.gqa})"
        )
    masks = [_chosen(graph, which) for graph, which in ((first, "first"), (second, "second"))]
    scores = np.stack([first.require_scores(), second.require_scores()])
    union = int((masks[0] | masks[1]).sum())
    sizes = np.unique(np.geomspace(1, first.n_edges, 12).round().astype(int))
    orders = [first.order(), second.order()]
    sets = [[set(order[:k].tolist()) for order in orders] for k in sizes]
    expected = sizes**2 / first.n_edges
    varies = bool((scores.std(1) > 0).all())
    return CircuitDifference(
        name="overlap of two circuits",
        value=int((masks[0] & masks[1]).sum()) / union,
        n=union,
        convention="Jaccard of the chosen edges; n: edges that either has",
        chance=_by_chance(int(masks[0].sum()), int(masks[1].sum()), first.n_edges),
        gained=_named(second, masks[1] & ~masks[0]),
        lost=_named(first, masks[0] & ~masks[1]),
        common=_named(first, masks[0] & masks[1]),
        correlation=float(np.corrcoef(scores)[0, 1]) if varies else None,
        rank=_rank(np.abs(scores)) if varies else None,
        sizes=sizes,
        overlap=np.array([len(one & two) / len(one | two) for one, two in sets]),
        by_chance=expected / (2 * sizes - expected),
        scores=scores,
        names=tuple(first.edges),
        provenance={"first": dict(first.provenance), "second": dict(second.provenance)},
    )


def _by_chance(k: int, m: int, n: int) -> float:
    """Expected intersection over expected union of random sets of ``k`` and ``m`` of ``n`` edges."""
    both = k * m / n
    return both / (k + m - both)


def _rank(values: np.ndarray) -> float:
    from scipy.stats import spearmanr

    found: Any = spearmanr(values[0], values[1])
    return float(found.statistic)


def _chosen(graph: Graph, which: str) -> np.ndarray:
    if graph.chosen is None or not graph.chosen.any():
        raise InputError(
            f"the {which} graph has no circuit: choose its edges first (graph.top(k), graph.threshold(t))"
        )
    return graph.chosen


def _named(graph: Graph, mask: np.ndarray) -> tuple[str, ...]:
    edges = np.flatnonzero(mask)
    ranked = edges[np.argsort(-np.abs(graph.require_scores()[edges]), kind="stable")]
    return tuple(graph.layout.name(int(edge)) for edge in ranked)
