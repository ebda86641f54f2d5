"""A run and what leads to it: learners with their folders and what they have told, step after step.

Read next: ``learner.py`` (one step), ``stacking.py`` (the steps of several at once), ``checkpoints.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import CheckError
from interp.runs.files import JsonLines
from interp.runs.provenance import digest, provenance
from interp.showing import Shown
from sae import checkpoints
from sae.advice import advice
from sae.coder import Coder
from sae.config import TrainConfig
from sae.downstream import Through
from sae.learner import Learner
from sae.stacking import Stack
from sae.storage import save
from sae.supply import Flow, Still
from sae.watching import Watch

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["Course", "Run", "Unit", "advance"]

_log = logging.getLogger("sae.training")
_COLUMNS = ("step", "loss", "fvu", "l0", "dead", "lr")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run(Shown):
    """A finished training run."""

    coder: Coder
    """In the coordinates of the data."""
    config: TrainConfig
    history: Mapping[str, np.ndarray]
    """step, loss, fvu, l0, dead, lr: one entry every ``log_every`` steps; of the training batch, so optimistic."""
    out: Path | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    """The warnings of this run, each with a remedy."""

    def _facts(self) -> dict[str, Any]:
        last = {name: float(values[-1]) for name, values in self.history.items() if len(values)}
        said = {"coder": f"{self.coder.kind} {self.coder.d_in} -> {self.coder.d_sae}, k = {self.coder.k}"}
        said |= {f"last {name}": value for name, value in last.items()}
        return said | {"folder": self.out, "advice": list(self.advice), "provenance": digest(self.provenance)}

    def __repr__(self) -> str:
        last = {name: float(values[-1]) for name, values in self.history.items() if len(values)}
        shown = ", ".join(
            f"{name} {last[name]:.4g}" for name in ("step", "fvu", "l0", "dead") if name in last
        )
        return f"Run({self.coder.kind} {self.coder.d_in} -> {self.coder.d_sae}, k = {self.coder.k}; {shown})"

    def to_frame(self) -> pd.DataFrame:
        """The history as a table."""
        import pandas as pd

        return pd.DataFrame(dict(self.history))

    def plot(self) -> go.Figure:
        """FVU and dead latents over the steps."""
        from sae import plots

        return plots.training_chart(self.history["step"], self.history["fvu"], self.history["dead"])


@dataclass(slots=True, kw_only=True, eq=False)
class Course:
    """One learner with its folder and what it has told."""

    learner: Learner
    folder: Path | None
    identity: dict[str, Any]
    columns: slice = field(default_factory=lambda: slice(None))
    """Which of the rows' coordinates are its own: of several sites side by side, one."""
    place: str = ""
    """Where its rows come from, for provenance."""
    history: list[dict[str, float]] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    watch: Watch | None = None

    def tell(self, numbers: dict[str, float], rate: float) -> None:
        """Keep a line of metrics, and warn."""
        learner = self.learner
        dead = learner.n_dead / learner.config.d_sae
        line = {"step": learner.step, **numbers, "dead": dead, "lr": rate}
        self.history.append(line)
        if self.folder is not None and learner.peers.rank == 0:
            JsonLines(self.folder / "metrics.jsonl", sync=False).append(line)
        if self.watch is not None and learner.peers.rank == 0:
            self.watch(line)
        for name, text in advice(line, replace(learner.config, dead_after=learner.window)).items():
            if name not in self.said:
                self.said[name] = text
                _log.warning("%s", text)

    def keep(self, rows: Still | Flow) -> None:
        """Write a checkpoint."""
        if self.folder is not None:
            checkpoints.write(self.folder, self.learner, rows, self.identity)

    def own(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Its part of rows and targets."""
        mine = x[:, self.columns]
        return mine, mine if y is x else y[:, self.columns]

    def finished(self, n: int | None, seconds: float) -> Run:
        """The coder saved, and what happened."""
        config, coder = self.learner.config, self.learner.finished()
        data = {"place": self.place, "rows": n, "sha256": self.identity["data"]}
        record = provenance(seed=config.seed, config=config.as_dict(), data=data)
        if self.folder is not None and self.learner.peers.rank == 0:
            save(coder, self.folder / "coder", provenance=record)
        columns = {name: np.array([line[name] for line in self.history]) for name in _COLUMNS}
        return Run(
            coder=coder,
            config=config,
            history=columns,
            out=self.folder,
            provenance=record | {"seconds": seconds},
            advice=tuple(self.said.values()),
        )


class Unit:
    """Courses that step together; most often one."""

    def __init__(self, courses: Sequence[Course], through: Through | None) -> None:
        self.courses, self.through = courses, through
        self.stack = Stack([c.learner for c in courses]) if len(courses) > 1 else None

    def advance(self, scaled: list[tuple[Tensor, Tensor]]) -> list[tuple[dict[str, float], float]]:
        """What happened in a step on each one's scaled rows and targets, and the rate."""
        if self.stack is not None:
            return self.stack.advance([x for x, _ in scaled], [y for _, y in scaled])
        learner = self.courses[0].learner
        rate = learner.config.rate(learner.step, learner.coder.d_out)
        own = self.through if learner.config.end_to_end else None
        return [(learner.advance(*scaled[0], rate, own, scaled=True), rate)]


def advance(units: Sequence[Unit], x: Tensor, y: Tensor, step: int, *, due: bool) -> None:
    """Everyone's ``step``; rows are scaled once for all that read the same coordinates."""
    ready: dict[tuple[int, int | None], tuple[Tensor, Tensor]] = {}
    for unit in units:
        if unit.courses[0].learner.step != step:
            continue
        scaled = []
        for course in unit.courses:
            key = id(course.learner.scales), course.columns.start
            if key not in ready:
                ready[key] = course.learner.scales.scaled(*course.own(x, y))
            scaled.append(ready[key])
        for course, (numbers, rate) in zip(unit.courses, unit.advance(scaled), strict=True):
            _heard(course, numbers, rate, x, due=due)


def _heard(course: Course, numbers: dict[str, float], rate: float, x: Tensor, *, due: bool) -> None:
    learner = course.learner
    if not np.isfinite(numbers["loss"]):
        bad = int((~torch.isfinite(x).all(1)).sum())
        raise CheckError(
            f"the loss is {numbers['loss']} at step {learner.step - 1}; {bad} of {len(x)} rows of this batch hold "
            f"NaN or infinity; look for them in the data, or lower lr = {learner.config.peak(learner.coder.d_out):.3g}"
        )
    if due:
        course.tell(numbers, rate)
