"""One pass over all pairs that leaves sums small enough to answer everything: order^2 numbers, never order^3.

The similarity of the logits with chi(w(a,b) c^-1) needs only the logits summed over pairs of one answer, and the
projection of the hidden layer onto functions of a, of b, or of w(a, b) only its sums over pairs of one a, b, or answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from circuits.groups.subject import Subject

__all__ = ["HiddenTally", "LogitTally", "tally"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogitTally:
    """Sums over the logits, each row's mean taken away."""

    by_answer: Float64[Tensor, "answer candidate"]
    """Centred logits summed over the pairs whose right answer is the row."""
    column_mean: Float64[Tensor, " candidate"]
    """The mean of the (not centred) logits over pairs."""
    total: float
    """Sum of squares."""
    scatter: float
    """Sum of squares of the wrong answers' logits about their mean in each row."""
    correct: Float64[Tensor, "left right"]
    """The right answer's centred logit."""
    margin: Float64[Tensor, "left right"]
    """The right answer's logit over the best wrong one."""
    mean_wrong_gap: Float64[Tensor, "left right"]
    """The right answer's logit over the mean wrong one."""
    loss: Float64[Tensor, "left right"]
    """Cross entropy in nats."""

    @property
    def right(self) -> Bool[Tensor, "left right"]:
        """Whether the right answer has the largest logit."""
        return self.margin > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenTally:
    """Sums over the hidden layer, each neuron's mean taken away."""

    by_left: Float64[Tensor, "element neuron"]
    by_right: Float64[Tensor, "element neuron"]
    by_answer: Float64[Tensor, "element neuron"]
    counts: Float64[Tensor, " element"]
    """How many pairs have each answer."""
    mean: Float64[Tensor, " neuron"]
    variance: Float64[Tensor, " neuron"]
    """Sum of squares about the mean."""


@torch.no_grad()
def tally(subject: Subject) -> tuple[LogitTally, HiddenTally | None]:
    """One forward pass of every pair; without parts there is no hidden layer to sum.

    Cost: order^2 forwards; memory: order^2 numbers and one block of logits.
    """
    logits, hidden = _Logits(subject), None
    for a, b, answer in subject.pairs():
        if subject.parts is None:
            logits.add(subject.logits_of(a, b), answer)
            continue
        activations, given = subject.parts.both(a, b)
        hidden = hidden or _Hidden(subject.group.order, activations)
        hidden.add(activations, a, b, answer)
        logits.add(subject.checked(given, len(a)), answer)
    counts = subject.answers.flatten().bincount(minlength=subject.group.order).double()
    return logits.done(), None if hidden is None else hidden.done(counts)


class _Logits:
    """The sums behind a :class:`LogitTally`."""

    def __init__(self, subject: Subject) -> None:
        self.order = subject.group.order
        self.by_answer = torch.zeros(self.order, self.order, dtype=torch.float64)
        self.columns = torch.zeros(self.order, dtype=torch.float64)
        self.total = self.scatter = 0.0
        self.per_pair: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, answer: Tensor) -> None:
        """Add a block (which is overwritten)."""
        wrong = max(self.order - 1, 1)
        self.columns += logits.sum(0)
        right = logits.gather(1, answer[:, None])[:, 0]
        loss = logits.logsumexp(1) - right
        logits -= logits.mean(1, keepdim=True)
        self.by_answer.index_add_(0, answer, logits)
        squares = float(logits.flatten() @ logits.flatten())
        correct = logits.gather(1, answer[:, None])[:, 0]
        self.total += squares
        # the wrong ones sum to minus the right one
        self.scatter += squares - float(correct @ correct) * (1 + 1 / wrong)
        logits.scatter_(1, answer[:, None], -torch.inf)
        best = logits.amax(1) if self.order > 1 else correct - 1
        self.per_pair.append((correct, correct - best, loss))

    def done(self) -> LogitTally:
        """The tally of all blocks."""
        order = self.order
        correct, margin, loss = (
            torch.cat(column).view(order, order) for column in zip(*self.per_pair, strict=True)
        )
        return LogitTally(
            by_answer=self.by_answer,
            column_mean=self.columns / order**2,
            total=self.total,
            scatter=self.scatter,
            correct=correct,
            margin=margin,
            mean_wrong_gap=correct * order / max(order - 1, 1),
            loss=loss,
        )


class _Hidden:
    """The sums behind a :class:`HiddenTally`, of activations shifted by the first block's mean."""

    def __init__(self, order: int, first: Tensor) -> None:
        self.order = order
        self.shift = first.double().mean(0)
        width = len(self.shift)
        self.sums = torch.zeros(3, order, width, dtype=torch.float64)
        self.squares = torch.zeros(width, dtype=torch.float64)

    def add(self, hidden: Tensor, a: Tensor, b: Tensor, answer: Tensor) -> None:
        """Add a block of whole rows."""
        hidden = hidden.double() - self.shift
        blocks = hidden.view(-1, self.order, hidden.shape[1])  # a is constant in each, b runs
        self.sums[0, a[:: self.order]] += blocks.sum(1)
        self.sums[1] += blocks.sum(0)
        self.sums[2].index_add_(0, answer, hidden)
        self.squares += hidden.square().sum(0)

    def done(self, counts: Tensor) -> HiddenTally:
        """The tally of all blocks, shifted to the mean."""
        n = self.order**2
        off = self.sums[0].sum(0) / n
        return HiddenTally(
            by_left=self.sums[0] - self.order * off,
            by_right=self.sums[1] - self.order * off,
            by_answer=self.sums[2] - counts[:, None] * off,
            counts=counts,
            mean=self.shift + off,
            variance=self.squares - n * off.square(),
        )
