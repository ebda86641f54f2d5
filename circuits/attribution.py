"""Attribution: an estimate of what every edge is worth, at the cost of a few forward and backward passes.

``circuits.attribute(model, task, method=...)``. Estimates are linear; ``edge_effects`` in ``exact.py`` is what they
estimate. Read next: ``slopes.py``, where the gradients come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuits.budgets import attribution_bytes, fitting
from circuits.graph import Graph
from circuits.layout import GQA
from circuits.passes import Recorder, Writes
from circuits.questions import Question, asked
from circuits.references import ABLATIONS, reference
from circuits.slopes import Slopes, Watch
from circuits.stream import Stream
from circuits.tally import Tally
from interp.errors import InputError, nearest

__all__ = ["METHODS", "attribute", "rough"]

_SAID = {
    "eap": "gradient at the clean run",
    "eap-ig": "gradient averaged over {steps} inputs from corrupted towards clean (the clean end left out)",
    "eap-ig-activations": (
        "gradient averaged over {steps} points from corrupted to clean in each layer's activations in turn (the "
        "corrupted end left out), all layers weighted alike"
    ),
    "clean-corrupted": "mean of the gradients at the clean and the corrupted run",
    "ifr": "minus the share of what the destination reads that the source has written (information-flow routes)",
    "exact": "measured: the metric with the edge alone patched minus the clean metric",
}
METHODS = tuple(_SAID)


def attribute(
    model: Any,
    task: Any,
    *,
    method: str = "eap-ig",
    steps: int = 5,
    ablation: str = "corrupted",
    gqa: GQA = "ungrouped",
    positions: bool = False,
    batch_size: int | None = None,
    budget: float = 2e9,
    keep: bool | None = None,
) -> Graph:
    """Score every edge: about how much the metric changes when the edge carries its corrupted term.

    Parameters
    ----------
    model
        A decoder that runs on torch modules and whose stream is a plain sum.
    task
        A Task, planted trials, or ``(clean, corrupted, metric)``.
    method
        ``"eap"``, ``"eap-ig"`` (over inputs), ``"eap-ig-activations"``, ``"clean-corrupted"``; ``"ifr"``:
        information-flow routes, which ask neither metric nor corruption; ``"exact"`` measures every edge (one forward
        pass from the edge's layer on, each).
    steps
        Points of the two ``eap-ig`` methods.
    ablation
        What an edge carries when it is cut: ``"corrupted"``, ``"zero"``, or ``"mean"`` (over the clean prompts, at
        each position). With the latter two only ``"eap"`` and ``"exact"``.
    gqa
        See :meth:`circuits.Graph.from_model`.
    positions
        Keep the scores taken apart by position too (``Graph.by_position``, ``Graph.at``).
    batch_size
        Examples a pass; as many as ``budget`` bytes hold by default.
    keep
        Whether to keep every example's scores (for :func:`circuits.stability`); by default if they fit into a quarter
        of the budget.

    Returns
    -------
    Graph
        Scores in units of the metric, negative where corrupting the edge lowers it, with their variance over examples.

    Raises
    ------
    ModelError
        The model's stream is no plain sum.
    InputError
        Pairs that do not line up; a metric without slope at the clean run (such as a divergence from that run); a
        budget that does not hold one example.

    Notes
    -----
    Cost in forward (F) and forward-backward (B) passes: eap F + B; eap-ig F + steps B; clean-corrupted 2 B;
    eap-ig-activations 2 F + (2 layers + 1) steps B; ifr F. No parameter gets a gradient and no head's input a copy.

    References
    ----------
    Syed, Rager and Conmy 2023, "Attribution patching outperforms automated circuit discovery", eq. 2; Hanna, Pezzelle
    and Belinkov 2024, "Have faith in faithfulness", eq. 5.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r}; it is one of {list(METHODS)}{nearest(method, METHODS)}")
    if positions and method in ("exact", "ifr"):
        raise InputError(
            f"positions=True has no meaning for method={method!r}; "
            "path_patch(..., positions=[...]) measures an edge there"
        )
    if method == "exact":
        from circuits.exact import edge_effects

        return edge_effects(
            model, task, ablation=ablation, gqa=gqa, batch_size=batch_size, budget=budget, keep=keep
        )
    if steps < 1:
        raise InputError(f"steps must be at least 1; got {steps}")
    if method == "ifr":
        return _routes(model, task, gqa=gqa, batch_size=batch_size, budget=budget, keep=keep)
    if ablation not in ABLATIONS or (ablation != "corrupted" and method != "eap"):
        raise InputError(
            f"ablation={ablation!r} with method={method!r}; {method} interpolates between clean and corrupted prompts"
            if ablation in ABLATIONS
            else f"ablation={ablation!r}; it is one of {list(ABLATIONS)}"
        )
    stream = Stream(model, gqa=gqa)
    size = _batch_size(stream, task, batch_size, budget)
    other = reference(stream, task, ablation, batch_size=size)
    tally = Tally(stream.layout.n_edges, keep=_kept(stream, task, keep, budget))
    apart: Tally | None = None
    for question in asked(task, batch_size=size):
        slopes, difference, scores = _POINTS[method](stream, question, steps)
        _sloped(slopes, question, scores, difference[0])
        with torch.no_grad():
            ours, theirs = difference[0], difference[1] if other is None else other
            found = slopes.scores(theirs.minus(ours), positions=positions)
        if positions:
            apart = apart or Tally(found[0].numel())
            apart.add(found.flatten(1))
        tally.add(found.sum(1) if positions else found)
    said = _SAID[method].format(steps=steps)
    return tally.graph(
        stream.layout,
        method=method,
        convention=(
            f"(other term - clean term) times the {said}; other: {ABLATIONS[ablation]}; negative: cutting the edge "
            "lowers the metric"
        ),
        provenance={
            "model": model.name,
            "backend": model.backend,
            "d_model": model.d_model,
            "method": method,
            "steps": steps,
            "ablation": ablation,
        },
        by_position=None if apart is None else apart.mean.reshape(-1, stream.layout.n_edges),
    )


def _routes(
    model: Any, task: Any, *, gqa: GQA, batch_size: int | None, budget: float, keep: bool | None
) -> Graph:
    from circuits.routes import shares

    stream = Stream(model, gqa=gqa)
    size = _batch_size(stream, task, batch_size, budget)
    tally = Tally(stream.layout.n_edges, keep=_kept(stream, task, keep, budget))
    for question in asked(task, batch_size=size):
        tally.add(-shares(stream, question))
    origin = {"model": model.name, "backend": model.backend, "d_model": model.d_model, "method": "ifr"}
    return tally.graph(stream.layout, method="ifr", convention=_SAID["ifr"], provenance=origin)


Found = tuple[Slopes, tuple[Writes, Writes], Tensor]
"""Slopes summed over passes; what the clean and the corrupted run wrote; the metric of the last pass."""


@torch.no_grad()
def rough(stream: Stream, question: Question, *, steps: int = 2) -> Tensor:
    """[row edge] integrated gradients of few points, for what needs an order only. Nothing is refused."""
    slopes, (ours, theirs), _ = _ig(stream, question, steps)
    return slopes.scores(theirs.minus(ours))


def _eap(stream: Stream, question: Question, steps: int) -> Found:
    corrupted = Recorder(len(stream.parts))
    x, calls = stream.enter(question.corrupted, corrupted)
    theirs = corrupted.writes(x)
    slopes, x = Slopes(stream), stream.embed(question.clean)
    watch, scores = slopes.add(x, calls, question.score, position=question.position)
    return slopes, (watch.writes(x), theirs), scores


def _ig(stream: Stream, question: Question, steps: int) -> Found:
    clean = Recorder(len(stream.parts))
    x, calls = stream.enter(question.clean, clean)
    start, slopes = stream.embed(question.corrupted), Slopes(stream)
    first: Watch | None = None
    scores: Tensor | None = None
    for k in range(steps):
        watch, scores = slopes.add(
            start + k / steps * (x - start), calls, question.score, position=question.position
        )
        first = first or watch  # the first point is the corrupted run itself
    assert first is not None
    assert scores is not None
    return slopes, (clean.writes(x), first.writes(start)), scores


def _ends(stream: Stream, question: Question, steps: int) -> Found:
    x, calls = stream.enter(question.clean)
    start, slopes = stream.embed(question.corrupted), Slopes(stream)
    theirs, _ = slopes.add(start, calls, question.score, position=question.position)
    ours, scores = slopes.add(x, calls, question.score, position=question.position)
    return slopes, (ours.writes(x), theirs.writes(start)), scores


def _ig_activations(stream: Stream, question: Question, steps: int) -> Found:
    recorders = [Recorder(len(stream.parts)) for _ in range(2)]
    x, calls = stream.enter(question.clean, recorders[0])
    start, _ = stream.enter(question.corrupted, recorders[1])
    ours, theirs = recorders[0].writes(x), recorders[1].writes(start)
    slopes = Slopes(stream)
    scores = x.new_zeros(len(question))

    def point(part: Writes, whole: Writes, k: int) -> Writes:
        return whole.minus(part.map(lambda t: (1 - k / steps) * t))

    gap = ours.minus(theirs)
    for k in range(1, steps + 1):
        at = point(gap, ours, k)
        _, scores = slopes.add(at.input, calls, question.score, position=question.position)
        for kind, tensors in (("z", at.z), ("mlp", at.mlp)):
            for layer, tensor in enumerate(tensors):
                if tensor is not None:
                    watch = Watch(len(stream.parts), instead={(kind, layer): tensor})
                    _, scores = slopes.add(x, calls, question.score, position=question.position, watch=watch)
    return slopes, (ours, theirs), scores


_POINTS: dict[str, Callable[[Stream, Question, int], Found]] = {
    "eap": _eap,
    "eap-ig": _ig,
    "clean-corrupted": _ends,
    "eap-ig-activations": _ig_activations,
}


def _sloped(slopes: Slopes, question: Question, scores: Tensor, clean: Writes) -> None:
    """Refuse a metric that does not move: there is nothing to share out among the edges."""
    assert slopes.final is not None
    reach = slopes.final.double().flatten(1).norm(dim=1) * clean.input.double().flatten(1).norm(dim=1)
    if not torch.isfinite(scores).all() or not torch.isfinite(reach).all():
        row = int((~torch.isfinite(scores + reach)).nonzero()[0])
        raise InputError(
            f"the metric or its gradient is not finite on example {row} of a batch of {len(question)}"
        )
    if float(reach.max()) < 1e-7 * max(1.0, float(scores.abs().max())):
        raise InputError(
            f"the metric has no slope at the clean run (its gradient is at most {float(reach.max()):.1g}): a "
            "divergence from the clean run is smallest there, so its gradient is zero and says nothing about any edge. "
            "Use a logit difference, method='eap-ig', or method='exact'"
        )


def _batch_size(stream: Stream, task: Any, batch_size: int | None, budget: float) -> int | None:
    def need(question: Question) -> int:
        return attribution_bytes(stream, question)

    return fitting(task, need, batch_size=batch_size, budget=budget)


def _kept(stream: Stream, task: Any, keep: bool | None, budget: float) -> bool:
    n = sum(len(q) for q in asked(task))
    return keep if keep is not None else 4 * n * stream.layout.n_edges <= budget / 4
