"""Training: one loop for every kind and wiring, resumable bit for bit, with metrics on disk from the first step.

Read next: ``learner.py`` (one step), ``supply.py`` (where rows come from), ``checkpoints.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from interp.errors import CheckError, InputError
from interp.runs.checkpoints import prepared
from interp.runs.files import JsonLines
from interp.runs.progress import progress as progress_bar
from interp.runs.progress import stop_on_interrupt
from interp.runs.provenance import provenance
from sae import checkpoints
from sae.advice import advice
from sae.coder import Coder
from sae.config import TrainConfig
from sae.downstream import Through
from sae.learner import Learner
from sae.middle import scales_of
from sae.parallel import joined
from sae.stacking import Stack, stacked
from sae.storage import save
from sae.supply import Flow, Still, supply
from sae.watching import Watch

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["Run", "train"]

_log = logging.getLogger(__name__)
_COLUMNS = ("step", "loss", "fvu", "l0", "dead", "lr")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
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
class _Course:
    """One learner with its folder and what it has told."""

    learner: Learner
    folder: Path | None
    identity: dict[str, Any]
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
        for name, text in advice(line, learner.config).items():
            if name not in self.said:
                self.said[name] = text
                _log.warning("%s", text)

    def keep(self, rows: Still | Flow) -> None:
        """Write a checkpoint."""
        if self.folder is not None and self.learner.peers.rank == 0:
            checkpoints.write(self.folder, self.learner, rows, self.identity)

    def finished(self, place: str, n: int | None, seconds: float) -> Run:
        """The coder saved, and what happened."""
        config, coder = self.learner.config, self.learner.finished()
        data = {"place": place, "rows": n, "sha256": self.identity["data"]}
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


@overload
def train(
    data: Any,
    config: TrainConfig,
    out: str | Path | None = ...,
    *,
    resume: bool = ...,
    site: Any = ...,
    target: Any = ...,
    through: Through | None = ...,
    watch: Watch | None = ...,
    progress: bool | None = ...,
    together: bool = ...,
) -> Run: ...
@overload
def train(
    data: Any,
    config: Sequence[TrainConfig],
    out: str | Path | None = ...,
    *,
    resume: bool = ...,
    site: Any = ...,
    target: Any = ...,
    through: Through | None = ...,
    watch: Watch | None = ...,
    progress: bool | None = ...,
    together: bool = ...,
) -> tuple[Run, ...]: ...
def train(
    data: Any,
    config: TrainConfig | Sequence[TrainConfig],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    site: Any = None,
    target: Any = None,
    through: Through | None = None,
    watch: Watch | None = None,
    progress: bool | None = None,
    together: bool = True,
) -> Run | tuple[Run, ...]:
    """Train a sparse autoencoder, a transcoder or a crosscoder; or several in one pass over the data.

    Parameters
    ----------
    data
        Rows [sample, d] (or [sample, site, d] for a crosscoder); a pair (rows, targets) for a transcoder; an
        :class:`interp.ActivationStore`; an iterable of such chunks (a DataLoader, :func:`sae.model_rows`).
    config
        What to train; never changed. Several of the same steps, batch size and seed share each batch: their
        dictionaries may differ in everything else.
    out
        A folder for metrics, checkpoints and the coder (of several: a folder for each in it). None keeps everything
        in memory.
    resume
        Go on from the newest sound checkpoint in ``out``; start anew if there is none.
    site, target
        Which site of a store is read, and which is written; several sites lie side by side.
    through
        Texts and a model for the end-to-end loss of configurations with ``end_to_end`` > 0.
    watch
        Called with each line of metrics: ``sae.to_tensorboard(folder)``, ``sae.to_wandb(project)`` or a function of
        yours. Of several dictionaries the names get the number of the dictionary.
    progress
        None: a bar on a terminal only.
    together
        Whether small dictionaries of one shape take their steps in the same calls (``stacking.py``); what they learn
        is the same to the bit.

    Returns
    -------
    Run
        ``.coder`` is in the coordinates of the data. A tuple of them where several were asked for.

    Raises
    ------
    InputError
        Data or configuration cannot be used, or ``out`` holds a run and ``resume`` is False.
    StoreError
        A checkpoint of another configuration or other data, or a folder that cannot be written.
    CheckError
        The loss is no longer finite; the message says at which step and what to try.
    KeyboardInterrupt
        On Ctrl-C, after a checkpoint was written (with ``out``).

    Notes
    -----
    A step of the TopK family costs one dense product of size batch x d x d_sae and O(batch x k x d); of the others,
    about six. n steps are the same numbers as k steps, a kill, a resume and n - k steps, bit for bit, on the CPU with
    the same number of threads. Under torchrun or accelerate each process takes its share of every batch.

    References
    ----------
    Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3.
    """
    configs = (config,) if isinstance(config, TrainConfig) else tuple(config)
    _agree(configs)
    if (through is None) != all(c.end_to_end == 0 for c in configs):
        raise InputError(
            "the end-to-end loss needs both a weight, end_to_end > 0, and through=sae.Through(model, tokens, site)"
        )
    if out is None and (resume or any(c.checkpoint_every for c in configs)):
        raise InputError("resume and checkpoint_every need a folder: say out=")
    began = time.perf_counter()
    rows = supply(data, configs[0].batch_size, configs[0].seed, site=site, target=target)
    single = isinstance(config, TrainConfig)
    courses = _courses(rows, configs, out, resume=resume, single=single, through=through)
    for number, course in enumerate(courses):
        course.watch = watch if single or watch is None else _numbered(watch, number)
    _loop(courses, rows, shown=progress, through=through, together=together)
    runs = tuple(c.finished(rows.place, rows.n, time.perf_counter() - began) for c in courses)
    return runs[0] if single else runs


def _numbered(watch: Watch, number: int) -> Watch:
    """``watch``, told which of several dictionaries a line is about."""
    return lambda line: watch(
        {name if name == "step" else f"{number:02d}/{name}": value for name, value in line.items()}
    )


def _agree(configs: tuple[TrainConfig, ...]) -> None:
    shared = ("steps", "batch_size", "log_every", "checkpoint_every", "n_sites", "center")
    if not configs:
        raise InputError("there is no configuration to train")
    for name in shared:
        values = {getattr(c, name) for c in configs}
        if len(values) > 1:
            raise InputError(
                f"coders trained in one pass share {', '.join(shared)}; {name} has {sorted(values)}"
            )


def _courses(
    rows: Still | Flow,
    configs: tuple[TrainConfig, ...],
    out: Any,
    *,
    resume: bool,
    single: bool,
    through: Through | None,
) -> list[_Course]:
    peers = joined()
    x, y = rows.sample()
    first = configs[0]
    scales = scales_of(x, y, n_sites=first.n_sites, center=first.center, place=rows.place)
    courses = []
    for number, config in enumerate(configs):
        _fits(config, rows)
        folder = None if out is None else Path(out) if single else Path(out) / f"{number:02d}"
        if folder is not None and peers.rank == 0:
            if not single:
                folder.parent.mkdir(parents=True, exist_ok=True)
            prepared(folder, resume=resume)
        peers.wait()
        identity = {"config": config.as_dict(), "data": rows.fingerprint()}
        if through is not None:
            identity["data"] += "+" + through.fingerprint()
        course = _Course(learner=Learner.start(scales, config, peers), folder=folder, identity=identity)
        if folder is not None and resume:
            course.history = checkpoints.restore(folder, course.learner, rows, identity)
        courses.append(course)
    if isinstance(rows, Flow) and len({c.learner.step for c in courses}) > 1:
        raise InputError(
            "these runs stopped at different steps, and a flow of rows cannot be replayed for one of them"
        )
    return courses


def _fits(config: TrainConfig, rows: Still | Flow) -> None:
    if config.wiring in ("sae", "crosscoder") and rows.d_in != rows.d_out:
        raise InputError(
            f"wiring {config.wiring!r} writes what it reads, but the targets are {rows.d_out} wide and the rows "
            f"{rows.d_in}: say wiring='transcoder'"
        )


def _loop(
    courses: list[_Course], rows: Still | Flow, *, shown: bool | None, through: Through | None, together: bool
) -> None:
    config, peers = courses[0].learner.config, courses[0].learner.peers
    step = min(c.learner.step for c in courses)
    shown = False if peers.rank else shown
    bar = progress_bar(total=config.steps, initial=step, desc="sae", unit="step", enabled=shown, pace=False)
    began, first = time.perf_counter(), step
    groups = stacked([c.learner for c in courses]) if together else [[n] for n in range(len(courses))]
    units = [_Unit([courses[n] for n in group], through) for group in groups]
    with bar, stop_on_interrupt() as stop:
        while step < config.steps:
            x, y = rows.batch(step, peers.share)
            due = (step + 1) % config.log_every == 0 or step + 1 == config.steps
            _advance(units, x, y, step, due=due)
            step += 1
            if due:
                speed = (step - first) * config.batch_size / (time.perf_counter() - began)
                bar.set_postfix(_told(courses, speed))
            bar.update(1)
            stopped = peers.total(int(stop.requested)) > 0 if peers.size > 1 else stop.requested
            late = config.checkpoint_every and step % config.checkpoint_every == 0
            if late or step == config.steps or stopped:
                for course in courses:
                    course.keep(rows)
            folder = courses[0].folder
            stop.check(
                f"stopped after step {step}"
                + ("" if folder is None else f"; go on with resume=True in {folder}")
            )


class _Unit:
    """Courses that step together; most often one."""

    def __init__(self, courses: list[_Course], through: Through | None) -> None:
        self.courses, self.through = courses, through
        self.stack = Stack([c.learner for c in courses]) if len(courses) > 1 else None

    def advance(self, x: Tensor, y: Tensor) -> list[tuple[dict[str, float], float]]:
        """What happened in a step on scaled rows, and the rate, for each."""
        if self.stack is not None:
            return self.stack.advance(x, y)
        learner = self.courses[0].learner
        rate = learner.config.rate(learner.step, learner.coder.d_out)
        own = self.through if learner.config.end_to_end else None
        return [(learner.advance(x, y, rate, own, scaled=True), rate)]


def _advance(units: list[_Unit], x: Tensor, y: Tensor, step: int, *, due: bool) -> None:
    scaled, scales = (x, y), None
    for unit in units:
        learner = unit.courses[0].learner
        if learner.step != step:
            continue
        if scales is not learner.scales:
            scales, scaled = learner.scales, learner.scales.scaled(x, y)
        for course, (numbers, rate) in zip(unit.courses, unit.advance(*scaled), strict=True):
            _heard(course, numbers, rate, x, due=due)


def _heard(course: _Course, numbers: dict[str, float], rate: float, x: Tensor, *, due: bool) -> None:
    learner = course.learner
    if not np.isfinite(numbers["loss"]):
        bad = int((~torch.isfinite(x).all(1)).sum())
        raise CheckError(
            f"the loss is {numbers['loss']} at step {learner.step - 1}; {bad} of {len(x)} rows of this batch hold "
            f"NaN or infinity; look for them in the data, or lower lr = {learner.config.peak(learner.coder.d_out):.3g}"
        )
    if due:
        course.tell(numbers, rate)


def _told(courses: list[_Course], speed: float) -> dict[str, str]:
    last = courses[-1].history[-1]
    return {
        "loss": f"{last['loss']:.3g}",
        "fvu": f"{last['fvu']:.3f}",
        "l0": f"{last['l0']:.1f}",
        "dead": f"{100 * last['dead']:.0f}%",
        "rows/s": f"{speed / 1000:.3g}k" if speed >= 1000 else f"{speed:.0f}",
    }
