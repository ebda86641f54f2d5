"""What a task counts: one number per example from the logits at the answer's place, and what it means.

Sets of ids are padded with :data:`NONE`; a set is never empty where a measure needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["MEASURES", "NONE", "Measure", "mass", "right"]

NONE = -1
"""Fills the sets of token ids where an example has fewer than the longest."""

Scores = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A way to score: the function (logits, answers, wrong) -> [batch], and its convention in words."""

    score: Scores
    unit: str
    convention: str
    among: str
    """What the right answer competes with where answers are counted: its wrong ones, or the whole vocabulary."""


def _picked(
    logits: Float[Tensor, "batch d_vocab"], ids: Int[Tensor, "batch answer"], empty: float
) -> Float[Tensor, "batch answer"]:
    """The values at ``ids``, and ``empty`` where a set has none."""
    return logits.gather(1, ids.clamp(min=0)).masked_fill(ids == NONE, empty)


def mass(logits: Float[Tensor, "batch d_vocab"], ids: Int[Tensor, "batch answer"]) -> Float[Tensor, "batch"]:
    """The probability of the set, from float64 logits."""
    return _picked(logits.double().softmax(-1), ids, 0.0).sum(-1)


def logit_difference(
    logits: Float[Tensor, "batch d_vocab"],
    answers: Int[Tensor, "batch answer"],
    wrong: Int[Tensor, "batch wrong"],
) -> Float[Tensor, "batch"]:
    """Highest logit of the answers minus the highest of the wrong ones."""
    best = [_picked(logits.double(), ids, -torch.inf).amax(-1) for ids in (answers, wrong)]
    return best[0] - best[1]


def probability_difference(
    logits: Float[Tensor, "batch d_vocab"],
    answers: Int[Tensor, "batch answer"],
    wrong: Int[Tensor, "batch wrong"],
) -> Float[Tensor, "batch"]:
    """Probability of the answers minus that of the wrong ones."""
    return mass(logits, answers) - mass(logits, wrong)


def log_probability(
    logits: Float[Tensor, "batch d_vocab"],
    answers: Int[Tensor, "batch answer"],
    wrong: Int[Tensor, "batch wrong"],
) -> Float[Tensor, "batch"]:
    """Log of the answers' probability."""
    return _picked(logits.double().log_softmax(-1), answers, -torch.inf).logsumexp(-1)


def right(
    logits: Float[Tensor, "batch d_vocab"],
    answers: Int[Tensor, "batch answer"],
    wrong: Int[Tensor, "batch wrong"] | None,
) -> Bool[Tensor, "batch"]:
    """Whether an answer has a higher logit than every wrong one (None: every other token); a tie is a miss."""
    values = logits.double()
    best = _picked(values, answers, -torch.inf).amax(-1)
    if wrong is not None:
        return best > _picked(values, wrong, -torch.inf).amax(-1)
    taken = torch.zeros_like(values, dtype=torch.bool)
    taken.scatter_(1, torch.where(answers == NONE, answers[:, :1], answers), True)
    return best > values.masked_fill(taken, -torch.inf).amax(-1)


MEASURES: Mapping[str, Measure] = {
    "logit_difference": Measure(
        score=logit_difference,
        unit="logits",
        convention="highest logit of the right answers minus the highest of the wrong ones, at the last token",
        among="wrong",
    ),
    "probability_difference": Measure(
        score=probability_difference,
        unit="probability",
        convention="probability of the right answers minus probability of the wrong ones, at the last token",
        among="wrong",
    ),
    "log_probability": Measure(
        score=log_probability,
        unit="nats",
        convention="natural logarithm of the right answers' probability, at the last token",
        among="vocabulary",
    ),
}
