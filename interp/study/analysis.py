"""The main job: load, capture, visit every station, report. ``interp analyze`` is a thin shell around this.

The job in order: the model; what it is studied on (``material.py``); the activations of its layers, harvested once
into a store; one station after the other (``stations.py``); after each, the page so far (``report/``). What happens
to one station never stops the next, and every state that can be left behind is a usable one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.errors import InterpError, StoreError
from interp.report.content import outcome, report
from interp.report.page import write
from interp.runs.files import ensure_folder, read_json, write_json_atomic
from interp.runs.progress import EventLog
from interp.runs.provenance import provenance
from interp.study.job import MAX_TOKENS, Job, facts, performance, prepare, tokenizer_hash
from interp.study.stations import Station, Study

__all__ = ["Analysis", "analyze", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """What the main job leaves behind."""

    html: Path
    json: Path
    sections: tuple[Mapping[str, Any], ...]
    interrupted: bool = False

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the stations that failed."""
        return tuple(section["name"] for section in self.sections if section["status"] == "failed")

    def __repr__(self) -> str:
        states = ", ".join(f"{section['name']} {section['status']}" for section in self.sections)
        return f"Analysis({str(self.html)!r}: {states})"


def analyze(
    model: Any,
    *,
    out: str | Path,
    texts: Any = None,
    tokens: Any = None,
    seed: int = 0,
    stations: Sequence[str] | None = None,
    max_tokens: int = MAX_TOKENS,
    seq_len: int | None = None,
    resume: bool = False,
    progress: bool | None = None,
    command: str | Sequence[str] | None = None,
) -> Analysis:
    """Study a model from end to end and write a report: ``report.html`` and ``report.json`` in the folder ``out``.

    Parameters
    ----------
    model
        A model of the toolkit, or anything ``interp.load`` takes.
    out
        The folder to write into; it is made if missing.
    texts, tokens
        What to study the model on: a file or an iterable of texts, or token ids. Without either, an embedded
        network gets its own inputs, and any other model random token ids, which the report says loudly.
    seed
        For everything that is drawn.
    stations
        Names of the stations to visit; all by default.
    max_tokens, seq_len
        How many tokens to study, and how many a window holds (by default 512 or the model's context).
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
    ensure_folder(out)  # before the minutes of work, not after
    job = prepare(
        model,
        texts=texts,
        tokens=tokens,
        seed=seed,
        stations=stations,
        max_tokens=max_tokens,
        seq_len=seq_len,
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

    def go(self) -> Analysis:
        job = self.job
        self.log.write("start", model=job.model.name, source=job.material.source, seed=job.seed, key=self.key)
        for note in job.material.notes:
            logger.log(logging.INFO if job.material.natural else logging.WARNING, "%s", note)
        interrupted = False
        station = None
        try:
            store = self._harvest()
            study = job.study(self.folder, store=store, progress=self._bars())
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
        place = self.folder / "acts" / self.job.tokens_hash()[:16]
        if not self.resume:
            shutil.rmtree(place, ignore_errors=True)  # begun anew: also what an older version left there
        began = time.monotonic()
        store = harvest(
            self.job.model, tokens, self.job.sites, place, context=tokens.ids.shape[1], progress=self._bars()
        )
        self.log.write("harvested", rows=store.n_rows, wall_seconds=round(time.monotonic() - began, 2))
        return store

    def _visit(self, station: Station, study: Study) -> dict[str, Any]:
        path = self.kept / f"{_file_name(station.name)}.json"
        found = self._kept_section(path) if self.resume else None
        if found is not None:
            logger.info("%s: taken over from the earlier run", station.title)
            self.log.write("resumed", station=station.name)
            return found
        logger.info("%s ...", station.title)
        self.log.write("station", station=station.name)
        began = time.monotonic()
        study = replace(study, out=ensure_folder(self.folder / "stations" / path.stem))
        try:
            why_not = station.applies(study)
            if why_not is None:
                section = station.run(study)
                seconds = round(time.monotonic() - began, 2)
                found = outcome(station.name, station.title, section=section, seconds=seconds)
            else:
                found = outcome(station.name, station.title, status="skipped", reason=why_not)
        except Exception as error:  # noqa: BLE001  (whatever a station raises, the others go on and the page says so)
            reason = str(error) if isinstance(error, InterpError) else f"{type(error).__name__}: {error}"
            logger.error("%s failed: %s", station.title, reason)
            self.log.write("failed", station=station.name, reason=reason, traceback=traceback.format_exc())
            return outcome(
                station.name, station.title, status="failed", reason=reason or type(error).__name__
            )
        self.log.write(
            "finished", station=station.name, status=found["status"], wall_seconds=found["seconds"]
        )
        write_json_atomic(path, {"key": self.key, "section": found})
        return found

    def _kept_section(self, path: Path) -> dict[str, Any] | None:
        """A section that an earlier run finished on the same model, tokens, seed and versions."""
        if not path.is_file():
            return None
        try:
            record = read_json(path)
        except StoreError as error:
            logger.warning("%s; it is computed anew", error)
            return None
        if isinstance(record, dict) and record.get("key") == self.key:
            return record["section"]
        return None

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
        )
        first = ("command", "source", "texts_sha256", "seed", "wall_seconds", "model")
        page = report(
            model.name,
            subtitle=f"Studied on {material.source}.",
            facts=[*facts(job), *self.performance],
            warnings=warnings,
            notes=material.notes if material.natural else (),
            sections=list(self.sections.values()),
            provenance={name: record[name] for name in (*first, *(n for n in record if n not in first))},
        )
        return write(page, self.folder)


def _file_name(name: str) -> str:
    """A station's name as a file's: itself if it is plain, else a hash of it."""
    plain = len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if plain and name else hashlib.sha256(name.encode()).hexdigest()[:16]
