"""``circuits.feature_report``: a feature circuit on the same page as any other, with its JSON and its edges as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from circuits.features.faithful import FeatureFaithfulness
from circuits.features.graph import LOGITS, FeatureGraph
from circuits.telling.page import render
from circuits.telling.record import FEATURES, metric_record, prompts_record, sealed
from interp.errors import InputError
from interp.escaping import csv_text
from interp.pages import document
from interp.report.content import plain
from interp.runs.files import ensure_folder, write_bytes_atomic, write_json_atomic
from interp.runs.provenance import provenance
from interp.tasks.storage import to_lines

__all__ = ["feature_report"]


def feature_report(
    model: Any,
    task: Any,
    graph: FeatureGraph,
    faithfulness: FeatureFaithfulness,
    *,
    out: str | Path = "features.html",
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Tell a feature circuit: one HTML page that needs nothing else, ``NAME.json`` with the same, ``NAME.edges.csv``.

    Raises
    ------
    InputError
        The graph has no edge.

    Notes
    -----
    Cost: two forward passes, for the metric of every prompt.
    """
    if not graph.edges:
        raise InputError("the feature circuit has no edge to draw (give n_edges more than 0)")
    metric = metric_record(model, task)
    parts = plain({
        "task": task.describe(), "pairs": to_lines(task), "metric": metric, "graph": _graph(graph),
        "nodes": _nodes(graph), "stability": None, "faithfulness": _faithfulness(faithfulness),
        "calibration": None, "reference": None, "prompts": prompts_record(task, metric),
        "attention": {"rows": [], "tokens": [], "heads": {}, "reason": "nodes are latents"},
        "caveats": _caveats(graph, faithfulness),
    })  # fmt: skip
    record = sealed(
        parts, schema=FEATURES, title=title or f"latents for {task.name} in {model.name}",
        subtitle=f"{len(graph.nodes)} latents and errors, {len(graph.edges)} measured edges, {graph.n} prompt pairs",
        provenance=provenance(model, command=command, dictionaries=list(graph.scores)),
    )  # fmt: skip
    page = Path(out)
    ensure_folder(page.parent)
    twin = page.with_suffix(".json")
    write_json_atomic(twin, record)
    write_bytes_atomic(page.with_suffix(".edges.csv"), csv_text(graph.to_edges()).encode())
    document.write(page, render(record, twin=twin.name))
    return page


def _graph(graph: FeatureGraph) -> dict[str, Any]:
    """Every node reads all earlier ones, so that edges lie destination by destination; those not measured are zero."""
    nodes, n = graph.nodes, len(graph.nodes)
    reads = [*range(n), n]
    offsets = np.concatenate([[0], np.cumsum(reads)])
    at = {name: i for i, name in enumerate((*nodes, LOGITS))}
    where = np.array([offsets[at[v]] + at[u] for u, v in graph.edges])
    scores, stderr = np.zeros(int(offsets[-1])), np.zeros(int(offsets[-1]))
    scores[where], stderr[where] = graph.edge_effect, graph.edge_stderr
    places = list(dict.fromkeys(graph.place(node) for node in nodes))
    return {
        "sources": list(nodes),
        "destinations": [*nodes, LOGITS],
        "reads": reads,
        "feeds": [*([i] for i in range(n)), []],
        "roots": list(range(n)),
        "scores": scores,
        "stderr": stderr,
        "chosen": np.sort(where),
        "drawable": len(where),
        "exact": {"edges": np.sort(where), "values": scores[np.sort(where)], "stderr": stderr[np.sort(where)]},
        "n": graph.n,
        "method": "measured",
        "convention": f"Nodes: {graph.convention}. Edges: what a node does to the metric through another alone",
        "places": {
            **{
                name: {
                    "row": places.index(graph.place(name)),
                    "kind": graph.labels.get(name) or _kind(name),
                    "label": name.rpartition(".")[2],
                }
                for name in nodes
            },
            LOGITS: {"row": len(places), "kind": "logits", "label": "logits"},
        },
        "rows": [*(place.replace("blocks.", "").replace("hook_", "") for place in places), "logits"],
    }  # fmt: skip


def _kind(name: str) -> str:
    return "what the dictionary leaves over" if name.endswith(".error") else "latent"


def _nodes(graph: FeatureGraph) -> dict[str, Any]:
    return {
        "title": "Latents and errors",
        "convention": (
            "The measured change of the metric when a node alone takes its corrupted value, with 1.96 standard errors"
            + ("; the cells share the estimate out among positions" if graph.positions is not None else "")
        ),
        "names": list(graph.nodes),
        "labels": [graph.labels.get(name, "") for name in graph.nodes],
        "scores": np.asarray(graph.value),
        "stderr": [None] * len(graph.nodes) if graph.stderr is None else np.asarray(graph.stderr),
        "positions": graph.positions,
        "tokens": list(graph.tokens),
    }


def _faithfulness(found: FeatureFaithfulness) -> dict[str, Any]:
    return {
        "unit": "nodes", "sizes": found.sizes, "kept": found.sizes, "value": np.asarray(found.value),
        "interval": found.interval, "completeness": [None] * len(found.sizes),
        "control": {
            "mean": found.control.mean(0), "low": found.control.min(0), "high": found.control.max(0),
            "n": len(found.control),
        },
        "cpr": None, "cmd": None, "log_area": None,
        "smallest": {str(least): found.smallest(least) for least in (0.8, 0.9)},
        "n": found.n, "convention": found.convention,
    }  # fmt: skip


def _caveats(graph: FeatureGraph, found: FeatureFaithfulness) -> list[str]:
    said = [
        f"The latents alone, without what the dictionaries leave over, keep {found.without_errors:.0%} of the "
        "behaviour: the rest is in the errors, which explain nothing."
    ]
    unsure = int((np.abs(graph.edge_effect) < 1.96 * graph.edge_stderr).sum())
    if unsure:
        said.append(f"{unsure} of the {len(graph.edges)} edges have a 95 % interval that holds zero.")
    said.append(
        "Only edges between the nodes shown were measured, and one at a time; latents of a dictionary trained with "
        "another seed may divide the work otherwise."
    )
    return said
