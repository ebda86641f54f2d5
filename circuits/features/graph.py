"""FeatureGraph: latents and errors that matter for a task, and the measured effects of one upon another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from circuits.exchange import attribution_graph
from interp.errors import InputError, nearest
from interp.results import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LOGITS", "FeatureGraph"]

LOGITS = "logits"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FeatureGraph(Result):
    """``value`` [node]: the measured change of the metric when the node alone takes its corrupted value.

    Nodes are ``blocks.1.hook_resid_post.f12`` (a latent) and ``blocks.1.hook_resid_post.error``, in forward order. An
    edge u -> v is what u does to the metric through v alone: u is corrupted, the places between are held as they
    were, and what v becomes is put into an otherwise clean run; ``u -> logits`` is what is left when every later place
    is held.
    """

    nodes: tuple[str, ...]
    estimate: np.ndarray
    """[node] the same by gradients averaged between both runs."""
    positions: np.ndarray | None
    """[node pos] the estimate at each position; None where prompts differ in length."""
    tokens: tuple[str, ...]
    """What stands at each position of the first prompt."""
    edges: tuple[tuple[str, str], ...]
    edge_effect: np.ndarray
    """[edge] measured."""
    edge_stderr: np.ndarray
    edge_estimate: np.ndarray
    """[edge] by the gradient at the clean run."""
    scores: Mapping[str, list[float]]
    """By place, every latent's estimate and the error's behind them: what a selection sorts by."""
    labels: Mapping[str, str]
    """What a node is, by name, where the caller knows."""

    def score(self, node: str) -> float:
        """The measured effect of one node."""
        if node not in self.nodes:
            raise InputError(f"no node {node!r} in this graph{nearest(node, self.nodes)}")
        return float(np.asarray(self.value)[self.nodes.index(node)])

    def place(self, node: str) -> str:
        """The site of a node."""
        return node.rpartition(".")[0]

    def supernodes(self, groups: Mapping[str, list[str]]) -> pd.DataFrame:
        """Edges between groups of nodes (first-order: sums of their edges); a node in no group stands for itself.

        Raises
        ------
        InputError
            A group names a node that is not there, or a node is in two groups.
        """
        import pandas as pd

        home: dict[str, str] = {node: node for node in (*self.nodes, LOGITS)}
        seen: set[str] = set()
        for group, members in groups.items():
            for node in members:
                if node not in self.nodes or node in seen:
                    why = "in two groups" if node in seen else f"not in this graph{nearest(node, self.nodes)}"
                    raise InputError(f"{node!r} is {why}")
                seen.add(node)
                home[node] = group
        rows: dict[tuple[str, str], float] = {}
        for (u, v), effect in zip(self.edges, self.edge_effect, strict=True):
            if home[u] != home[v]:
                rows[home[u], home[v]] = rows.get((home[u], home[v]), 0.0) + float(effect)
        listed = [(u, v, effect) for (u, v), effect in rows.items()]
        return pd.DataFrame(listed, columns=pd.Index(["source", "destination", "effect"]))

    def to_edges(self) -> pd.DataFrame:
        """A row per edge: source, destination, measured effect, its standard error, estimate."""
        import pandas as pd

        return pd.DataFrame(
            {
                "source": [u for u, _ in self.edges],
                "destination": [v for _, v in self.edges],
                "effect": self.edge_effect,
                "stderr": self.edge_stderr,
                "estimate": self.edge_estimate,
            }
        )

    def to_neuronpedia(self, path: str | Path, *, prompt: str = "") -> Path:
        """An attribution graph as Neuronpedia reads it: unique node ids, links between existing nodes only."""
        where = max(0, len(self.tokens) - 1)
        places = list(dict.fromkeys(self.place(node) for node in self.nodes))
        nodes = []
        for i, node in enumerate((*self.nodes, LOGITS)):
            kind = node.rpartition(".")[2]
            at = where
            if self.positions is not None and node != LOGITS:
                at = int(np.abs(self.positions[i]).argmax())
            nodes.append(
                {
                    "node_id": node,
                    "feature": int(kind[1:]) if kind[:1] == "f" and kind[1:].isdigit() else None,
                    "layer": str(len(places)) if node == LOGITS else str(places.index(self.place(node))),
                    "ctx_idx": at,
                    "feature_type": "logit"
                    if node == LOGITS
                    else "mlp reconstruction error"
                    if kind == "error"
                    else "cross layer transcoder",
                    "jsNodeId": node,
                    "clerp": self.labels.get(node, node),
                    "is_target_logit": node == LOGITS,
                    "influence": None if node == LOGITS else self.score(node),
                }
            )
        links = [
            {"source": u, "target": v, "weight": float(w)}
            for (u, v), w in zip(self.edges, self.edge_effect, strict=True)
        ]
        named = {
            "slug": "feature-circuit",
            "scan": str(self.provenance.get("model", "model")),
            "info": {"convention": self.convention, "n": self.n},
        }
        return attribution_graph(path, named, nodes, links, prompt=prompt, tokens=self.tokens)
