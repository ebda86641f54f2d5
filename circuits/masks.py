"""Masks: a share of every edge, learned by gradient so that few edges keep what the network does.

``circuits.learn_mask``. Unlike scores of single edges, a mask is learned for all edges together: where two paths back
each other up it may keep either. Read next: ``blend.py``, the pass that edges are cut in by degrees.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.blend import blended
from circuits.exact import Bench, benches
from circuits.graph import Graph
from circuits.layout import GQA
from circuits.references import ABLATIONS, Ablation
from circuits.stream import Stream
from interp.errors import InputError, nearest

__all__ = ["GATES", "Concrete", "Uniform", "learn_mask"]

_MEASURES = {
    "kl": "divergence of the output at the answer's place from the clean run (nats)",
    "metric": "size of the metric's change from the clean run",
}


class Concrete:
    """Hard-concrete gates: a stretched, clipped logistic, exactly 0 or 1 with positive probability.

    References
    ----------
    Louizos, Welling and Kingma 2018, "Learning sparse neural networks through L0 regularization", eq. 10-12.
    """

    beta, low, high = 2 / 3, -0.1, 1.1
    said = "the gate not being 0 (hard-concrete gates)"

    def draw(self, logits: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        """Gates [row edge], differentiable in the logits [edge]."""
        u = torch.rand(rows, len(logits), generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid(((u.log() - (-u).log1p()).to(logits) + logits) / self.beta)
        return (s * (self.high - self.low) + self.low).clamp(0, 1)

    def open(self, logits: Tensor) -> Tensor:
        """[edge] probability that the gate is not 0."""
        return torch.sigmoid(logits - self.beta * math.log(-self.low / self.high))


class Uniform:
    """Gates that are 1 with probability p and else 0, except for a share p (1 - p) of draws uniform between.

    The slope of the loss at a uniform draw averages to loss(1) - loss(0), and the share of such draws is dp / dlogit:
    their product is an unbiased gradient of the expected loss of wholly kept or cut edges (with the others' draws as
    they are), which gates that are pushed through a logistic do not give.

    References
    ----------
    Li and Janson 2024, "Optimal ablation for interpretability", uniform gradient sampling.
    """

    said = "the edge being kept (uniform gradient sampling)"

    def draw(self, logits: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        """Gates [row edge]; a backward pass leaves the estimate of the gradient at the logits [edge]."""
        p = torch.sigmoid(logits.detach()).double().cpu()
        between = p * (1 - p)
        u = torch.rand(rows, len(logits), generator=generator, dtype=torch.float64)
        inside = u < between
        # what is left of the unit interval: kept on [between, between / 2 + p), cut behind
        gate = torch.where(inside, u / between, (u < between / 2 + p).double()).to(logits)
        return gate + inside.to(logits) * (logits - logits.detach())

    def open(self, logits: Tensor) -> Tensor:
        """[edge] probability that it is kept."""
        return torch.sigmoid(logits)


GATES = {"hard-concrete": Concrete, "uniform": Uniform}


def learn_mask(
    model: Any,
    task: Any,
    *,
    sparsity: float,
    gates: str = "hard-concrete",
    measure: str = "kl",
    steps: int = 200,
    lr: float = 0.1,
    ablation: Ablation = "corrupted",
    gqa: GQA = "ungrouped",
    seed: int = 0,
    batch_size: int | None = None,
    budget: float = 2e9,
) -> Graph:
    """Learn which edges to keep: least of ``measure`` (mean over examples) plus ``sparsity`` for each edge kept.

    Parameters
    ----------
    sparsity
        What an edge must save to be kept, in the measure's unit (as ACDC's tau).
    gates
        ``"hard-concrete"`` (subnetwork probing, edge pruning) or ``"uniform"`` (uniform gradient sampling). Every
        example draws gates of its own at every step.
    measure
        ``"kl"`` from the clean run's output, or ``"metric"``: the mean size of the metric's change.
    steps, lr
        Of Adam, on the logits; all gates begin at a probability of 0.9 or more.

    Returns
    -------
    Graph
        ``scores``: minus the probability of being kept, so that both selections put kept edges first; ``chosen``: those
        with a probability above one half, without dangling parts. The provenance holds the last ``loss`` and the
        expected number of edges.

    Raises
    ------
    InputError
        Unknown gates or measure, a sparsity or a rate that is not positive, or a loss that is not finite.

    Notes
    -----
    Cost: ``steps`` forward and backward passes in which every port of every head reads a stream of its own: their
    memory grows with heads x layers, unlike that of :func:`circuits.attribute`.

    References
    ----------
    Cao, Sanh and Rush 2021, "Low-complexity probing via finding subnetworks"; Bhaskar et al. 2024, "Finding
    transformer circuits with edge pruning"; Li and Janson 2024.
    """
    if gates not in GATES:
        raise InputError(f"gates={gates!r}; they are one of {list(GATES)}{nearest(gates, GATES)}")
    if measure not in _MEASURES:
        raise InputError(f"measure={measure!r}; it is one of {list(_MEASURES)}")
    if not (sparsity > 0 and lr > 0 and steps >= 1):
        raise InputError(
            f"sparsity={sparsity}, lr={lr} and steps={steps} must be positive (an edge that costs nothing is kept)"
        )
    stream = Stream(model, gqa=gqa)
    held = list(benches(stream, task, ablation=ablation, batch_size=batch_size, budget=budget, together=True))
    targets = [_Target(bench, measure) for bench in held]
    sampler = GATES[gates]()
    logits, loss = _learned(stream, targets, sampler, sparsity=sparsity, steps=steps, lr=lr, seed=seed)
    kept = sampler.open(logits).double().cpu().numpy()
    return Graph(
        layout=stream.layout,
        scores=-kept,
        chosen=stream.layout.pruned(kept > 0.5),
        n=sum(len(t.bench.question) for t in targets),
        method=f"mask ({gates})",
        convention=f"minus the probability of {sampler.said}; least of {_MEASURES[measure]} + {sparsity:g} an edge; "
        f"cut edges carry {ABLATIONS[ablation]}",
        provenance={
            "model": model.name,
            "backend": model.backend,
            "gates": gates,
            "measure": measure,
            "sparsity": sparsity,
            "steps": steps,
            "lr": lr,
            "ablation": ablation,
            "seed": seed,
            "loss": loss,
            "expected_edges": float(np.sum(kept)),
        },
    )


class _Target:
    """What the gated run of one batch is held against."""

    def __init__(self, bench: Bench, measure: str) -> None:
        self.bench, self.measure = bench, measure
        place = bench.question.position
        self.place = bench.question.clean.last if place is None and measure == "kl" else place
        with torch.no_grad():
            logits = bench.stream.head(bench.clean.resid[-1], self.place)
            self.clean = bench.ends() if measure == "metric" else logits.double().log_softmax(-1)

    def distance(self, cut: Tensor) -> Tensor:
        """[row] the measure with the shares [row edge] of its edges cut."""
        logits = blended(self.bench, cut, position=self.place)
        if self.measure == "metric":
            return (self.bench.question.score(logits) - self.clean).abs()
        return (self.clean.exp() * (self.clean - logits.double().log_softmax(-1))).sum(-1)


def _learned(
    stream: Stream,
    targets: list[_Target],
    sampler: Any,
    *,
    sparsity: float,
    steps: int,
    lr: float,
    seed: int,
) -> tuple[Tensor, float]:
    """The logits [edge], and the mean of the measure over the last tenth of the steps."""
    x = targets[0].bench.clean.resid[0]
    logits = torch.full((stream.layout.n_edges,), math.log(9), device=x.device, dtype=x.dtype)
    logits.requires_grad_(True)
    adam = torch.optim.Adam([logits], lr=lr)
    generator, last = torch.Generator().manual_seed(seed), []
    n = sum(len(t.bench.question) for t in targets)
    with stream.frozen():
        for _ in range(steps):
            adam.zero_grad()
            total = 0.0
            for target in targets:
                gate = sampler.draw(logits, len(target.bench.question), generator)
                loss = target.distance(1 - gate).sum() / n
                loss.backward()
                total += float(loss.detach())
            if not math.isfinite(total):
                raise InputError(f"the {targets[0].measure} of the masked run is not finite; lower lr")
            (sparsity * sampler.open(logits).sum()).backward()
            adam.step()
            last.append(total)
    return logits.detach(), float(np.mean(last[-max(1, steps // 10) :]))
