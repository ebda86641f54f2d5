"""What the main job would cost, before it is run: ``interp analyze --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from interp.study.job import Job
from interp.study.pacing import TRIAL, Pace, pace, stated
from interp.study.stations import Station, Study

__all__ = ["Plan", "Step", "plan"]

WRITING = 5e7
"""Bytes a second that are hashed and written with their fsync, roughly."""


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
    preset: str
    source: str
    n_sequences: int
    n_tokens: int
    seconds_per_sequence: float
    model_bytes: int
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The whole job's wall time, roughly: the stations' stated costs at the speeds measured here."""
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
    """What ``job`` would cost; nothing is written. Cost: that of :func:`interp.study.pacing.pace`."""
    tokens = job.material.tokens
    speed = pace(job.model, tokens)
    trial = tokens[: min(TRIAL, len(tokens))]
    n_tokens = int(tokens.mask.sum())
    width = sum(job.model.width(site) for site in job.sites)
    study = job.study(Path(out))
    capture = Step(
        name="capture",
        title=f"Capture of {len(job.sites)} sites",
        forward_passes=len(tokens),
        seconds=1.2 * len(tokens) * speed.per_sequence + 4 * width * n_tokens / WRITING,
        memory_bytes=4 * width * trial.ids.numel(),
        disk_bytes=4 * width * n_tokens,
    )
    steps = [capture, *(_step(station, study, speed) for station in job.stations)]
    return Plan(
        model=job.model.name,
        preset=job.effort.name,
        source=job.material.source,
        n_sequences=len(tokens),
        n_tokens=n_tokens,
        seconds_per_sequence=speed.per_sequence,
        model_bytes=sum(p.numel() * p.element_size() for p in job.model.module.parameters()),
        steps=tuple(steps),
        notes=job.material.notes,
    )


def _step(station: Station, study: Study, speed: Pace) -> Step:
    cost, reason = stated(station, study)
    return Step(
        name=station.name,
        title=station.title,
        forward_passes=cost.forward_passes,
        seconds=speed.seconds(cost),
        memory_bytes=cost.memory_bytes,
        reason=reason,
    )
