"""What the main job would cost, before it is run: ``interp analyze --dry-run``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.study.job import Job
from interp.study.stations import Estimate

__all__ = ["Plan", "Step", "plan"]

TRIAL = 8
"""Sequences run to learn the model's speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the job and its cost."""

    name: str
    title: str
    forward_passes: float = 0.0
    """Forward passes of one sequence each."""
    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    reason: str = ""
    """Why it will not run, if it will not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All steps, and what they stand on."""

    model: str
    source: str
    n_sequences: int
    n_tokens: int
    seconds_per_sequence: float
    model_bytes: int
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The whole job's wall time, roughly: the stations' own figures, measured on the model at hand."""
        return sum(step.seconds for step in self.steps)

    @property
    def memory_bytes(self) -> int:
        """Peak memory: the weights and the hungriest step."""
        return self.model_bytes + max((step.memory_bytes for step in self.steps), default=0)

    @property
    def disk_bytes(self) -> int:
        """What the activations take."""
        return sum(step.disk_bytes for step in self.steps)


def plan(job: Job, out: str | Path) -> Plan:
    """What ``job`` would cost; nothing is written. Cost: three forward passes over at most 8 sequences."""
    tokens = job.material.tokens
    trial = tokens[: min(TRIAL, len(tokens))]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        job.model.logits(trial)
        times.append(time.perf_counter() - began)
    per_sequence = min(times) / len(trial)
    n_tokens = int(tokens.mask.sum())
    width = sum(job.model.width(site) for site in job.sites)
    study = job.study(Path(out))
    capture = Step(
        name="capture",
        title=f"Capture of {len(job.sites)} sites",
        forward_passes=len(tokens),
        seconds=1.2 * len(tokens) * per_sequence,
        memory_bytes=4 * width * trial.ids.numel(),
        disk_bytes=4 * width * n_tokens,
    )
    steps = [capture, *(_step(station, study, per_sequence) for station in job.stations)]
    return Plan(
        model=job.model.name,
        source=job.material.source,
        n_sequences=len(tokens),
        n_tokens=n_tokens,
        seconds_per_sequence=per_sequence,
        model_bytes=sum(p.numel() * p.element_size() for p in job.model.module.parameters()),
        steps=tuple(steps),
        notes=job.material.notes,
    )


def _step(station: Any, study: Any, per_sequence: float) -> Step:
    try:
        reason = station.applies(study) or ""
        cost = Estimate() if reason else station.estimate(study)
    except Exception as error:  # noqa: BLE001  (an estimate that fails must not stop the others)
        reason, cost = f"no estimate: {type(error).__name__}: {error}", Estimate()
    return Step(
        name=station.name,
        title=station.title,
        forward_passes=cost.forward_passes,
        seconds=cost.seconds or cost.forward_passes * per_sequence,
        memory_bytes=cost.memory_bytes,
        reason=reason,
    )
