"""Exchange: a graph in other tools' formats, and back from the EAP-IG package's JSON.

Texts come from models and files, so every one is escaped for the format it goes into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from circuits.layout import Block, Layout
from interp.errors import InputError, StoreError
from interp.escaping import csv_text, dot, xml
from interp.runs.files import read_json, write_bytes_atomic, write_json_atomic

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Scored",
    "attribution_graph",
    "read_eap",
    "write_csv",
    "write_dot",
    "write_eap",
    "write_graphml",
    "write_neuronpedia",
]


@runtime_checkable
class Scored(Protocol):
    """What is written of a :class:`circuits.Graph`: its edges and what is known of each."""

    @property
    def layout(self) -> Layout: ...
    @property
    def scores(self) -> np.ndarray | None: ...
    @property
    def exact(self) -> np.ndarray | None: ...
    @property
    def chosen(self) -> np.ndarray | None: ...
    @property
    def method(self) -> str: ...
    @property
    def convention(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def n_edges(self) -> int: ...
    def to_frame(self) -> pd.DataFrame: ...


def write_eap(graph: Scored, path: str | Path) -> Path:
    """The EAP-IG package's graph JSON: ``cfg``, ``nodes``, ``edges`` with score and membership.

    Raises
    ------
    InputError
        The network's blocks differ, or keys and values are counted by group: that format cannot say so.
    """
    layout = graph.layout
    first = layout.blocks[0]
    if any(block != first for block in layout.blocks) or not first.mlp or first.n_kv != first.n_heads:
        raise InputError(
            "the EAP-IG format holds equal blocks of heads with keys and values of their own, and an MLP each; "
            "score with gqa='ungrouped', or save the graph"
        )
    scores = np.zeros(layout.n_edges) if graph.scores is None else graph.scores
    chosen = np.ones(layout.n_edges, dtype=bool) if graph.chosen is None else graph.chosen
    touched = {node for edge in np.flatnonzero(chosen) for node in _ends(layout, int(edge))}
    # the package's own reader asks for the width of the stream, though edges do not depend on it
    width = {key: graph.provenance[key] for key in ("d_model",) if key in graph.provenance}
    record = {
        "cfg": {
            "n_layers": len(layout.blocks),
            "n_heads": first.n_heads,
            "parallel_attn_mlp": first.parallel,
            **width,
        },
        "nodes": {node: {"in_graph": node in touched} for node in layout.nodes},
        "edges": {
            name: {"score": float(scores[i]), "in_graph": bool(chosen[i])}
            for i, name in enumerate(layout.names)
        },
    }
    write_json_atomic(path, record)
    return Path(path)


def read_eap(path: str | Path) -> dict[str, Any]:
    """The fields of a graph in the EAP-IG package's JSON (its older layout, with bare booleans for nodes, too).

    Raises
    ------
    StoreError
        The file is no such graph, or names edges that a network of its sizes does not have.
    """
    record = read_json(path)
    try:
        cfg, edges = record["cfg"], record["edges"]
        heads = int(cfg["n_heads"])
        block = Block(n_heads=heads, n_kv=heads, mlp=True, parallel=bool(cfg.get("parallel_attn_mlp", False)))
        layout = Layout(blocks=(block,) * int(cfg["n_layers"]))
        scores, chosen = np.full(layout.n_edges, np.nan), np.zeros(layout.n_edges, dtype=bool)
        for name, held in edges.items():
            at = layout.edge(name)
            scores[at] = float(held.get("score") or 0.0)
            chosen[at] = bool(held.get("in_graph", True))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{path} is no graph of the EAP-IG package: {error}") from error
    if np.isnan(scores).any():
        missing = layout.name(int(np.flatnonzero(np.isnan(scores))[0]))
        raise StoreError(
            f"{path} lacks {int(np.isnan(scores).sum())} edges of its network, the first is {missing}"
        )
    return {
        "layout": layout,
        "scores": scores,
        "chosen": chosen,
        "method": "imported",
        "convention": "as in the file",
        "provenance": {"d_model": int(cfg["d_model"])} if "d_model" in cfg else {},
    }


def write_csv(graph: Scored, path: str | Path) -> Path:
    """A line per edge."""
    write_bytes_atomic(path, csv_text(graph.to_frame()).encode())
    return Path(path)


def write_graphml(graph: Scored, path: str | Path) -> Path:
    """GraphML (networkx, Gephi, Cytoscape): the chosen edges, or all; scores and ports as attributes."""
    kinds = {"score": "double", "exact": "double", "port": "string"}
    keys = "".join(f'<key id="{k}" for="edge" attr.name="{k}" attr.type="{t}"/>' for k, t in kinds.items())
    nodes = "".join(f'<node id="{xml(node)}"/>' for node in _touched(graph))
    rows = []
    for edge in _kept(graph):
        source, destination = _ends(graph.layout, edge)
        data = "".join(f'<data key="{k}">{xml(v)}</data>' for k, v in _facts(graph, edge).items())
        ends = f'source="{xml(source)}" target="{xml(destination)}"'
        rows.append(f'<edge id="e{edge}" {ends}>{data}</edge>')
    body = f'{keys}<graph edgedefault="directed">{nodes}{"".join(rows)}</graph>'
    text = f'<?xml version="1.0" encoding="UTF-8"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">{body}</graphml>'
    write_bytes_atomic(path, text.encode())
    return Path(path)


def write_dot(graph: Scored, path: str | Path) -> Path:
    """DOT (Graphviz): the chosen edges, or all; a line's width grows with the score's size, its colour is the sign."""
    kept = _kept(graph)
    scores = np.ones(graph.n_edges) if graph.scores is None else graph.scores
    largest = float(np.abs(scores[kept]).max()) if len(kept) else 1.0
    lines = ["digraph circuit {", "  rankdir=BT;", '  node [shape=box fontname="sans-serif"];']
    lines += [f'  "{dot(node)}";' for node in _touched(graph)]
    for edge in kept:
        source, destination = _ends(graph.layout, edge)
        port = _facts(graph, edge).get("port", "")
        width = 0.5 + 4 * abs(float(scores[edge])) / (largest or 1.0)
        colour = "#0072B2" if scores[edge] >= 0 else "#D55E00"
        lines.append(
            f'  "{dot(source)}" -> "{dot(destination)}" [label="{dot(port)}" penwidth={width:.3g} color="{colour}" '
            f'tooltip="{float(scores[edge])!r}"];'
        )
    write_bytes_atomic(path, ("\n".join([*lines, "}"]) + "\n").encode())
    return Path(path)


def write_neuronpedia(
    graph: Scored, path: str | Path, *, prompt: str = "", tokens: tuple[str, ...] = ()
) -> Path:
    """An attribution graph as Neuronpedia reads it: unique node ids, links between existing nodes only.

    Nodes are not split by position; each stands at the last one. A port is part of the link's kind.
    """
    touched, layout = _touched(graph), graph.layout
    ctx = max(0, len(tokens) - 1)
    ids = {node: f"{_layer(layout, node)}_{node.replace('.', '-')}_{ctx}" for node in touched}
    kinds = {"input": "embedding", "logits": "logit"}
    nodes = [
        {
            "node_id": ids[node],
            "feature": i,
            "layer": str(_layer(layout, node)),
            "ctx_idx": ctx,
            "feature_type": kinds.get(node, "attention head" if node[0] == "a" else "mlp"),
            "jsNodeId": ids[node],
            "clerp": node,
            "is_target_logit": node == "logits",
        }
        for i, node in enumerate(touched)
    ]
    links: dict[tuple[str, str], dict[str, Any]] = {}
    for edge in _kept(graph):
        source, destination = (ids[node] for node in _ends(layout, edge))
        facts = _facts(graph, edge)
        link = links.setdefault(
            (source, destination), {"source": source, "target": destination, "weight": 0.0, "ports": {}}
        )
        link["weight"] += facts.get("score", 1.0)
        link["ports"][facts.get("port", "in")] = facts.get("score", 1.0)
    info = {"method": graph.method, "convention": graph.convention, "n": graph.n}
    named = {"slug": "circuit", "scan": str(graph.provenance.get("model", "model")), "info": info}
    return attribution_graph(path, named, nodes, list(links.values()), prompt=prompt, tokens=tokens)


def attribution_graph(
    path: str | Path,
    named: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    links: Sequence[Mapping[str, Any]],
    *,
    prompt: str,
    tokens: Sequence[str],
) -> Path:
    """Nodes and links in the frame that Neuronpedia's schema asks for; ``named`` is slug, scan and info."""
    meta = {**named, "prompt": prompt, "prompt_tokens": list(tokens), "schema_version": 1}
    params = {"pinnedIds": [], "supernodes": [], "linkType": "both"}
    write_json_atomic(path, {"metadata": meta, "qParams": params, "nodes": nodes, "links": links})
    return Path(path)


def _kept(graph: Scored) -> list[int]:
    mask = np.ones(graph.n_edges, dtype=bool) if graph.chosen is None else graph.chosen
    return np.flatnonzero(mask).tolist()


def _ends(layout: Layout, edge: int) -> tuple[str, str]:
    """Source and destination node of an edge, the port left away."""
    return layout.sources[layout.source[edge]], layout.destinations[layout.destination[edge]].split("<")[0]


def _touched(graph: Scored) -> list[str]:
    ends = {node for edge in _kept(graph) for node in _ends(graph.layout, edge)}
    return [node for node in graph.nodes if node in ends]


def _facts(graph: Scored, edge: int) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if graph.scores is not None:
        facts["score"] = float(graph.scores[edge])
    if graph.exact is not None and np.isfinite(graph.exact[edge]):
        facts["exact"] = float(graph.exact[edge])
    _, _, port = graph.layout.destinations[graph.layout.destination[edge]].partition("<")
    if port:
        facts["port"] = port.rstrip(">")
    return facts


def _layer(layout: Layout, node: str) -> int | str:
    if node in ("input", "logits"):
        return "E" if node == "input" else len(layout.blocks)
    return int(node[1:].split(".")[0])
