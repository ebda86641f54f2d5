"""Constants: what a component can be replaced by with the least loss, learned for each by itself (optimal ablation)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.components import Component
from circuits.reruns import Reruns
from interp.activations import Activations
from interp.errors import InputError

__all__ = ["learned"]

RATE = 0.1
"""Adam's step, in standard deviations of the activation."""


def learned(
    reruns: Reruns, group: Sequence[Component], first: int, held: Activations, *, steps: int
) -> Tensor:
    """One constant for each component [component 1 ...], the same at all positions and examples.

    It minimises the mean divergence (nats) of the output at the answer's place from the unchanged run's, from the
    mean of the activation on; of all points passed the best is kept, so the loss is never above the mean's.

    Raises
    ------
    InputError
        A site of scores or patterns, whose rows must remain distributions.

    Notes
    -----
    Cost: ``steps`` + 1 forward and backward passes from the component's layer on, a component and example.

    References
    ----------
    Li and Janson 2024, "Optimal ablation for interpretability", eq. 3.
    """
    site = group[0].site.whole
    if "query" in (site.axes or ()):
        raise InputError(f"{site} holds scores between positions: there is no constant to learn there")
    assert reruns.stream is not None
    values = held[site]
    flat = values.detach()[held.mask.to(values.device)] if held.mask is not None else values.flatten(0, 1)
    centre, scale = flat.mean(0), flat.std(0).clamp(min=1e-6)
    theta = torch.zeros(len(group), 1, 1, *flat.shape[1:], device=values.device, dtype=values.dtype)
    theta.requires_grad_(True)
    optimiser = torch.optim.Adam([theta], lr=RATE)
    best = torch.full((len(group),), float("inf"), dtype=torch.float64)
    kept = theta.detach().clone()
    place = reruns.tokens.last if reruns.position is None else reruns.position
    for step in range(steps + 1):
        loss = torch.zeros(len(group), dtype=torch.float64)
        optimiser.zero_grad()
        for rows, base in reruns.bases:
            with reruns.stream.frozen(), torch.enable_grad():
                at = place[rows]
                logits = reruns.part(base, rows, first, group, {site: centre + scale * theta}, position=at)
                with torch.no_grad():
                    clean = reruns.stream.head(base.resid[-1], at).double().log_softmax(-1)
                each = (clean.exp() * (clean - logits.double().log_softmax(-1))).sum(-1).sum(-1)
                if step < steps:
                    (each.sum() / reruns.n).backward()
            loss += each.detach().cpu() / reruns.n
        better = loss < best
        best[better] = loss[better]
        kept[better] = theta.detach()[better]
        if step < steps:
            optimiser.step()
    return (centre + scale * kept).detach()
