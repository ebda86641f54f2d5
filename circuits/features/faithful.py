"""What a few latents keep of the behaviour: everything else at every place takes its corrupted value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.evaluation import drawn_shares, fewest
from circuits.features.finding import Bench, bench_of
from circuits.features.graph import FeatureGraph
from circuits.features.splicing import shifted
from interp.dictionaries import Dictionary
from interp.edits import Edit
from interp.errors import InputError
from interp.results import Result

__all__ = ["FeatureFaithfulness", "feature_faithfulness"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FeatureFaithfulness(Result):
    """``value`` [size]: (metric of the circuit - metric of nothing) / (metric of the network - metric of nothing)."""

    sizes: np.ndarray
    """[size] nodes kept."""
    n_nodes: int
    """Nodes there are: latents that differ between the runs, and the errors."""
    control: np.ndarray
    """[draw size] random nodes among those."""
    without_errors: float
    """The faithfulness of all latents without the errors: how much of the behaviour the dictionaries carry at all."""

    def smallest(self, least: float = 0.9) -> int | None:
        """The fewest nodes (of the sizes tried) from which on every larger circuit has faithfulness >= ``least``."""
        return fewest(self.sizes, np.asarray(self.value), least)


@torch.no_grad()
def feature_faithfulness(
    model: Any,
    task: Any,
    dictionaries: Mapping[Any, Dictionary],
    graph: FeatureGraph,
    *,
    sizes: Sequence[int] | None = None,
    n_random: int = 5,
    n_draws: int = 1000,
    seed: int = 0,
) -> FeatureFaithfulness:
    """The faithfulness of the best nodes (by estimate), at several sizes, beside random ones.

    Raises
    ------
    InputError
        The graph is of other dictionaries, or corrupting every node leaves the metric as it is.

    Notes
    -----
    Cost: (1 + n_random) forward passes a size.
    """
    bench = bench_of(model, task, dictionaries)
    names = [place.name for place in bench.places]
    widths = [bench.n_latents(i) + 1 for i in range(len(names))]
    if list(graph.scores) != names or [len(one) for one in graph.scores.values()] != widths:
        raise InputError(
            f"the graph was found with dictionaries at {list(graph.scores)}; these are at {names}"
        )
    worth = torch.cat([torch.tensor(one, dtype=torch.float64).abs() for one in graph.scores.values()])
    differs = torch.cat(
        [
            torch.cat([((a.z - b.z) != 0).flatten(0, 1).any(0).cpu(), torch.ones(1, dtype=torch.bool)])
            for a, b in zip(bench.clean, bench.other, strict=True)
        ]
    )
    order = worth.argsort(descending=True, stable=True)
    order = order[differs[order]]
    n_nodes = len(order)
    if sizes is None:
        sizes = sorted({*(k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k < n_nodes), n_nodes})
    generator = torch.Generator().manual_seed(seed)
    empty = _kept(bench, torch.zeros(len(worth), dtype=torch.bool), widths)
    chosen = torch.stack([_kept(bench, _mask(order[:k], len(worth)), widths) for k in sizes])
    drawn = []
    for _ in range(n_random):
        shuffled = order[torch.randperm(n_nodes, generator=generator)]
        drawn += [_kept(bench, _mask(shuffled[:k], len(worth)), widths) for k in sizes]
    latents = torch.ones(len(worth), dtype=torch.bool)
    latents[torch.tensor(widths).cumsum(0) - 1] = False
    clean = bench.base
    gap = float(clean.mean() - empty.mean())
    if abs(gap) <= 1e-9 * float(clean.abs().mean() + empty.abs().mean()):
        raise InputError(
            f"corrupting every node leaves the metric at {float(clean.mean()):.4g}: no behaviour to keep"
        )
    share = ((chosen.mean(1) - empty.mean()) / gap).numpy()
    n = len(clean)
    shares = drawn_shares(
        chosen.numpy(), clean.numpy(), empty.numpy(), n_draws=n_draws, rng=np.random.default_rng(seed)
    )
    control = np.array([float((one.mean() - empty.mean()) / gap) for one in drawn]).reshape(
        n_random, len(sizes)
    )
    return FeatureFaithfulness(
        name="faithfulness of latents",
        value=share,
        stderr=shares.std(0),
        interval=np.quantile(shares, [0.025, 0.975], axis=0).T,
        n=n,
        convention=(
            "nodes outside the circuit, at every place, take their values of the corrupted run; nodes chosen by the "
            "estimate's size; ratio of means; interval: bootstrap over examples"
        ),
        chance=control.mean(0) if n_random else None,
        axes=("nodes",),
        ticks=(tuple(map(str, sizes)),),
        provenance={"model": model.name, "task": task.name, "seed": seed},
        sizes=np.asarray(sizes),
        n_nodes=n_nodes,
        control=control,
        without_errors=float((_kept(bench, latents, widths).mean() - empty.mean()) / gap),
    )


def _mask(members: Tensor, n: int) -> Tensor:
    mask = torch.zeros(n, dtype=torch.bool)
    mask[members] = True
    return mask


def _kept(bench: Bench, mask: Tensor, widths: Sequence[int]) -> Tensor:
    """The metric [row] with every node outside ``mask`` at its corrupted value."""
    edits: list[Edit] = []
    for i, keep in enumerate(mask.split(list(widths))):
        there, latents = bench.other[i], keep[:-1].to(bench.other[i].z.device)
        edits += shifted(
            bench.places[i],
            codes=lambda z, there=there, latents=latents: torch.where(latents, z, there.z),
            error=None if bool(keep[-1]) else (lambda _, there=there: there.error),
        )
    return bench.metric(edits)[0]
