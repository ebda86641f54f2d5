"""What a circuit report holds, as plain JSON values: the page, the Markdown and the check are made from nothing else.

The record is a dict of *parts* (``task``, ``prompts``, ``pairs``, ``metric``, ``graph``, ``faithfulness`` ...), each
with its SHA-256 under ``provenance.parts``. Edges are numbered as in :class:`circuits.Layout`: destination by
destination, so ``sources``, ``destinations`` and ``reads`` are enough to name them all. Read next: ``page.py``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from circuits.agreement import compare, stability
from circuits.evaluation import Faithfulness
from circuits.graph import Graph
from circuits.telling.caveats import caveats
from circuits.telling.patterns import patterns
from interp.errors import InputError
from interp.report.content import plain
from interp.runs.files import json_bytes
from interp.tasks.scoring import NONE
from interp.tasks.storage import to_lines

__all__ = [
    "FEATURES",
    "PARTS",
    "SCHEMA",
    "metric_record",
    "prompts_record",
    "record",
    "sealed",
    "sha256_of",
]

SCHEMA = "interp-circuit-report/1"
FEATURES = "interp-feature-report/1"
"""The same parts about latents; not checked by `interp verify`, which has no dictionary."""
PARTS = (
    "task", "prompts", "pairs", "metric", "graph", "nodes", "stability", "faithfulness", "calibration", "reference",
    "attention", "caveats",
)  # fmt: skip
"""What is hashed, in the order of the page."""
SHOWN = 12
"""Prompts printed on the page; all of them are in ``pairs``."""


def sha256_of(part: Any) -> str:
    """The hash of a part: of its JSON, keys in their order."""
    return hashlib.sha256(json_bytes(part)).hexdigest()


def record(
    model: Any,
    task: Any,
    graph: Graph,
    faithfulness: Faithfulness,
    *,
    provenance: Mapping[str, Any],
    title: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All parts of a report.

    Parameters
    ----------
    task
        A :class:`interp.tasks.Task`.
    graph
        With scores and a chosen circuit.

    Raises
    ------
    InputError
        The graph has no scores or an empty circuit, or belongs to another model.

    Notes
    -----
    Cost: two forward passes (clean and corrupted), and one with attention patterns of a few prompts.
    """
    _belongs(graph, model)
    parts: dict[str, Any] = {
        "task": task.describe(),
        "pairs": to_lines(task),
        "metric": metric_record(model, task),
        "graph": graph_record(graph),
        "nodes": _nodes(graph),
        "stability": _stability(graph, seed),
        "faithfulness": _faithfulness(faithfulness, graph),
        "calibration": _calibration(graph),
        "reference": _reference(graph, task),
        "attention": patterns(model, task, seen=SHOWN),
    }
    parts["prompts"] = prompts_record(task, parts["metric"])
    parts = plain(parts)
    parts["caveats"] = caveats(parts)
    return sealed(parts, schema=SCHEMA, title=title or f"{task.name} in {model.name}", provenance=provenance)


def sealed(
    parts: Mapping[str, Any], *, schema: str, title: str, provenance: Mapping[str, Any], **said: Any
) -> dict[str, Any]:
    """The parts in the order of the page, with their hashes in the provenance."""
    ordered = {name: parts[name] for name in PARTS}
    hashes = {name: sha256_of(part) for name, part in ordered.items()}
    return {
        "schema": schema,
        "title": title,
        **said,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        **ordered,
        "provenance": plain({**provenance, "parts": hashes}),
    }


def _belongs(graph: Graph, model: Any) -> None:
    graph.require_scores()
    if graph.chosen is None or not graph.chosen.any():
        raise InputError(
            "the circuit is empty: choose its edges first (graph.top(k), graph.threshold(t), graph.greedy(k))"
        )
    made = graph.provenance.get("model")
    if made is not None and made != model.name:
        raise InputError(f"the graph was scored on {made!r}; this is {model.name!r}")
    own = Graph.from_model(model, gqa=graph.layout.gqa)
    if own.layout.blocks != graph.layout.blocks:
        raise InputError(
            f"the graph has {graph.n_edges} edges of another network; {model.name} has {own.n_edges}"
        )


@torch.no_grad()
def metric_record(model: Any, task: Any) -> dict[str, Any]:
    """The metric of the clean and the corrupted prompts, example by example."""
    values = {}
    for name, tokens in (("clean", task.clean), ("corrupted", task.corrupted)):
        values[name] = task.metric(model.logits(tokens)).double().cpu().numpy()
    n = len(task)
    return {
        "convention": task.convention,
        "n": n,
        **{
            name: {
                "mean": found.mean(),
                "stderr": found.std(ddof=1) / n**0.5 if n > 1 else None,
                "examples": found,
            }
            for name, found in values.items()
        },
    }


def prompts_record(task: Any, metric: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first prompts as tokens, with their answers and the metric of each."""
    show = task.clean.show
    rows = []
    for i in range(min(SHOWN, len(task))):
        sides = {
            name: [show(int(t)) for t in tokens.ids[i][tokens.mask[i]]]
            for name, tokens in (("clean", task.clean), ("corrupted", task.corrupted))
        }
        words = {
            name: [show(int(t)) for t in ids[i] if int(t) != NONE][:6]
            for name, ids in (("answers", task.answers), ("wrong", task.wrong))
        }
        scores = {f"{side}_metric": float(metric[side]["examples"][i]) for side in ("clean", "corrupted")}
        rows.append({**sides, **words, **scores})
    return rows


def graph_record(graph: Graph) -> dict[str, Any]:
    """The arrays of a graph, its sparse ones as indices and values."""
    layout, exact = graph.layout, graph.exact
    measured = np.flatnonzero(np.isfinite(exact)) if exact is not None else np.zeros(0, dtype=int)
    spread = graph.exact_variance
    assert graph.chosen is not None
    return {
        "layout": layout.to_dict(),
        "sources": list(layout.sources),
        "destinations": list(layout.destinations),
        "reads": layout.reads,
        "feeds": [list(one) for one in layout.feeds],
        "scores": graph.require_scores(),
        "stderr": graph.stderr,
        "chosen": np.flatnonzero(graph.chosen),
        "exact": {
            "edges": measured,
            "values": exact[measured] if exact is not None else [],
            "stderr": None if spread is None or graph.n < 2 else np.sqrt(spread[measured] / graph.n),
        },
        "n": graph.n,
        "method": graph.method,
        "convention": graph.convention,
        "how": dict(graph.provenance),
    }


def _nodes(graph: Graph) -> dict[str, Any]:
    """Every source's score, the sum of its edges', with a standard error where single examples were kept."""
    totals = graph.node_scores()
    stderr: list[float | None] = [None] * len(totals)
    if graph.examples is not None and len(graph.examples) > 1:
        sums = np.zeros((len(graph.examples), len(totals)))
        np.add.at(sums.T, graph.layout.source, graph.examples.T.astype(np.float64))
        stderr = (sums.std(0, ddof=1) / len(sums) ** 0.5).tolist()
    return {
        "names": list(totals),
        "scores": list(totals.values()),
        "stderr": stderr,
        "title": "Heads and MLPs",
        "convention": (
            "The sum of each node's outgoing scores: about what the metric would change by if all it writes were "
            "corrupted. Units of the metric"
        ),
    }


def _stability(graph: Graph, seed: int) -> dict[str, Any] | None:
    assert graph.chosen is not None
    if graph.examples is None or len(graph.examples) < 2:
        return None
    found = stability(graph, k=int(graph.chosen.sum()), seed=seed)
    inside = np.flatnonzero(graph.chosen | (found.inclusion >= 0.5))
    return {
        "jaccard": float(np.asarray(found.value)),
        "stderr": found.stderr,
        "chance": found.chance,
        "convention": found.convention,
        "n": found.n,
        "edges": inside,
        "inclusion": found.inclusion[inside],
    }


def _faithfulness(found: Faithfulness, graph: Graph) -> dict[str, Any]:
    assert graph.chosen is not None
    has = found.control is not None and len(found.control) > 0
    return {
        "sizes": found.sizes,
        "kept": found.kept,
        "value": np.asarray(found.value),
        "interval": found.interval,
        "completeness": found.completeness,
        "control": {
            "mean": found.control.mean(0) if has else None,
            "low": found.control.min(0) if has else None,
            "high": found.control.max(0) if has else None,
            "n": len(found.control) if has else 0,
        },
        "cpr": found.cpr,
        "cmd": found.cmd,
        "log_area": found.log_area,
        "smallest": {str(least): found.smallest(least) for least in (0.8, 0.9)} | _shrunk(graph),
        "n": found.n,
        "n_edges": found.n_edges,
        "ablation": found.ablation,
        "by": found.by,
        "convention": found.convention,
    }


def _shrunk(graph: Graph) -> dict[str, int]:
    """The smallest faithful circuit where it was searched size by size, which the curve's few sizes cannot tell."""
    held = graph.provenance.get("shrunk")
    return {} if held is None else {str(held["least"]): held["size"]}


def _calibration(graph: Graph) -> dict[str, Any] | None:
    """Estimates against the exact effects that were measured."""
    if graph.exact is None or graph.method == "exact":
        return None
    at = np.flatnonzero(np.isfinite(graph.exact))
    x, y = graph.require_scores()[at], graph.exact[at]
    if len(at) < 3 or x.std() == 0 or y.std() == 0:
        return None
    ranks = [np.argsort(np.argsort(v)).astype(float) for v in (x, y)]
    return {
        "n": len(at),
        "slope": float(np.cov(x, y)[0, 1] / x.var(ddof=1)),
        "r2": float(np.corrcoef(x, y)[0, 1] ** 2),
        "rank": float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
        "convention": "exact over estimated effects, least squares with intercept, on the edges measured exactly",
    }


def _reference(graph: Graph, task: Any) -> dict[str, Any] | None:
    known = task.reference
    if known is None or not known.edges:
        return None
    edges = tuple(str(edge) for edge in known.edges)
    found = compare(graph, edges)
    numbers = {name: getattr(found, name) for name in ("average_precision", "precision", "recall", "f1")}
    return {
        "said": known.describe(),
        "auc": float(np.asarray(found.value)),
        **numbers,
        "edges": np.flatnonzero(graph.layout.mask(edges)),
        "convention": found.convention,
    }
