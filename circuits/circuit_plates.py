"""Figures of the circuit station in full: the faithfulness curve, attention and composition of a circuit's heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from circuits.evaluation import Faithfulness
from circuits.graph import Graph
from interp.errors import InterpError
from interp.study.stations import Plate, Study

__all__ = ["anchor_of", "attention", "composed", "curve", "nodes_of", "site_of"]

SHOWN = 4
"""Heads whose attention is drawn."""
_HEAD, _MLP = re.compile(r"a(\d+)\.h(\d+)"), re.compile(r"m(\d+)")


def nodes_of(graph: Graph) -> dict[str, float]:
    """Heads and MLPs of the circuit with the sums of their edges' scores, the largest first."""
    assert graph.chosen is not None
    layout, scores = graph.layout, graph.node_scores()
    inside = {layout.sources[s] for s in layout.source[np.flatnonzero(graph.chosen)]}
    kept = {name: scores[name] for name in inside if site_of(name)}
    return dict(sorted(kept.items(), key=lambda item: -abs(item[1])))


def site_of(node: str, *, written: bool = False) -> str:
    """The site of a node's output (with ``written``: what it adds to the stream); empty for the input."""
    if head := _HEAD.fullmatch(node):
        return f"blocks.{head[1]}.attn.hook_{'result' if written else 'z'}[{head[2]}]"
    if mlp := _MLP.fullmatch(node):
        return f"blocks.{mlp[1]}.hook_mlp_out"
    return ""


def anchor_of(node: str) -> str:
    return "attention-" + node.replace(".", "-")


def curve(found: Faithfulness) -> Plate:
    from interp.plots import Series, lines

    ends = found.interval
    series = [
        Series(
            name="circuit", y=np.asarray(found.value), low=None if ends is None else ends[:, 0],
            high=None if ends is None else ends[:, 1],
        ),
        Series(name="random circuits", y=np.median(found.control, axis=0), baseline=True),
    ]  # fmt: skip
    return Plate(
        title="Faithfulness by size",
        anchor="faithfulness",
        figure=lines(
            [f"{int(k)}" for k in found.kept],
            series,
            x_title=f"edges kept of {found.n_edges}",
            y_title="share kept",
        ),
        caption=(
            f"{found.convention}. n = {found.n} prompts; band: 95% bootstrap interval over prompts; grey: the median "
            f"of {len(found.control)} random circuits of the same sizes."
        ),
    )


def attention(study: Study, task: Any, nodes: Mapping[str, float]) -> tuple[list[Plate], list[str]]:
    """The attention of the circuit's first heads on the first prompt."""
    from interp.plots import heatmap

    plates, one = [], task.clean.select(torch.tensor([0]))
    words = [f"{i} {task.clean.show(t)}" for i, t in enumerate(one.ids[0][one.mask[0]].tolist())]
    for node in [n for n in nodes if _HEAD.fullmatch(n)][:SHOWN]:
        layer, head = _HEAD.fullmatch(node).groups()  # type: ignore[union-attr]
        try:
            (site,) = study.model.find(f"blocks.{layer}.attn.hook_pattern")
            pattern = study.model.capture(one, site)[site][0, int(head)].cpu().numpy()
        except InterpError as error:
            return plates, [f"Attention is not drawn: {str(error).splitlines()[0]}"]
        plates.append(
            Plate(
                title=f"Attention of head {node}",
                half=True,
                anchor=anchor_of(node),
                figure=heatmap(
                    pattern[-len(words) :, -len(words) :],
                    rows=words,
                    columns=words,
                    unit="attention",
                    span=(0.0, 1.0),
                    x_title="looked at",
                    y_title="looking",
                ),
                caption=f"The first clean prompt of {task.name}; each row adds up to 1.",
            )  # fmt: skip
        )
    return plates, []


def composed(study: Study, nodes: Mapping[str, float]) -> tuple[list[Plate], list[str]]:
    """How the circuit's heads are wired to read each other, by their weights."""
    from circuits.atlas.composing import composition
    from interp.plots import heatmap

    heads = sorted(n for n in nodes if _HEAD.fullmatch(n))
    if len(heads) < 2:
        return [], []
    try:
        found = composition(study.model)
    except InterpError as error:
        return [], [f"Composition is left out: {str(error).splitlines()[0]}"]
    names = list(found.ticks[1])
    index = [names.index(h) for h in heads]
    best = np.asarray(found.value)[:, index][:, :, index].max(0)
    chance = float(np.mean(found.chance or 0.0))
    return [
        Plate(
            title="Which of its heads are wired to read which",
            anchor="composition",
            figure=heatmap(best, rows=heads, columns=heads, unit="score", x_title="reader", y_title="writer"),
            caption=(
                f"Composition score of the weights, the largest over queries, keys and values; unrelated matrices give "
                f"about {chance:.2f}. Empty: the writer does not come first."
            ),
        )
    ], []
