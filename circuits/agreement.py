"""Agreement: of a graph with a reference circuit, with the exact effects, and with itself on other samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.exact import edge_effects
from circuits.graph import By, Graph
from circuits.references import Ablation
from interp.errors import InputError
from interp.results import Result

__all__ = ["Agreement", "Calibration", "Stability", "calibrate", "compare", "stability"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Agreement(Result):
    """``value``: the area under the ROC curve, the reference's members being the positives."""

    average_precision: float
    labels: np.ndarray
    worth: np.ndarray
    items: tuple[str, ...]
    precision: float | None = None
    """Of the chosen circuit, where there is one."""
    recall: float | None = None
    f1: float | None = None
    """Harmonic mean of precision and recall."""

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """False and true positive rates as the threshold falls."""
        from sklearn.metrics import roc_curve

        false, true, _ = roc_curve(self.labels, self.worth, drop_intermediate=False)
        return false, true

    def pr(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision as the threshold falls."""
        from sklearn.metrics import precision_recall_curve

        precision, recall, _ = precision_recall_curve(self.labels, self.worth)
        return recall, precision


def compare(
    graph: Graph, reference: Any, *, level: str = "edge", by: By = "abs", without: Iterable[str] = ()
) -> Agreement:
    """How well the scores tell a reference circuit's edges (or nodes) from all others.

    Parameters
    ----------
    reference
        Edge names, or anything with ``.edges`` (a planted graph, a published circuit).
    level
        ``"edge"``: directed edges with their ports. ``"node"``: heads and MLPs; a node is worth its best edge.
    without
        Edges (by name) to leave out of the comparison, such as those a corruption cannot move.

    Raises
    ------
    InputError
        The reference has no edges, has all of them, or names one that the network does not have.
    """
    if reference is None:
        raise InputError(
            "there is no reference circuit: the task has none (interp.tasks.reference lists those published)"
        )
    layout = graph.layout
    true = layout.mask([str(e) for e in getattr(reference, "edges", reference)])
    use = ~layout.mask([str(e) for e in without])
    worth = graph.worth(by=by)
    if level == "node":
        items, labels, worth, chosen = _by_node(graph, true & use, worth, use)
    elif level == "edge":
        items = tuple(layout.name(int(e)) for e in np.flatnonzero(use))
        labels, worth = true[use], worth[use]
        chosen = None if graph.chosen is None else graph.chosen[use]
    else:
        raise InputError(f"level={level!r}; it is 'edge' or 'node'")
    if not 0 < labels.sum() < len(labels):
        raise InputError(
            f"the reference holds {int(labels.sum())} of {len(labels)} {level}s: nothing to tell apart"
        )
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits = None if chosen is None else int((chosen & labels).sum())
    precision = None if chosen is None or not chosen.any() else float(hits or 0) / float(chosen.sum())
    recall = None if hits is None else hits / float(labels.sum())
    both = precision is not None and recall is not None
    return Agreement(
        name=f"ROC AUC over {level}s",
        value=float(roc_auc_score(labels, worth)),
        n=len(labels),
        convention=f"{int(labels.sum())} of {len(labels)} {level}s in the reference; ranked by {by} score",
        chance=0.5,
        provenance={"method": graph.method, "level": level, "by": by},
        average_precision=float(average_precision_score(labels, worth)),
        labels=labels,
        worth=worth,
        items=items,
        precision=precision,
        recall=recall,
        f1=2 * hits / float(chosen.sum() + labels.sum())
        if both and chosen is not None and hits is not None
        else None,
    )


def _by_node(
    graph: Graph, true: np.ndarray, worth: np.ndarray, use: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray | None]:
    layout = graph.layout
    sources = layout.sources[1:]
    labels, best = np.zeros(len(layout.sources), dtype=bool), np.full(len(layout.sources), -np.inf)
    chosen = np.zeros(len(layout.sources), dtype=bool)
    ends = [(int(s),) + layout.feeds[d] for s, d in zip(layout.source, layout.destination, strict=True)]
    for edge in np.flatnonzero(use):
        for node in ends[edge]:
            labels[node] |= true[edge]
            best[node] = max(best[node], worth[edge])
            chosen[node] |= graph.chosen is not None and bool(graph.chosen[edge])
    return sources, labels[1:], best[1:], chosen[1:] if graph.chosen is not None else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Calibration(Result):
    """``value``: the slope of exact effects over estimates (through no fixed point); 1 is a calibrated estimate."""

    r2: float
    """Squared correlation."""
    rank: float
    """Spearman correlation."""
    estimate: np.ndarray
    exact: np.ndarray
    edges: tuple[str, ...]


def calibrate(
    model: Any,
    graph: Graph,
    task: Any,
    *,
    top: int = 50,
    sample: int = 50,
    ablation: Ablation = "corrupted",
    seed: int = 0,
    batch_size: int | None = None,
) -> tuple[Calibration, Calibration]:
    """Estimates against exact effects: on the ``top`` edges by size, and on a random ``sample`` of all.

    Notes
    -----
    Cost: a forward pass from its layer on for each of the edges and examples.
    """
    scores = graph.require_scores()
    best = graph.order()[:top]
    some = np.random.default_rng(seed).choice(graph.n_edges, size=min(sample, graph.n_edges), replace=False)
    wanted = np.union1d(best, some)
    measured = edge_effects(
        model, task, edges=wanted, graph=graph, ablation=ablation, batch_size=batch_size
    ).exact
    assert measured is not None
    return (
        _calibration(graph, scores, measured, best, f"the {len(best)} largest estimates"),
        _calibration(graph, scores, measured, some, f"{len(some)} edges drawn at random (seed {seed})"),
    )


def _calibration(
    graph: Graph, scores: np.ndarray, exact: np.ndarray, edges: np.ndarray, said: str
) -> Calibration:
    x, y = scores[edges], exact[edges]
    varies = len(x) > 2 and x.std() > 0 and y.std() > 0
    ranks = [np.argsort(np.argsort(v)).astype(float) for v in (x, y)]
    return Calibration(
        name="slope of exact over estimated effects",
        value=float(np.cov(x, y)[0, 1] / x.var(ddof=1)) if varies else float("nan"),
        n=len(edges),
        convention=f"least squares with intercept on {said}",
        reason=None if varies else "estimates or effects do not vary",
        provenance={"method": graph.method},
        r2=float(np.corrcoef(x, y)[0, 1] ** 2) if varies else float("nan"),
        rank=float(np.corrcoef(np.stack(list(ranks)))[0, 1]) if varies else float("nan"),
        estimate=x,
        exact=y,
        edges=tuple(graph.layout.name(int(e)) for e in edges),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Stability(Result):
    """``value``: mean Jaccard overlap of the circuits from pairs of bootstrap samples of the examples."""

    inclusion: np.ndarray
    """[edge] the share of samples in whose circuit it is."""
    jaccards: np.ndarray
    """[pair] the overlaps, of every sample with the next."""


def stability(graph: Graph, *, k: int, by: By = "abs", n_draws: int = 100, seed: int = 0) -> Stability:
    """How much the circuit of the ``k`` best edges depends on which examples were drawn. No forward pass.

    ``chance``: the overlap of two random sets of ``k`` edges (expected intersection over expected union).

    Raises
    ------
    InputError
        Single examples' scores were not kept (``attribute(..., keep=True)``), or there are fewer than two.
    """
    if graph.examples is None or len(graph.examples) < 2:
        raise InputError(
            "the bootstrap needs every example's scores: attribute(..., keep=True), two examples or more"
        )
    if not 0 < k <= graph.n_edges:
        raise InputError(f"k={k}; there are {graph.n_edges} edges")
    n, rng = len(graph.examples), np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_draws) / n
    inclusion, overlaps = np.zeros(graph.n_edges), []
    before: np.ndarray | None = None
    for row in weights:
        means = row @ graph.examples.astype(np.float64)
        worth = np.abs(means) if by == "abs" else -means
        members = np.zeros(graph.n_edges, dtype=bool)
        members[np.argsort(-worth, kind="stable")[:k]] = True
        inclusion += members
        if before is not None:
            overlaps.append((members & before).sum() / (members | before).sum())
        before = members
    expected = k * k / graph.n_edges
    return Stability(
        name="bootstrap overlap",
        value=float(np.mean(overlaps)),
        n=n,
        convention=(
            f"Jaccard of the {k} best edges by {by} score, {n_draws} samples with replacement, each with the next"
        ),
        stderr=float(np.std(overlaps, ddof=1) / len(overlaps) ** 0.5) if len(overlaps) > 1 else None,
        chance=float(expected / (2 * k - expected)),
        provenance={"method": graph.method, "k": k, "seed": seed},
        inclusion=inclusion / n_draws,
        jaccards=np.asarray(overlaps),
    )
