"""Pruning: ACDC, the search that removes one edge after another while the output hardly changes.

Candidates are tried in batches on a guess of which of them will be removed; what was tried behind the first wrong guess
is thrown away, so that every decision is the one that trying them one by one would have made. The guess comes from
gradients, with a threshold that follows the decisions made so far: it costs passes where it is wrong, never a decision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuits.attribution import rough
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
    held = list(benches(stream, task, ablation=ablation, batch_size=batch_size, budget=budget, together=True))
    judge = _Judge(held, measure)
    stream.block_runs = 0
    guess = judge.guess() if ablation == "corrupted" and window > 1 else None
    search = _Search(stream.layout, judge, tau=tau, window=window, guess=guess)
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

    def guess(self) -> np.ndarray:
        """[edge] about how much the measure would rise: the root mean square of few-point integrated gradients."""
        total, n = np.zeros(self.held[0].stream.layout.n_edges), 0
        for bench, place, clean in zip(self.held, self.places, self.clean, strict=True):
            question = bench.question
            if self.measure == "kl":

                def divergence(logits: Tensor, clean: Tensor = clean) -> Tensor:
                    return (clean.exp() * (clean - _logs(logits))).sum(-1)

                question = replace(question, metric=divergence, position=place)
            found = rough(bench.stream, question).double()
            total, n = total + found.square().sum(0).cpu().numpy(), n + len(found)
        return np.sqrt(total / n)

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
    def __init__(
        self, layout: Layout, judge: _Judge, *, tau: float, window: int, guess: np.ndarray | None
    ) -> None:
        self.guess, self.least = guess, float("inf")
        self.seen: list[tuple[float, bool]] = []
        self.fitted = 0
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
            stays = self._guessed(group)
            masks = np.repeat(self.cut[None], len(group), axis=0)
            for i, edge in enumerate(group):
                masks[i : i + 1 if stays[i] else None, edge] = True
            values = self.judge(torch.from_numpy(masks))
            self.passes += len(group)
            done = self._accept(group, values, stays)
            # wasted passes cost more than small batches: grow by one, halve where a guess was wrong
            self.size = min(self.most, self.size + 1) if done == len(group) else max(1, self.size // 2)
            queue = queue[done:]

    def _guessed(self, group: list[int]) -> np.ndarray:
        """Which candidates are likely to stay, by the threshold that would have been wrong least often so far."""
        if self.guess is None:
            return np.zeros(len(group), dtype=bool)
        if len(self.seen) >= 1.1 * self.fitted + 8:
            self.fitted = len(self.seen)
            values, stayed = (np.array(part) for part in zip(*sorted(self.seen), strict=True))
            # with the threshold at values[i], errors are those below it that stayed and those above that did not
            below = np.concatenate([[0], np.cumsum(stayed)])
            above = np.concatenate([np.cumsum((~stayed)[::-1])[::-1], [0]])
            self.least = float(np.append(values, np.inf)[np.argmin(below + above)])
        return self.guess[group] >= self.least

    def _accept(self, group: list[int], values: np.ndarray, stays: np.ndarray) -> int:
        """Take the decisions up to and with the first that was guessed wrong; how many they are."""
        for i, edge in enumerate(group):
            self.rise[edge] = values[i] - self.now
            stayed = bool(self.rise[edge] >= self.tau)
            if self.guess is not None:
                self.seen.append((float(self.guess[edge]), stayed))
            if not stayed:
                self.cut[edge], self.now = True, float(values[i])
            if stayed != stays[i]:
                return i + 1
        return len(group)
