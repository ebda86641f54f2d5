"""What finding and telling a circuit would cost, counted in passes and timed by one; nothing is written."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from interp.commands.saying import say

__all__ = ["estimate", "say_cost"]

BACKWARD = 3
"""A pass with gradients takes about as long as so many without."""
WRITTEN = 60
"""Bytes of an edge in the files: scores, exact effects, masks, a line of the table."""


def estimate(model: Any, task: Any, *, method: str, steps: int, gqa: str, check: int) -> dict[str, Any]:
    """Edges, passes, seconds, memory and disk bytes of scoring, judging, shrinking and checking.

    ``method`` ``"known"``: the scores are there already. Passes are those that the functions' docstrings name, times
    the pairs; the time is that of a forward pass over at most sixteen pairs, a pass with gradients three of them.
    Cost: three forward passes over at most sixteen pairs.
    """
    from circuits.budgets import attribution_bytes, bench_bytes
    from circuits.evaluation import GRID
    from circuits.questions import asked
    from circuits.stream import Stream

    stream = Stream(model, gqa=gqa)  # type: ignore[arg-type]
    n_edges, n_layers = stream.layout.n_edges, len(stream.layout.blocks)
    question = next(iter(asked(task)))
    n = len(question)
    few = question.clean[: min(16, n)]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model.logits(few)
        seconds.append(time.perf_counter() - began)
    backward = {
        "known": 0, "ifr": 1, "eap": 1, "eap-ig": steps, "clean-corrupted": 2, "exact": 0,
        "eap-ig-activations": (2 * n_layers + 1) * steps,
    }[method]  # fmt: skip
    judged = 7 * len(GRID) + 22 + 24 + 12 * math.log(max(2, n_edges)) / math.log(12)
    exact = n_edges if method == "exact" else check
    forward = math.ceil(judged + 4 + exact)
    return {
        "pairs": n,
        "edges": n_edges,
        "forward_passes": forward * n,
        "backward_passes": backward * n,
        "seconds": round(min(seconds) / len(few) * n * (forward + BACKWARD * backward), 1),
        "memory_bytes": sum(p.numel() * p.element_size() for p in model.module.parameters())
        + max(attribution_bytes(stream, question), bench_bytes(stream, question)),
        "disk_bytes": WRITTEN * n_edges + 1_000_000,
    }


def say_cost(model: Any, task: Any, *, method: str, steps: int, gqa: str, check: int, as_json: bool) -> None:
    """Write the estimate to standard output."""
    cost = estimate(model, task, method=method, steps=steps, gqa=gqa, check=check)
    if as_json:
        say(json.dumps(cost, indent=2))
        return
    say(
        f"{cost['edges']} edges on {cost['pairs']} pairs, {cost['forward_passes']} forward passes and "
        f"{cost['backward_passes']} with gradients: about {cost['seconds']:.0f} s, at least "
        f"{cost['memory_bytes'] / 1e6:.0f} MB of memory, {cost['disk_bytes'] / 1e6:.1f} MB of disk"
    )
