"""Labels that every text has, for a study that was given none: the token before, here and next, and the place.

Asked of a study (:class:`interp.study.stations.Study`), so that the probe station always has something to probe.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from interp.study.stations import Study

__all__ = ["IGNORE", "generic_labels"]

N_COMMON = 6
LEAST = 20
"""Occurrences that a token needs to be a class."""
IGNORE = -100


def generic_labels(study: Study, *, every: bool = False) -> dict[str, Int64[Tensor, "batch pos"]]:
    """Name -> classes: the previous token; with ``every`` also current and next token, and the third of the text.

    Tokens are the commonest few that recur in the texts; a label without two such classes is left out.
    """
    ids, mask = study.tokens.ids.cpu(), study.tokens.mask.cpu()
    if ids.shape[1] < 3 or _whole_inputs(study):
        return {}
    before, real = ids[:, :-1], mask[:, 1:] & mask[:, :-1]
    marked = len(before) > 1 and bool((before[:, 0] == before[0, 0]).all())
    first = real.clone()
    if marked:
        first[:, 0] = (
            False  # behind a beginning-of-sequence mark the position alone would give the label away
        )
    found = {"previous token": _common(before, first, shape=ids, at=slice(1, None))}
    if every:
        behind = mask.clone()
        behind[:, 0] &= not marked
        found["current token"] = _common(ids, behind, shape=ids, at=slice(None))
        found["next token"] = _common(ids[:, 1:], real, shape=ids, at=slice(None, -1))
        found["third of the text"] = _thirds(mask)
    return {name: grid for name, grid in found.items() if grid is not None}


def _whole_inputs(study: Study) -> bool:
    """Whether activations come once an input, not once a token."""
    return study.store is not None and bool((study.store.pos[:1] < 0).any())


def _common(
    tokens: Int64[Tensor, "batch some"],
    real: Bool[Tensor, "batch some"],
    *,
    shape: Int64[Tensor, "batch pos"],
    at: slice,
) -> Int64[Tensor, "batch pos"] | None:
    """Which of the commonest tokens it is, written at the columns ``at``."""
    values, counts = tokens[real].unique(return_counts=True)
    order = counts.argsort(descending=True)[:N_COMMON]
    common = [int(values[i]) for i in order if int(counts[i]) >= LEAST]
    if len(common) < 2:
        return None
    grid = torch.full_like(shape, IGNORE)
    for label, token in enumerate(common):
        grid[:, at][(tokens == token) & real] = label
    return grid


def _thirds(mask: Bool[Tensor, "batch pos"]) -> Int64[Tensor, "batch pos"] | None:
    place, lengths = mask.long().cumsum(1) - 1, mask.sum(1, keepdim=True)
    if int(lengths.max()) < 6:
        return None
    return torch.where(mask, (3 * place) // lengths.clamp_min(1), torch.full_like(place, IGNORE))
