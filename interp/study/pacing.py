"""How fast the model and the machine are, from a few trials: what makes a station's stated cost a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from interp.study.stations import SPEED, Estimate, Station, Study

__all__ = ["Pace", "pace", "stated"]

TRIAL = 8
"""Sequences run to learn the model's speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Measured speeds."""

    per_sequence: float
    """Seconds a forward pass of one sequence of the study takes, in a batch."""
    speed: float
    """Multiplications and additions a second in a matrix product on the CPU."""

    def seconds(self, cost: Estimate) -> float:
        """The wall time of a stated cost."""
        return cost.forward_passes * self.per_sequence + cost.seconds * SPEED / self.speed


def pace(model: Any, tokens: Any) -> Pace:
    """Four forward passes over at most 8 sequences, and matrix products for about a tenth of a second.

    Means, not minima: on a machine that others use too, that is what the job will get.
    """
    trial = tokens[: min(TRIAL, len(tokens))]
    model.logits(trial)  # the first one also warms up
    passes = _timed(lambda: model.logits(trial), n=3)
    x = torch.ones(512, 512)
    product = _timed(lambda: x @ x, n=32)
    return Pace(per_sequence=passes / len(trial), speed=512**3 / product)


def _timed(what: Any, *, n: int) -> float:
    """Mean seconds of one of ``n`` runs."""
    began = time.perf_counter()
    for _ in range(n):
        what()
    return max(time.perf_counter() - began, 1e-9) / n


def stated(station: Station, study: Study) -> tuple[Estimate, str]:
    """A station's cost, and why it will not run or has no estimate (empty where it will and has)."""
    try:
        reason = station.applies(study) or ""
        return (Estimate() if reason else station.estimate(study)), reason
    except Exception as error:  # noqa: BLE001  (an estimate that fails must not stop the others)
        return Estimate(), f"no estimate: {type(error).__name__}: {error}"
