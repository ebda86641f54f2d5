"""References: what an edge carries when it is cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circuits.passes import Recorder, Writes
from circuits.questions import asked
from circuits.stream import Stream
from interp.errors import InputError

__all__ = ["ABLATIONS", "Ablation", "reference"]

Ablation = str
ABLATIONS = {
    "corrupted": "its term in the run on the corrupted prompt",
    "zero": "nothing",
    "mean": "its mean over the clean prompts, position by position",
}


@torch.no_grad()
def reference(
    stream: Stream, task: Any, ablation: Ablation, *, batch_size: int | None = None
) -> Writes | None:
    """What every source is replaced by, one row for all examples; None: each example's own corrupted run.

    A mean is over the rows whose token at that position is real; where none is, the term is zero.

    Raises
    ------
    InputError
        An unknown ablation.
    """
    if ablation not in ABLATIONS:
        raise InputError(f"ablation={ablation!r}; it is one of {list(ABLATIONS)}")
    if ablation == "corrupted":
        return None
    if ablation == "zero":
        first = next(iter(asked(task)))
        kept = Recorder(len(stream.parts))
        x, _ = stream.enter(first.clean[:1], kept)
        return kept.writes(x).map(torch.zeros_like)
    total: Writes | None = None
    count = torch.zeros(1, dtype=torch.float64)
    for question in asked(task, batch_size=batch_size):
        kept = Recorder(len(stream.parts))
        x, _ = stream.enter(question.clean, kept)
        mask = question.clean.mask.to(x.device)

        def summed(t: Tensor, mask: Tensor = mask) -> Tensor:
            return torch.where(mask.view(*mask.shape, *[1] * (t.ndim - 2)), t.double(), 0).sum(
                0, keepdim=True
            )

        part = kept.writes(x).map(summed)
        total = part if total is None else total.minus(part.map(torch.neg))
        count = count + mask.sum(0).double().cpu()
    assert total is not None
    dtype = stream.model.dtype

    def mean(t: Tensor) -> Tensor:
        n = count.clamp(min=1).to(t.device).view(1, -1, *[1] * (t.ndim - 2))
        return (t / n).to(dtype)

    return total.map(mean)
