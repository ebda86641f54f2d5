"""Pruning: ACDC, the search that removes one edge after another while the output hardly changes.

Candidates are tried in batches on the guess that all of them will be removed; what was tried behind the first that must
stay is thrown away, so that every decision is the one that trying them one by one would have made.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuits.exact import Bench, benches
from circuits.graph import Graph
from circuits.layout import GQA, Layout
from circuits.references import ABLATIONS, Ablation
from circuits.stream import Stream
from interp.errors import InputError

__all__ = ["acdc"]

Measure = Literal["kl", "metric"]
_MEASURES = {
    "kl": "divergence of the output at the answer's place from the clean run (nats, mean over examples)",
    "metric": "distance of the mean metric from the clean run's",
}


def acdc(
    model: Any,
    task: Any,
    *,
    tau: float,
    measure: Measure = "kl",
    ablation: Ablation = "corrupted",
    gqa: GQA = "ungrouped",
    window: int = 64,
    batch_size: int | None = None,
    budget: float = 2e9,
) -> Graph:
    """The circuit that is left when every edge is removed whose removal raises ``measure`` by less than ``tau``.

    Destinations are visited from the logits to the input (within a block MLP, values, keys, queries; heads and sources
    from the last to the first). Edges into a node that nothing reads any more are removed without a pass.

    Parameters
    ----------
    tau
        Threshold in the measure's unit; larger means fewer edges.
    measure
        ``"kl"`` from the clean run's output, or ``"metric"``: the metric's distance from clean.
    window
        Candidates in one batch at most; 1 tries them one by one.

    Returns
    -------
    Graph
        ``chosen`` is the circuit; ``scores`` the rise of the measure at each decision (0 where no pass was needed),
        negated where the edge was kept, so that signed selection puts kept edges first. The provenance counts
        ``decisions``, ``passes`` and ``block_runs`` (blocks run per batch of examples; one by one from the start:
        layers x edges).

    Raises
    ------
    InputError
        A threshold that is not positive, or an unknown measure.

    References
    ----------
    Conmy et al. 2023, "Towards automated circuit discovery for mechanistic interpretability", algorithm 1.
    """
    if not tau > 0:
        raise InputError(f"tau must be positive; got {tau}")
    if measure not in _MEASURES:
        raise InputError(f"measure={measure!r}; it is one of {list(_MEASURES)}")
    if window < 1:
        raise InputError(f"window must be at least 1; got {window}")
    stream = Stream(model, gqa=gqa)
    held = list(benches(stream, task, ablation=ablation, batch_size=batch_size, budget=budget))
    judge = _Judge(held, measure)
    stream.block_runs = 0
    search = _Search(stream.layout, judge, tau=tau, window=window)
    search.run()
    return Graph(
        layout=stream.layout,
        scores=np.where(search.cut, search.rise, -np.abs(search.rise)),
        chosen=~search.cut,
        n=judge.n,
        method="acdc",
        convention=f"rise of the {_MEASURES[measure]} when the edge was tried; removed below {tau:g}; cut edges carry "
        f"{ABLATIONS[ablation]}",
        provenance={
            "model": model.name,
            "backend": model.backend,
            "tau": tau,
            "measure": measure,
            "ablation": ablation,
            "decisions": stream.layout.n_edges,
            "passes": search.passes,
            "block_runs": stream.block_runs,
        },
    )


class _Judge:
    """The measure of each of several sets of cut edges, the mean over all examples."""

    def __init__(self, held: list[Bench], measure: Measure) -> None:
        self.held, self.measure = held, measure
        self.n = sum(len(bench.question) for bench in held)
        self.places = [
            b.question.clean.last if b.question.position is None else b.question.position for b in held
        ]
        with torch.no_grad():
            self.clean = [
                b.ends() if measure == "metric" else _logs(b.stream.head(b.clean.resid[-1], place))
                for b, place in zip(held, self.places, strict=True)
            ]

    def at_once(self) -> int:
        return min(bench.at_once(len(bench.stream.layout.sources)) for bench in self.held)

    def __call__(self, masks: Tensor) -> np.ndarray:
        total = np.zeros(len(masks))
        for bench, place, clean in zip(self.held, self.places, self.clean, strict=True):
            if self.measure == "metric":
                total += (bench.cut(masks) - clean).sum(1).cpu().numpy()
            else:
                logs = _logs(bench.logits(masks, place))
                total += (clean.exp() * (clean - logs)).sum((-1, -2)).cpu().numpy()
        mean = total / self.n
        return np.abs(mean) if self.measure == "metric" else mean


def _logs(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(-1)


class _Search:
    def __init__(self, layout: Layout, judge: _Judge, *, tau: float, window: int) -> None:
        self.layout, self.judge, self.tau = layout, judge, tau
        self.most = min(window, judge.at_once())
        self.cut = np.zeros(layout.n_edges, dtype=bool)
        self.rise = np.zeros(layout.n_edges)
        self.now = 0.0
        self.passes = 0
        self.size = min(4, self.most)

    def run(self) -> None:
        layers = self.layout.layer
        for layer in range(int(layers.max()), -1, -1):
            # candidates of one layer go together: a pass begins there, everything before it is clean
            here = np.flatnonzero(layers == layer)[::-1]
            mlps = [d for d in here if self.layout.destinations[d].startswith("m")]
            for row in (mlps, [d for d in here if d not in set(mlps)]):
                queue = [
                    e
                    for d in row
                    if self._read(int(d))
                    for e in range(self.layout.offsets[d + 1] - 1, self.layout.offsets[d] - 1, -1)
                ]
                for d in row:
                    if not self._read(int(d)):
                        self.cut[self.layout.offsets[d] : self.layout.offsets[d + 1]] = True
                self._through(queue)

    def _read(self, d: int) -> bool:
        """Whether anything still reads what depends on destination ``d``."""
        feeds = self.layout.feeds[d]
        return not feeds or bool((~self.cut & np.isin(self.layout.source, feeds)).any())

    def _through(self, queue: list[int]) -> None:
        while queue:
            group = queue[: self.size]
            masks = np.repeat(self.cut[None], len(group), axis=0)
            for i, edge in enumerate(group):
                masks[i:, edge] = True
            values = self.judge(torch.from_numpy(masks))
            self.passes += len(group)
            done = self._accept(group, values)
            whole = done == len(group) and self.cut[group[-1]]
            self.size = min(self.most, 2 * self.size) if whole else max(1, min(self.size, 2 * done))
            queue = queue[done:]

    def _accept(self, group: list[int], values: np.ndarray) -> int:
        """Take the decisions up to and with the first edge that stays; how many they are."""
        for i, edge in enumerate(group):
            self.rise[edge] = values[i] - self.now
            if self.rise[edge] >= self.tau:
                return i + 1
            self.cut[edge], self.now = True, float(values[i])
        return len(group)
