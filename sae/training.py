"""Training: one loop for every kind and wiring, resumable bit for bit, with metrics on disk from the first step.

Read next: ``courses.py`` (who learns, and what is kept of it), ``supply.py`` (where rows come from).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch

from interp.errors import InputError
from interp.runs.checkpoints import prepared
from interp.runs.progress import progress as progress_bar
from interp.runs.progress import stop_on_interrupt
from sae import checkpoints
from sae.config import TrainConfig
from sae.courses import Course, Run, Unit, advance
from sae.downstream import Through
from sae.learner import Learner
from sae.middle import scales_of
from sae.parallel import Alone, launched
from sae.sharding import joined
from sae.stacking import stacked
from sae.supply import Flow, Still, columns_of, supply
from sae.watching import Watch

__all__ = ["Run", "train"]


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
    device: Any = ...,
    split: str = ...,
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
    device: Any = ...,
    split: str = ...,
) -> tuple[Run, ...]: ...
@overload
def train(
    data: Any,
    config: Mapping[Any, TrainConfig],
    out: str | Path | None = ...,
    *,
    resume: bool = ...,
    site: Any = ...,
    target: Any = ...,
    through: Through | None = ...,
    watch: Watch | None = ...,
    progress: bool | None = ...,
    together: bool = ...,
    device: Any = ...,
    split: str = ...,
) -> dict[Any, Run]: ...
def train(
    data: Any,
    config: TrainConfig | Sequence[TrainConfig] | Mapping[Any, TrainConfig],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    site: Any = None,
    target: Any = None,
    through: Through | None = None,
    watch: Watch | None = None,
    progress: bool | None = None,
    together: bool = True,
    device: Any = None,
    split: str = "rows",
) -> Run | tuple[Run, ...] | dict[Any, Run]:
    """Train a sparse autoencoder, a transcoder or a crosscoder; or several in one pass over the data.

    Parameters
    ----------
    data
        Rows [sample, d] (or [sample, site, d] for a crosscoder); a pair (rows, targets) for a transcoder; an
        :class:`interp.ActivationStore`; an iterable of such chunks (a DataLoader, :func:`sae.model_rows`).
    config
        What to train; never changed. Several of the same steps and batch size share each batch, whose order is that
        of the first one's seed; their dictionaries may differ in everything else. A mapping from sites (names in a
        store or of ``model_rows``, numbers of a tensor [sample, site, d]) trains a dictionary of each site on the same
        rows.
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
        is the same: to the bit where d_in x d_sae and rows x d_in are multiples of 16, else up to rounding.
    device
        Where to train; None: where the rows are (those of a store are on the CPU).
    split
        What several processes share: the ``"rows"`` of a batch, or the ``"latents"`` of a dictionary too wide for one
        of them (``sharding.py``).

    Returns
    -------
    Run
        ``.coder`` is in the coordinates of the data. A tuple of them where several were asked for, and a dictionary
        by site of a mapping.

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
    sites = tuple(config) if isinstance(config, Mapping) else None
    configs = (
        (config,)
        if isinstance(config, TrainConfig)
        else tuple(config.values() if isinstance(config, Mapping) else config)
    )
    _agree(configs)
    if (through is None) != all(c.end_to_end == 0 for c in configs):
        raise InputError(
            "the end-to-end loss needs both a weight, end_to_end > 0, and through=sae.Through(model, tokens, site)"
        )
    if out is None and (resume or any(c.checkpoint_every for c in configs)):
        raise InputError("resume and checkpoint_every need a folder: say out=")
    began = time.perf_counter()
    if sites is not None:
        site = _named(sites, configs, data, site=site, target=target, through=through)
    rows = supply(data, configs[0].batch_size, configs[0].seed, site=site, target=target)
    columns = [slice(None)] * len(configs) if sites is None else columns_of(data, sites)
    single = isinstance(config, TrainConfig)
    rows.device = None if device is None else torch.device(device)
    with launched():
        peers = joined(split)
        courses = _courses(rows, configs, columns, out, peers, resume=resume, single=single, through=through)
        for number, course in enumerate(courses):
            course.watch = watch if single or watch is None else _numbered(watch, number)
            if sites is not None:
                course.place = str(sites[number])
        _loop(courses, rows, shown=progress, through=through, together=together)
        runs = tuple(c.finished(rows.n, time.perf_counter() - began) for c in courses)
    return runs[0] if single else runs if sites is None else dict(zip(sites, runs, strict=True))


def _named(
    sites: tuple[Any, ...], configs: tuple[TrainConfig, ...], data: Any, **other: Any
) -> list[str] | None:
    """What to ask a store for, so that several sites lie side by side."""
    said = [name for name, value in other.items() if value is not None]
    if said:
        raise InputError(
            f"configurations by site say what is read; {', '.join(said)} cannot be said beside them"
        )
    if any(c.wiring != "sae" for c in configs):
        raise InputError(
            "configurations by site are of autoencoders, wiring='sae'; train the others one by one"
        )
    return [str(site) for site in sites] if hasattr(data, "n_rows") else None


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


def _courses(  # noqa: PLR0913 - the run's parts
    rows: Still | Flow,
    configs: tuple[TrainConfig, ...],
    columns: Sequence[slice],
    out: Any,
    peers: Alone,
    *,
    resume: bool,
    single: bool,
    through: Through | None,
) -> list[Course]:
    scales = _scales(rows, configs[0])
    courses = []
    for number, (config, mine) in enumerate(zip(configs, columns, strict=True)):
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
        if mine != slice(None):
            identity["data"] += f"+{mine.start}:{mine.stop}"
        course = Course(
            learner=Learner.start(scales(mine), config, peers),
            folder=folder,
            identity=identity,
            columns=mine,
            place=rows.place,
        )
        if folder is not None and resume:
            course.history = checkpoints.restore(folder, course.learner, rows, identity)
            if course.learner.scales.same_as(scales(mine)):
                course.learner.scales = scales(mine)  # one object, so that rows are scaled once for all
        courses.append(course)
    if isinstance(rows, Flow) and len({c.learner.step for c in courses}) > 1:
        raise InputError(
            "these runs stopped at different steps, and a flow of rows cannot be replayed for one of them"
        )
    return courses


def _scales(rows: Still | Flow, first: TrainConfig) -> Callable[[slice], Any]:
    """Where some coordinates of the rows lie; the same object whenever it is asked for the same ones."""
    x, y = rows.sample()
    known: dict[tuple[Any, Any], Any] = {}

    def scales(mine: slice) -> Any:
        key = mine.start, mine.stop
        if key not in known:
            read = x[:, mine]
            written = read if y is x else y[:, mine]
            known[key] = scales_of(
                read, written, n_sites=first.n_sites, center=first.center, place=rows.place
            )
        return known[key]

    return scales


def _fits(config: TrainConfig, rows: Still | Flow) -> None:
    if config.wiring in ("sae", "crosscoder") and rows.d_in != rows.d_out:
        raise InputError(
            f"wiring {config.wiring!r} writes what it reads, but the targets are {rows.d_out} wide and the rows "
            f"{rows.d_in}: say wiring='transcoder'"
        )


def _loop(
    courses: list[Course], rows: Still | Flow, *, shown: bool | None, through: Through | None, together: bool
) -> None:
    config, peers = courses[0].learner.config, courses[0].learner.peers
    step = min(c.learner.step for c in courses)
    shown = False if peers.rank else shown
    bar = progress_bar(total=config.steps, initial=step, desc="sae", unit="step", enabled=shown, pace=False)
    began, first = time.perf_counter(), step
    groups = stacked([c.learner for c in courses]) if together else [[n] for n in range(len(courses))]
    units = [Unit([courses[n] for n in group], through) for group in groups]
    with bar, stop_on_interrupt() as stop:
        while step < config.steps:
            x, y = rows.batch(step, peers.share)
            due = (step + 1) % config.log_every == 0 or step + 1 == config.steps
            advance(units, x, y, step, due=due)
            step += 1
            if due:
                speed = (step - first) * config.batch_size / (time.perf_counter() - began)
                bar.set_postfix_str(_told(courses, speed))
            bar.update(1)
            stopped = peers.counted(int(stop.requested)) > 0 if peers.size > 1 else stop.requested
            late = config.checkpoint_every and step % config.checkpoint_every == 0
            if late or step == config.steps or stopped:
                for course in courses:
                    course.keep(rows)
            folder = courses[0].folder
            stop.check(
                f"stopped after step {step}"
                + ("" if folder is None else f"; go on with resume=True in {folder}")
            )


def _told(courses: list[Course], speed: float) -> str:
    last = courses[-1].history[-1]
    pace = f"{speed / 1000:.3g}k" if speed >= 1000 else f"{speed:.0f}"
    return (
        f"loss {last['loss']:.3g} fvu {last['fvu']:.3f} l0 {last['l0']:.3g} dead {100 * last['dead']:.0f}% "
        f"{pace} rows/s"
    )
