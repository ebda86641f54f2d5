"""Exact effects: what the metric really does when chosen edges carry other terms. The judge of every estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.budgets import bench_bytes, fitting
from circuits.graph import Graph
from circuits.layout import GQA
from circuits.passes import Swap, Writes, patched_logits, record
from circuits.questions import Question, asked
from circuits.references import ABLATIONS, Ablation, reference
from circuits.stream import Stream
from circuits.tally import Tally
from interp.errors import InputError

__all__ = ["Bench", "benches", "edge_effects"]


class Bench:
    """One batch of a question with its clean run and what cut edges carry, ready for interventions."""

    def __init__(self, stream: Stream, question: Question, other: Writes | None, *, budget: float) -> None:
        self.stream, self.question, self.budget = stream, question, budget
        self.clean = record(stream, question.clean)
        self.other = other or record(stream, question.corrupted, self.clean.calls).writes

    @torch.no_grad()
    def ends(self) -> Tensor:
        """[batch] the metric of the clean run."""
        return self.question.score(self.stream.head(self.clean.resid[-1], self.question.position))

    def cut(self, mask: Tensor, *, weight: float = 1.0, where: Tensor | None = None) -> Tensor:
        """[intervention batch] the metric with the edges [intervention edge] cut."""
        return self.question.score(self.logits(mask, self.question.position, weight=weight, where=where))

    def logits(
        self, mask: Tensor, position: Tensor | None, *, weight: float = 1.0, where: Tensor | None = None
    ) -> Tensor:
        """Logits [intervention batch ...] with the edges [intervention edge] cut."""
        swap = Swap(mask=mask.to(self.clean.resid[0].device), source=self.other, weight=weight, where=where)
        return patched_logits(self.stream, self.clean, [swap], position=position)

    def at_once(self, n_later: int) -> int:
        """How many interventions the budget holds, ``n_later`` sources of which differ from one to the next."""
        rows, pos, d = self.clean.resid[0].shape
        itemsize = self.clean.resid[0].element_size()
        vocab = (self.stream.model.d_vocab or 0) * (1 if self.question.position is not None else pos)
        hidden = 16 * d * pos
        return max(
            1, min(128, int(self.budget / 2 // (itemsize * rows * (n_later * pos * d + hidden + 4 * vocab))))
        )

    def cut_each(self, edges: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(edges, [edge batch] the metric with each of them cut alone), in groups; ``edges`` in ascending order."""
        layout = self.stream.layout
        layers = layout.layer[layout.destination[edges]]
        for layer in np.unique(layers):
            mine = edges[layers == layer]
            size = self.at_once(1)
            for start in range(0, len(mine), size):
                group = mine[start : start + size]
                mask = torch.zeros(len(group), layout.n_edges, dtype=torch.bool)
                mask[torch.arange(len(group)), torch.from_numpy(group)] = True
                yield group, self.cut(mask)

    def cut_sets(self, masks: np.ndarray) -> Tensor:
        """[intervention batch] the metric with each set of edges [intervention edge] cut."""
        size = self.at_once(len(self.stream.layout.sources))
        parts = [self.cut(torch.from_numpy(masks[i : i + size])) for i in range(0, len(masks), size)]
        return torch.cat(parts)


def benches(
    stream: Stream,
    task: Any,
    *,
    ablation: Ablation = "corrupted",
    batch_size: int | None = None,
    budget: float = 2e9,
    together: bool = False,
) -> Iterator[Bench]:
    """The question's batches, each ready for interventions. Cost: two forward passes an example, and one recording.

    Batches are as large as ``budget`` bytes hold, ``together``: the caller
    holds all batches at once.

    Raises
    ------
    InputError
        The budget does not hold that; said before anything is run.
    """

    def need(question: Question) -> int:
        return bench_bytes(stream, question)

    size = fitting(task, need, batch_size=batch_size, budget=budget, together=together)
    other = reference(stream, task, ablation, batch_size=size)
    for question in asked(task, batch_size=size):
        yield Bench(stream, question, other, budget=budget)


def edge_effects(
    model: Any,
    task: Any,
    *,
    edges: Any = None,
    graph: Graph | None = None,
    ablation: Ablation = "corrupted",
    gqa: GQA = "ungrouped",
    batch_size: int | None = None,
    budget: float = 2e9,
    keep: bool | None = None,
) -> Graph:
    """The exact effect of every edge, or of the ones asked for: the metric with that edge cut minus the clean metric.

    Parameters
    ----------
    edges
        Names, numbers or a mask; all by default.
    graph
        Its scores stay and the exact effects are added; else the exact effects are the scores too.
    ablation
        What the cut edge carries: ``"corrupted"``, ``"zero"``, ``"mean"``.

    Raises
    ------
    InputError
        ``graph`` is of another network.

    Notes
    -----
    Cost: one forward pass per edge and example from the edge's layer on, many of them in one batch.
    """
    stream = Stream(model, gqa=graph.layout.gqa if graph is not None else gqa)
    layout = stream.layout
    if graph is not None and graph.layout.blocks != layout.blocks:
        raise InputError(
            f"the graph has {graph.n_edges} edges of another network; {model.name} has {layout.n_edges}"
        )
    wanted = np.arange(layout.n_edges) if edges is None else np.unique(layout.edges(edges))
    n = sum(len(q) for q in asked(task))
    tally = Tally(len(wanted), keep=keep if keep is not None else 4 * n * len(wanted) <= budget / 4)
    for bench in benches(stream, task, ablation=ablation, batch_size=batch_size, budget=budget):
        clean = bench.ends()
        found = clean.new_empty(len(clean), len(wanted))
        for group, scores in bench.cut_each(wanted):
            found[:, np.searchsorted(wanted, group)] = (scores - clean).T
        tally.add(found)
    exact, variance = (_spread(layout.n_edges, wanted, part) for part in (tally.mean, tally.variance))
    if graph is not None:
        return replace(graph, exact=exact, exact_variance=variance)
    whole = len(wanted) == layout.n_edges
    return Graph(
        layout=layout,
        scores=exact if whole else None,
        variance=variance if whole else None,
        exact=exact,
        exact_variance=variance,
        examples=tally.examples if whole else None,
        n=tally.n,
        method="exact",
        convention=(
            f"metric with the edge cut minus clean metric; cut: {ABLATIONS[ablation]}; "
            "negative: cutting lowers the metric"
        ),
        provenance={
            "model": model.name,
            "backend": model.backend,
            "d_model": model.d_model,
            "method": "exact",
            "ablation": ablation,
        },
    )


def _spread(n: int, where: np.ndarray, values: np.ndarray | None) -> np.ndarray | None:
    if values is None:
        return None
    out = np.full(n, np.nan)
    out[where] = values
    return out
