"""Evaluation: how much of the behaviour a circuit keeps, as it grows, and what chance would keep.

``circuits.evaluate(model, graph, task)``: everything outside the circuit is cut at its edges. Read next:
``agreement.py`` (against a reference circuit, exact effects, other samples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.exact import benches
from circuits.graph import By, Graph
from circuits.references import ABLATIONS, Ablation
from circuits.stream import Stream
from interp.errors import InputError
from interp.results import Result

__all__ = [
    "GRID",
    "Faithfulness",
    "drawn_shares",
    "evaluate",
    "fewest",
    "measured",
    "minimality",
    "shares_of",
]

GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Fractions of all edges at which MIB evaluates."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Faithfulness(Result):
    """``value`` [size]: (metric of the circuit - metric of nothing) / (metric of the network - metric of nothing).

    Means over examples are taken before the ratio; ``spread`` holds quantiles of single examples.
    """

    sizes: np.ndarray
    """[size] edges asked for."""
    fractions: np.ndarray
    """[size] the share of all edges asked for: as MIB has it, before it was rounded down to whole edges."""
    kept: np.ndarray
    """[size] edges left once dangling parts were removed."""
    n_edges: int
    patched: np.ndarray
    """[size, example] the metric of every circuit."""
    removed: np.ndarray
    """[size, example] the metric of the network without the circuit's edges."""
    clean: np.ndarray
    """[example] the metric of the network."""
    empty: np.ndarray
    """[example] the metric with every edge cut."""
    control: np.ndarray
    """[draw, size] the faithfulness of circuits from random scores, chosen alike."""
    by: str
    ablation: str

    @property
    def cpr(self) -> float:
        """Area under the faithfulness over the fraction of edges (linear trapezoid), as MIB has it: more is better."""
        return float(np.trapezoid(np.asarray(self.value), self.fractions))

    @property
    def cmd(self) -> float:
        """Area between the faithfulness and 1 (linear trapezoid), as MIB has it: lower is better."""
        return float(np.trapezoid(np.abs(1 - np.asarray(self.value)), self.fractions))

    @property
    def log_area(self) -> float:
        """Mean faithfulness over the logarithm of the fraction: small circuits count as much as large ones."""
        return self._over_logs(np.asarray(self.value))

    @property
    def log_gap(self) -> float:
        """Mean distance of the faithfulness from 1 over the logarithm of the fraction."""
        return self._over_logs(np.abs(1 - np.asarray(self.value)))

    def _over_logs(self, y: np.ndarray) -> float:
        some = self.fractions > 0
        x = np.log(self.fractions[some])
        return float(np.trapezoid(y[some], x) / (x[-1] - x[0])) if x[-1] > x[0] else float(y[some][0])

    @property
    def completeness(self) -> np.ndarray:
        """[size] the share of the behaviour that is left when the circuit's edges are cut: low if it is complete."""
        return shares_of(self.removed, self.clean, self.empty)

    @property
    def spread(self) -> np.ndarray:
        """[size, 3] quartiles over examples of single examples' shares of the mean gap."""
        gap = self.clean.mean() - self.empty.mean()
        return np.quantile((self.patched - self.empty) / gap, [0.25, 0.5, 0.75], axis=1).T

    def smallest(self, least: float = 0.9) -> int | None:
        """The fewest edges (of the sizes tried) from which on every larger circuit has faithfulness >= ``least``."""
        return fewest(self.sizes, np.asarray(self.value), least)


def evaluate(
    model: Any,
    graph: Graph,
    task: Any,
    *,
    sizes: Sequence[int] | None = None,
    by: By = "abs",
    prune: bool = True,
    ablation: Ablation = "corrupted",
    n_random: int = 5,
    n_draws: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    budget: float = 2e9,
) -> Faithfulness:
    """The faithfulness of the graph's best edges, at several sizes, beside random circuits of the same sizes.

    Parameters
    ----------
    sizes
        Numbers of edges; by default MIB's fractions of all edges, rounded down (of a small network the first few
        are no edge at all: faithfulness 0).
    by
        Select by the score's size, or signed, those first whose cutting hurts most. MIB's CPR takes ``"signed"``, its
        CMD ``"abs"``.
    prune
        Leave out edges on no path from the input to the logits.
    ablation
        What cut edges carry: ``"corrupted"``, ``"zero"``, ``"mean"``.
    n_random
        Random circuits a size.
    n_draws
        Bootstrap draws over examples for the interval.

    Raises
    ------
    InputError
        The graph is of another network, or cutting all edges leaves the metric as it is.

    Notes
    -----
    Cost: (2 + n_random) x sizes forward passes an example.

    References
    ----------
    Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", section 3.
    """
    layout = graph.layout
    fractions = np.asarray(GRID if sizes is None else [k / layout.n_edges for k in sizes])
    if sizes is None:
        sizes = [int(f * layout.n_edges) for f in GRID]
    chosen = [graph.top(int(k), by=by, prune=prune).chosen for k in sizes]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_random):
        order = rng.permutation(layout.n_edges)
        for k in sizes:
            mask = np.zeros(layout.n_edges, dtype=bool)
            mask[order[:k]] = True
            drawn.append(layout.pruned(mask) if prune else mask)
    keep = np.stack([c for c in chosen if c is not None])
    cut = np.concatenate(
        [~keep, keep, *([~np.stack(drawn)] if drawn else []), np.ones((1, layout.n_edges), bool)]
    )
    clean, scores = measured(model, graph, task, cut, ablation=ablation, batch_size=batch_size, budget=budget)
    m = len(sizes)
    patched, removed, random, empty = scores[:m], scores[m : 2 * m], scores[2 * m : -1], scores[-1]
    value = shares_of(patched, clean, empty)
    shares = drawn_shares(patched, clean, empty, n_draws=n_draws, rng=rng)
    return Faithfulness(
        name="faithfulness",
        value=value,
        stderr=shares.std(0),
        interval=np.quantile(shares, [0.025, 0.975], axis=0).T,
        n=len(clean),
        convention=(
            f"edges outside the circuit carry {ABLATIONS[ablation]}; edges chosen by {_BY[by]}"
            f"{', dangling parts removed' if prune else ''}; ratio of means; interval: bootstrap over examples"
        ),
        chance=shares_of(random, clean, empty).reshape(n_random, m).mean(0) if n_random else None,
        axes=("edges",),
        ticks=(tuple(str(k) for k in sizes),),
        provenance={
            "method": graph.method,
            "ablation": ablation,
            "by": by,
            "seed": seed,
            "n_random": n_random,
        },
        sizes=np.asarray(sizes),
        fractions=fractions,
        kept=keep.sum(1),
        n_edges=layout.n_edges,
        patched=patched,
        removed=removed,
        clean=clean,
        empty=empty,
        control=shares_of(random, clean, empty).reshape(n_random, m),
        by=by,
        ablation=ablation,
    )


_BY = {"abs": "the score's size", "signed": "the score, most harmful to cut first"}


def minimality(
    model: Any,
    graph: Graph,
    task: Any,
    *,
    ablation: Ablation = "corrupted",
    batch_size: int | None = None,
    budget: float = 2e9,
) -> Result:
    """What each edge of the chosen circuit adds to its faithfulness: about 0 where the circuit could do without it.

    Raises
    ------
    InputError
        No circuit is chosen, or cutting all edges leaves the metric as it is.

    Notes
    -----
    Cost: a forward pass per edge of the circuit and example.
    """
    names = graph.circuit()
    assert graph.chosen is not None
    inside = np.flatnonzero(graph.chosen)
    cut = np.repeat(~graph.chosen[None], len(inside) + 2, axis=0)
    cut[np.arange(len(inside)), inside] = True
    cut[-1] = True
    clean, scores = measured(model, graph, task, cut, ablation=ablation, batch_size=batch_size, budget=budget)
    share = shares_of(scores[:-1], clean, scores[-1])
    return Result(
        name="minimality",
        value=share[-1] - share[:-1],
        n=len(clean),
        convention=f"faithfulness of the circuit minus that without the edge; cut edges carry {ABLATIONS[ablation]}",
        chance=0.0,
        axes=("edge",),
        ticks=(tuple(names),),
        provenance={"faithfulness": float(share[-1]), "ablation": ablation},
    )


def measured(
    model: Any,
    graph: Graph,
    task: Any,
    cut: np.ndarray,
    *,
    ablation: Ablation,
    batch_size: int | None,
    budget: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The clean metric [example], and the metric [set example] with each set of edges cut."""
    stream = Stream(model, gqa=graph.layout.gqa)
    if stream.layout.blocks != graph.layout.blocks:
        raise InputError(
            f"the graph has {graph.n_edges} edges of another network; {model.name} has {stream.layout.n_edges}"
        )
    clean, scores = [], []
    for bench in benches(stream, task, ablation=ablation, batch_size=batch_size, budget=budget):
        clean.append(bench.ends().cpu().numpy())
        scores.append(bench.cut_sets(cut).cpu().numpy())
    return np.concatenate(clean), np.concatenate(scores, axis=1)


def fewest(sizes: np.ndarray, value: np.ndarray, least: float) -> int | None:
    """The first size from which on every larger one has at least ``least``; None if the last has not."""
    good = value >= least
    if not good[-1]:
        return None
    return int(sizes[len(good) - int(np.argmin(good[::-1])) if not good.all() else 0])


def drawn_shares(
    patched: np.ndarray, clean: np.ndarray, empty: np.ndarray, *, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draw size] the shares of bootstrap samples of the examples, those without a gap left out."""
    n = len(clean)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_draws) / n
    bottom = weights @ (clean - empty)
    usable = np.abs(bottom) > 1e-9 * np.abs(clean - empty).mean()
    return (weights[usable] @ (patched - empty).T) / bottom[usable, None]


def shares_of(patched: np.ndarray, clean: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """[set] the share of the gap between ``empty`` and ``clean`` that each set keeps; InputError where none is."""
    gap = clean.mean() - empty.mean()
    if abs(gap) <= 1e-9 * (np.abs(clean).mean() + np.abs(empty).mean() + 1e-30):
        raise InputError(
            f"cutting every edge leaves the metric at {clean.mean():.4g}: there is no behaviour for a circuit to keep"
        )
    return (patched.mean(1) - empty.mean()) / gap
