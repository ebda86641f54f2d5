"""Questions: what a circuit is asked, whatever it was given as, cut into batches.

A :class:`interp.tasks.Task`, the trials of a planted circuit, or ``(clean, corrupted, metric)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError
from interp.tokens import Tokens

__all__ = ["Question", "asked", "scored"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """Pairs of prompts that line up, and one number per example from their logits."""

    clean: Tokens
    corrupted: Tokens
    metric: Callable[[Tensor], Tensor]
    """Logits [batch pos d_vocab], or [batch d_vocab] at ``position`` -> [batch]."""
    position: Tensor | None
    """[batch] the only place at which the metric reads the logits; None: it is shown all of them."""
    name: str

    def __len__(self) -> int:
        return len(self.clean)

    def score(self, logits: Tensor) -> Tensor:
        """The metric [... batch] of logits [... batch (pos) d_vocab]."""
        lead = logits.shape[: -2 if self.position is not None else -3]
        flat = logits.reshape(-1, *logits.shape[len(lead) :])
        return torch.stack([scored(self.metric, one) for one in flat]).view(*lead, len(self))


def scored(metric: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """The metric's numbers [batch] in float64, differentiable."""
    scores = metric(logits)
    if not isinstance(scores, Tensor) or scores.shape != logits.shape[:1]:
        got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the metric returned {got}; it must give one number per example [{len(logits)}]")
    return scores.double()


def asked(task: Any, *, batch_size: int | None = None) -> Iterator[Question]:
    """The question in batches of at most ``batch_size`` examples.

    Raises
    ------
    InputError
        It is none of what can be asked, its pairs do not line up token by token, or a metric that knows its examples
        by row only would have to be split.
    """
    if hasattr(task, "select") and hasattr(task, "position"):
        size = batch_size or len(task)
        for start in range(0, len(task), size):
            part = task.select(slice(start, start + size))
            yield _checked(part.clean, part.corrupted, part.metric, part.position, task.name)
    elif all(hasattr(task, name) for name in ("clean", "corrupted", "metric", "batches")):
        for part in task.batches(batch_size or len(task)):
            yield _checked(part.clean, part.corrupted, part.metric, None, type(task).__name__.lower())
    elif isinstance(task, tuple | list) and len(task) == 3 and callable(task[2]):
        clean, corrupted = (t if isinstance(t, Tokens) else Tokens.full(t) for t in task[:2])
        if batch_size is not None and batch_size < len(clean):
            raise InputError(
                f"a bare metric is shown all {len(clean)} examples in their order and cannot be split into batches "
                f"of {batch_size}: give a Task, or no batch_size"
            )
        yield _checked(clean, corrupted, task[2], None, "metric")
    else:
        raise InputError(
            f"a circuit is asked a Task, planted trials, or (clean, corrupted, metric); got {type(task).__name__}"
        )


def _checked(clean: Tokens, corrupted: Tokens, metric: Any, position: Tensor | None, name: str) -> Question:
    if clean.ids.shape != corrupted.ids.shape:
        raise InputError(
            f"clean prompts are {list(clean.ids.shape)} and corrupted ones {list(corrupted.ids.shape)}: "
            "pairs must line up token by token"
        )
    uneven = (clean.mask != corrupted.mask).any(1).nonzero()
    if len(uneven):
        row = int(uneven[0])
        raise InputError(
            f"pair {row} has {int(clean.lengths[row])} clean and {int(corrupted.lengths[row])} corrupted tokens; "
            "pairs must line up token by token"
        )
    return Question(clean=clean, corrupted=corrupted, metric=metric, position=position, name=name)
