"""Softmax: what changed queries or keys do to the attention pattern, recomputed instead of linearised (AtP*).

Where a head's pattern is saturated its gradient vanishes though a query patched by another would move it; so the
pattern is made anew with the other queries (or keys) and the metric's slope is taken at the pattern only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import ModelError
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["Patterns", "keys_effect", "queries_effect", "recomputed"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patterns:
    """Of every layer [row head query key]: the clean pattern and scores, and the scores with other inputs."""

    clean: Mapping[int, Tensor]
    scores: Mapping[int, Tensor]
    changed: Mapping[int, Tensor]


@torch.no_grad()
def recomputed(model: Any, tokens: Tokens, other: Mapping[Site, Tensor]) -> Patterns:
    """The scores of every head when its queries (or keys) are ``other``, everything else being clean.

    All layers in one pass: behind the scores the clean pattern is put back, so that every layer reads a clean stream.
    Cost: two forward passes.

    Raises
    ------
    ModelError
        The model's scores cannot be reached.
    """
    layers = sorted(site.layer for site in other if site.layer is not None)
    inside = [Site(kind=kind, layer=layer) for layer in layers for kind in ("attn_scores", "pattern")]
    missing = [site for site in inside if site not in model.sites or site in model.inert]
    if missing:
        raise ModelError(
            f"{model.name} ({model.backend}) does not show {missing[0]}: the corrections for queries and keys need "
            "attention scores and patterns (method='atp' does without)"
        )
    acts = model.capture(tokens, inside)
    found: dict[int, Tensor] = {}

    def swap(site: Site) -> Any:
        return lambda value: other[site].to(value)

    def keep(layer: int) -> Any:
        def visit(value: Tensor) -> None:
            found[layer] = value.detach()

        return visit

    def restore(layer: int) -> Any:
        return lambda value: acts[Site(kind="pattern", layer=layer)].to(value)

    visits = [(site, swap(site)) for site in other]
    visits += [(Site(kind="attn_scores", layer=layer), keep(layer)) for layer in layers]
    visits += [(Site(kind="pattern", layer=layer), restore(layer)) for layer in layers]
    ((inputs, frame),) = model.frames(tokens, None)
    model.run(inputs, frame, visits, wanted=None)
    return Patterns(
        clean={layer: acts[Site(kind="pattern", layer=layer)].double() for layer in layers},
        scores={layer: acts[Site(kind="attn_scores", layer=layer)].double() for layer in layers},
        changed={layer: found[layer].double() for layer in layers},
    )


def queries_effect(patterns: Patterns, slope: Tensor, layer: int) -> Tensor:
    """[row head query] first-order effect of every query patched by itself; their sum is that of all together."""
    new = patterns.changed[layer].softmax(-1)
    return ((new - patterns.clean[layer]) * slope.double()).sum(-1)


def keys_effect(patterns: Patterns, slope: Tensor, layer: int, *, singly: bool) -> Tensor:
    """[row head key] the same for keys: each patched by itself (``singly``), or all together (shared out by key).

    One changed score moves a row of the softmax in closed form: with d its change and A its old weight,
    the new weights are A e^d / D there and A_k / D elsewhere, D = 1 + A (e^d - 1).

    References
    ----------
    Kramar, Lieberum, Shah and Nanda 2024, "AtP*: an efficient and scalable method for localizing LLM behaviour to
    components", section 3.1.
    """
    weight, slope = patterns.clean[layer], slope.double()
    if not singly:
        return ((patterns.changed[layer].softmax(-1) - weight) * slope).sum(-2)
    before, after = patterns.scores[layer], patterns.changed[layer]
    change = torch.where(weight > 0, after - before, 0.0)
    total = (weight * slope).sum(-1, keepdim=True)
    grown = weight * change.exp()
    scale = 1 - weight + grown
    effect = (grown * slope + total - weight * slope) / scale - total
    return effect.sum(-2)
