"""The main job: load, capture, visit every station, report. ``interp analyze`` is a thin shell around this.

The job in order: the model; what it is studied on (``material.py``); the activations of its layers, harvested once
into a store; one station after the other (``stations.py``); after each, the page so far (``report/``). What happens
to one station never stops the next, and every state that can be left behind is a usable one.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from interp.errors import InterpError
from interp.report.content import outcome, report
from interp.report.page import write
from interp.runs.files import ensure_folder
from interp.runs.progress import EventLog
from interp.runs.provenance import provenance
from interp.study.effort import STANDARD, Effort
from interp.study.findings import Bearings
from interp.study.job import Job, facts, performance, prepare, tokenizer_hash
from interp.study.joining import joined
from interp.study.keeping import file_name, keep, kept
from interp.study.outcomes import Analysis
from interp.study.pacing import pace, stated
from interp.study.stations import Station, Study

__all__ = ["Analysis", "analyze", "run"]

logger = logging.getLogger(__name__)


def analyze(  # noqa: PLR0913 - the front door: what is studied, on what, how deeply, and where to
    model: Any,
    texts: Any = None,
    *,
    out: str | Path | None = None,
    tokens: Any = None,
    inputs: Any = None,
    labels: Mapping[str, Any] | None = None,
    seed: int = 0,
    stations: Sequence[str] | None = None,
    max_tokens: int | None = None,
    seq_len: int | None = None,
    preset: str | Effort = STANDARD,
    resume: bool = False,
    progress: bool | None = None,
    command: str | Sequence[str] | None = None,
) -> Analysis:
    """Study a model from end to end and write a report: ``report.html`` and ``report.json`` in the folder ``out``.

    Parameters
    ----------
    model
        A model of the toolkit, or anything ``interp.load`` takes.
    texts, tokens
        What to study the model on: a file or an iterable of texts, or token ids. Without either, an embedded
        network gets its own inputs, and any other model random token ids, which the report says loudly.
    out
        The folder to write into; it is made if missing. None: a new temporary folder (``.folder`` says where;
        :meth:`Analysis.save` copies the report out of it).
    inputs
        [sample, feature ...] for a network that reads numbers instead of tokens: a row is what a text is to the others.
    labels
        Name -> whole numbers for the probes: [batch, pos] beside ``tokens``, [sample] beside ``inputs``; negative where
        there is none.
    seed
        For everything that is drawn.
    stations
        Names of the stations to visit; all by default.
    max_tokens, seq_len
        How many tokens to study, and how many a window holds (by default 512 or the model's context).
    preset
        ``"quick"``, ``"standard"``, ``"deep"`` (every station's full form), or an :class:`interp.study.effort.Effort`.
    resume
        Take over what an earlier run into ``out`` finished, if model, tokens, seed and versions are the same.
    progress
        Show progress bars; None shows them on a terminal only.
    command
        The command line, for the record.

    Returns
    -------
    Analysis
        Where the report is, and how each station ended. A station that fails or does not apply is a section with
        its reason. On Ctrl-C the report of what is done so far is written and ``interrupted`` is True.

    Raises
    ------
    InputError, ModelError, StoreError
        Nothing could be begun: the folder cannot be written, the model not loaded, the texts not read.

    Notes
    -----
    Cost: one forward pass over all tokens, and what the stations say (:func:`interp.study.planning.plan`).
    """
    if out is None:
        out = tempfile.mkdtemp(prefix="interp-study-")
    ensure_folder(out)  # before the minutes of work, not after
    job = prepare(
        model,
        texts=texts,
        tokens=tokens,
        inputs=inputs,
        labels=labels,
        seed=seed,
        stations=stations,
        max_tokens=max_tokens,
        seq_len=seq_len,
        preset=preset,
    )
    return run(job, out, resume=resume, progress=progress, command=command)


def run(
    job: Job,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
    command: str | Sequence[str] | None = None,
) -> Analysis:
    """Run a job that :func:`prepare` made; see :func:`analyze`."""
    return _Run(job, ensure_folder(out), resume=resume, progress=progress, command=command).go()


class _Run:
    """One run of a job in its folder."""

    def __init__(self, job: Job, folder: Path, *, resume: bool, progress: bool | None, command: Any) -> None:
        self.job, self.folder, self.resume, self.command = job, folder, resume, command
        self.started = time.monotonic()
        self.progress = progress
        self.log = EventLog(folder / "log.jsonl")
        self.key = job.key()
        self.kept = ensure_folder(folder / "sections")
        self.sections = {
            one.name: outcome(one.name, one.title, status="waiting", reason="the job has not come to it yet")
            for one in job.stations
        }
        self.performance = performance(job)
        self.pace = pace(job.model, job.material.tokens)
        self.bearings: dict[str, tuple[Bearings, ...]] = {}
        self.store: Any = None

    def go(self) -> Analysis:
        job = self.job
        self.log.write("start", model=job.model.name, source=job.material.source, seed=job.seed, key=self.key)
        for note in job.material.notes:
            logger.log(logging.INFO if job.material.natural else logging.WARNING, "%s", note)
        interrupted = False
        station = None
        try:
            self.store = self._harvest()
            study = job.study(self.folder, store=self.store, progress=self._bars())
            for station in job.stations:
                self.sections[station.name] = self._visit(station, study)
                self._write()
        except KeyboardInterrupt:
            interrupted = True
            self._stopped(station)
        html, twin = self._write()
        done = {name: section["status"] for name, section in self.sections.items()}
        self.log.write("end", sections=done, wall_seconds=round(time.monotonic() - self.started, 2))
        return Analysis(html=html, json=twin, sections=tuple(self.sections.values()), interrupted=interrupted)

    def _bars(self) -> bool:
        return sys.stderr.isatty() if self.progress is None else self.progress

    def _harvest(self) -> Any:
        from interp.stores.harvesting import harvest

        if not self.job.sites:
            return None
        logger.info("capturing %d sites of %s", len(self.job.sites), self.job.model.name)
        tokens = self.job.material.tokens
        place = self.folder / "acts" / self.job.acts_hash()[:16]
        if not self.resume:
            shutil.rmtree(place, ignore_errors=True)  # begun anew: also what an older version left there
        began = time.monotonic()
        store = harvest(
            self.job.model,
            tokens,
            self.job.sites,
            place,
            context=max(2, tokens.ids.shape[1]),
            progress=self._bars(),
        )
        self.log.write("harvested", rows=store.n_rows, wall_seconds=round(time.monotonic() - began, 2))
        return store

    def _visit(self, station: Station, study: Study) -> dict[str, Any]:
        name, title = station.name, station.title
        path = self.kept / f"{file_name(name)}.json"
        earlier = kept(path, self.key) if self.resume else None
        if earlier is not None:
            found, self.bearings[name] = earlier
            logger.info("%s: taken over from the earlier run", title)
            self.log.write("resumed", station=name)
            return found
        study = replace(study, out=ensure_folder(self.folder / "stations" / path.stem))
        cost, why_not = stated(station, study)
        expected = None if why_not else round(self.pace.seconds(cost), 2)
        logger.info("%s: %s", title, why_not or f"about {_time(expected)}")
        self.log.write("station", station=name, expected_seconds=expected)
        began = time.monotonic()
        try:
            why_not = station.applies(study)
            if why_not is None:
                section = station.run(study)
                seconds = round(time.monotonic() - began, 2)
                found = outcome(
                    name, title, section=section, seconds=seconds, expected=expected, folder=self.folder
                )
                self.bearings[name] = section.bearings
                logger.info("%s: %s", title, _time(seconds))
            else:
                found = outcome(name, title, status="skipped", reason=why_not)
        except Exception as error:  # noqa: BLE001  (whatever a station raises, the others go on and the page says so)
            reason = str(error) if isinstance(error, InterpError) else f"{type(error).__name__}: {error}"
            logger.error("%s failed: %s", title, reason)
            self.log.write("failed", station=name, reason=reason, traceback=traceback.format_exc())
            return outcome(name, title, status="failed", reason=reason or type(error).__name__)
        self.log.write("finished", station=name, status=found["status"], wall_seconds=found["seconds"])
        keep(path, self.key, found, self.bearings.get(name, ()))
        return found

    def _all_bearings(self) -> list[Bearings]:
        return [one for name in self.sections for one in self.bearings.get(name, ())]

    def _stopped(self, station: Station | None) -> None:
        names = list(self.sections)
        reached = 0 if station is None else names.index(station.name)
        self.log.write("interrupted", station=None if station is None else station.name)
        for name in names[reached:]:
            section = self.sections[name]
            if section["status"] == "waiting":
                status = "interrupted" if station is not None and name == station.name else "waiting"
                where = "here" if status == "interrupted" else "before it came to this"
                again = "the same command goes on from there (in Python: resume=True)"
                reason = f"the job was interrupted {where}; {again}"
                self.sections[name] = outcome(name, section["title"], status=status, reason=reason)

    def _write(self) -> tuple[Path, Path]:
        job = self.job
        model, material = job.model, job.material
        unfinished = [s["title"] for s in self.sections.values() if s["status"] in ("waiting", "interrupted")]
        warnings = [] if material.natural else list(material.notes)
        if unfinished:
            warnings.insert(0, f"This report is not complete: {', '.join(unfinished)} still to come.")
        record = {"command": self.command, "source": material.source, "texts_sha256": material.sha256}
        record |= provenance(
            model,
            seed=job.seed,
            tokenizer_sha256=tokenizer_hash(model),
            config_sha256=self.key,
            sites=[str(site) for site in job.sites],
            wall_seconds=round(time.monotonic() - self.started, 1),
            preset=asdict(job.effort),
            tokens_sha256=job.tokens_hash(),
            labels_sha256=job.labels_hash(),
            acts_sha256=job.acts_hash(),
        )
        first = ("command", "source", "texts_sha256", "seed", "wall_seconds", "model")
        page = report(
            model.name,
            subtitle=f"Studied on {material.source}.",
            facts=[*facts(job), *self.performance],
            warnings=warnings,
            notes=material.notes if material.natural else (),
            sections=list(self.sections.values()),
            index=joined(
                list(self.sections.values()), self._all_bearings(), job.sites, store=self.store, seed=job.seed
            ),
            provenance={name: record[name] for name in (*first, *(n for n in record if n not in first))},
        )
        return write(page, self.folder)


def _time(seconds: float | None) -> str:
    """For a line that is read once: two digits will do."""
    if seconds is None:
        return "unknown time"
    return f"{seconds:.2g} s" if seconds < 90 else f"{seconds / 60:.1f} min"
