"""Finding a feature circuit: every latent scored by gradients, the best measured, and the edges between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.features.graph import LOGITS, FeatureGraph
from circuits.features.splicing import Codes, Place, codes_of, places_of, shifted
from interp.dictionaries import Dictionary
from interp.edits import Edit, replace
from interp.errors import InputError
from interp.tokens import Tokens

__all__ = ["Bench", "bench_of", "feature_circuit"]

Node = tuple[int, int]
"""A place, and a latent of it; its number of latents stands for the error."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """A question's clean and corrupted run at every place."""

    model: Any
    task: Any
    places: tuple[Place, ...]
    clean: tuple[Codes, ...]
    other: tuple[Codes, ...]
    base: Tensor
    """[row] the clean metric."""

    def n_latents(self, place: int) -> int:
        """How many latents a place has."""
        return self.clean[place].z.shape[-1]

    def name(self, node: Node) -> str:
        """The node's name."""
        place, latent = node
        return f"{self.places[place].name}.{'error' if latent == self.n_latents(place) else f'f{latent}'}"

    def metric(self, edits: Sequence[Edit], n: int = 1) -> Tensor:
        """The metric [copy row] of ``n`` copies of the clean prompts under edits."""
        tokens = _tiled(self.task.clean, n)
        logits = self.model.logits(tokens, edits=list(edits))
        return torch.stack([self.task.metric(one) for one in logits.unflatten(0, (n, -1))]).double().cpu()

    def corrupted(self, node: Node) -> list[Edit]:
        """The edits by which one node takes its corrupted value."""
        place, latent = node
        there = self.other[place]
        if latent == self.n_latents(place):
            return shifted(self.places[place], error=lambda _: there.error)
        return self.set_to(node, there.z[..., latent])

    def set_to(self, node: Node, value: Tensor) -> list[Edit]:
        """The edits by which one latent takes ``value`` [row pos], or the error ``value`` [row pos d]."""
        place, latent = node
        if latent == self.n_latents(place):
            return shifted(self.places[place], error=lambda _: value)

        def codes(z: Tensor) -> Tensor:
            z = z.clone()
            z[..., latent] = value
            return z

        return shifted(self.places[place], codes=codes)

    def held(self, places: Sequence[int]) -> list[Edit]:
        """The edits that hold places at what the clean run wrote."""
        return [replace(self.places[i].write, self.clean[i].written) for i in places]


def _tiled(tokens: Tokens, n: int) -> Tokens:
    return tokens if n == 1 else tokens.select(torch.arange(len(tokens)).repeat(n))


def bench_of(model: Any, task: Any, dictionaries: Mapping[Any, Dictionary]) -> Bench:
    """Run both prompts once.

    Raises
    ------
    InputError
        The task is not a Task, or clean and corrupted prompts have the same codes everywhere.
    """
    if not hasattr(task, "metric") or not hasattr(task, "corrupted"):
        raise InputError(f"a feature circuit is asked a Task; got {type(task).__name__}")
    places = places_of(model, dictionaries)
    clean, other = codes_of(model, task.clean, places), codes_of(model, task.corrupted, places)
    with torch.no_grad():
        base = task.metric(model.logits(task.clean)).double().cpu()
    if all(torch.equal(a.written, b.written) for a, b in zip(clean, other, strict=True)):
        raise InputError("clean and corrupted prompts hold the same activations at every dictionary's site")
    return Bench(model=model, task=task, places=places, clean=clean, other=other, base=base)


def feature_circuit(
    model: Any,
    task: Any,
    dictionaries: Mapping[Any, Dictionary],
    *,
    n_nodes: int = 16,
    n_edges: int = 60,
    steps: int = 5,
    labels: Mapping[str, str] | None = None,
) -> FeatureGraph:
    """The latents that matter for a task, and the edges between them, every drawn number measured by intervention.

    Parameters
    ----------
    dictionaries
        By site, anything with ``encode`` and ``decode`` (a sparse autoencoder); by a pair (read, written) a
        transcoder, which stands for the module between: ``{("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"): coder}``.
    n_nodes, n_edges
        Nodes and edges measured and kept: those with the largest estimates.
    steps
        Points between the clean and the corrupted codes at which gradients are taken.
    labels
        What a node is, by its name, for tables and figures.

    Raises
    ------
    InputError
        No dictionaries, one of another width than its site, a task that is no Task or whose prompts do not differ.

    Notes
    -----
    Cost in passes of the prompts: steps forward-backward a place; one forward a node; one a node and later place and
    one an edge. Memory: codes [row pos latent] of both runs at every place.

    References
    ----------
    Marks et al. 2024, "Sparse feature circuits", section 3 (latents with error nodes, integrated gradients); here the
    edges are measured, not estimated.
    """
    bench = bench_of(model, task, dictionaries)
    scored = [_scored(bench, i, steps) for i in range(len(bench.places))]
    totals = [one.sum(1).mean(0) for one in scored]
    ranked = sorted(
        ((abs(float(value)), (i, j)) for i, one in enumerate(totals) for j, value in enumerate(one) if value != 0),
        key=lambda item: -item[0],
    )  # fmt: skip
    nodes = sorted(node for _, node in ranked[:n_nodes])
    if not nodes:
        raise InputError("no latent changes the metric: the task's prompts differ nowhere that it reads")
    effects = torch.stack([bench.metric(bench.corrupted(node))[0] - bench.base for node in nodes])
    edges, guesses = _candidates(bench, nodes, n_edges)
    measured = torch.stack([_measured(bench, *edge) for edge in edges]) if edges else torch.zeros(0, 2)
    n = len(bench.base)
    even = bool(task.clean.mask.all())
    return FeatureGraph(
        name="feature circuit",
        value=effects.mean(1).numpy(),
        stderr=(effects.std(1) / n**0.5).numpy() if n > 1 else None,
        n=n,
        convention="change of the metric when the node alone takes its corrupted value; negative: it helps",
        chance=0.0,
        axes=("node",),
        ticks=(tuple(bench.name(node) for node in nodes),),
        provenance={"model": model.name, "task": task.name, "steps": steps},
        nodes=tuple(bench.name(node) for node in nodes),
        estimate=np.array([float(totals[i][j]) for i, j in nodes]),
        positions=np.stack([scored[i].mean(0)[:, j].numpy() for i, j in nodes]) if even else None,
        tokens=tuple(task.clean.strings[0]),
        edges=tuple((bench.name(u), LOGITS if v is None else bench.name(v)) for u, v, _ in edges),
        edge_effect=measured.mean(1).numpy() if edges else np.zeros(0),
        edge_stderr=(measured.std(1) / n**0.5).numpy() if edges else np.zeros(0),
        edge_estimate=np.array(guesses),
        scores={bench.places[i].name: one.tolist() for i, one in enumerate(totals)},
        labels=dict(labels or {}),
    )


def _scored(bench: Bench, i: int, steps: int) -> Tensor:
    """[row pos latent + 1] every latent's estimate at one place, the error's last; float64."""
    place, a, b = bench.places[i], bench.clean[i], bench.other[i]
    dz, de = b.z - a.z, b.error - a.error
    slope = torch.zeros_like(a.written, dtype=torch.float64)
    slopes = torch.zeros_like(a.z, dtype=torch.float64)
    for step in range(steps):
        share = (step + 0.5) / steps
        z, error = a.z + share * dz, a.error + share * de
        put = shifted(place, codes=lambda _, z=z: z, error=lambda _, error=error: error)
        _, found = bench.model.gradients(bench.task.clean, bench.task.metric, place.write, edits=put)
        gradient = found[place.write]
        slope += gradient.double() / steps
        slopes += _through_decoder(place, z, gradient).double() / steps
    latents = slopes * dz.double()
    rest = (slope * de.double()).sum(-1, keepdim=True)
    return torch.cat([latents, rest], dim=-1).cpu()


def _through_decoder(place: Place, z: Tensor, gradient: Tensor) -> Tensor:
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        (found,) = torch.autograd.grad(place.dictionary.decode(at), at, gradient)
    return found


def _reached(bench: Bench, u: Node, place: int | None) -> list[Edit]:
    """``u`` corrupted, the places between it and ``place`` (or all behind it) held at the clean run."""
    last = len(bench.places) if place is None else place
    return [*bench.corrupted(u), *bench.held(range(u[0] + 1, last))]


def _candidates(
    bench: Bench, nodes: Sequence[Node], n_edges: int
) -> tuple[list[tuple[Node, Node | None, Tensor]], list[float]]:
    """The edges of largest estimate, with what the destination becomes."""
    slopes = {}
    for i in {place for place, _ in nodes}:
        _, found = bench.model.gradients(bench.task.clean, bench.task.metric, bench.places[i].write)
        slopes[i] = (
            found[bench.places[i].write].cpu(),
            _through_decoder(bench.places[i], bench.clean[i].z, found[bench.places[i].write]).cpu(),
        )
    found = []
    for u in nodes:
        direct = bench.metric(_reached(bench, u, None))[0] - bench.base
        found.append((abs(float(direct.mean())), u, None, direct, float(direct.mean())))
        for place in sorted({p for p, _ in nodes if p > u[0]}):
            (there,) = codes_of(
                bench.model, bench.task.clean, [bench.places[place]], edits=_reached(bench, u, place)
            )
            for v in (node for node in nodes if node[0] == place):
                clean = bench.clean[place]
                if v[1] == bench.n_latents(place):
                    value, gap = there.error, ((there.error - clean.error).cpu() * slopes[place][0]).sum(-1)
                else:
                    value = there.z[..., v[1]]
                    gap = (value - clean.z[..., v[1]]).cpu() * slopes[place][1][..., v[1]]
                guess = float(gap.double().sum(1).mean())
                if guess != 0:
                    found.append((abs(guess), u, v, value, guess))
    found.sort(key=lambda item: -item[0])
    kept = sorted(found[:n_edges], key=lambda item: (item[1], item[2] is None, item[2] or (0, 0)))
    return [(u, v, value) for _, u, v, value, _ in kept], [guess for *_, guess in kept]


def _measured(bench: Bench, u: Node, v: Node | None, value: Tensor) -> Tensor:
    """[row] the metric's change through one edge."""
    return value if v is None else bench.metric(bench.set_to(v, value))[0] - bench.base
