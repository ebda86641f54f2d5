"""Attention patterns of a few prompts, small enough for a page: whole numbers from 0 to 99, the lower triangle only."""

from __future__ import annotations

from typing import Any

import torch

from interp.errors import InterpError

__all__ = ["LEVELS", "patterns"]

LEVELS = 99
"""What an attention of 1 is written as."""
LIMIT = 150_000
"""Numbers kept at most; longer prompts or more heads mean fewer prompts."""


@torch.no_grad()
def patterns(model: Any, task: Any, *, seen: int) -> dict[str, Any]:
    """The clean prompts' attention, head by head.

    Parameters
    ----------
    seen
        At most so many prompts, the first ones.

    Returns
    -------
    dict
        ``rows``: which prompts; ``tokens``: how many of each; ``heads``: by node name, a list per prompt of
        ``round(99 attention)`` for query 0 key 0, query 1 keys 0 and 1, and so on; ``reason`` where there is none.
    """
    if not model.n_heads or not getattr(model, "causal", True):
        return {"rows": [], "tokens": [], "heads": {}, "reason": "the model has no causal attention heads"}
    lengths = task.clean.mask.sum(1).tolist()
    rows, left = [], LIMIT
    for i, n in enumerate(lengths[:seen]):
        left -= model.n_layers * model.n_heads * n * (n + 1) // 2
        if left < 0:
            break
        rows.append(i)
    if not rows:
        return {
            "rows": [],
            "tokens": [],
            "heads": {},
            "reason": "the patterns of one prompt would fill the page",
        }
    some = task.clean.select(torch.tensor(rows))
    try:
        found = model.capture(some, "blocks.*.attn.hook_pattern")
    except InterpError as error:
        return {"rows": [], "tokens": [], "heads": {}, "reason": str(error)}
    heads: dict[str, list[list[int]]] = {}
    for site, tensor in found.items():
        level = (tensor.float() * LEVELS).round().to(torch.int64)
        for head in range(level.shape[1]):
            heads[f"a{site.layer}.h{head}"] = [
                _triangle(level[i, head][mask][:, mask]) for i, mask in enumerate(some.mask)
            ]
    return {"rows": rows, "tokens": [lengths[i] for i in rows], "heads": heads, "reason": None}


def _triangle(square: torch.Tensor) -> list[int]:
    n = len(square)
    query, key = torch.tril_indices(n, n)
    return square[query, key].tolist()
