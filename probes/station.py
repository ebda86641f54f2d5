"""The probe station: which of the study's labels can be read linearly at which layer, and beside which controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from interp.errors import InputError
from interp.study.findings import Finding
from interp.study.sampling import Rows, draw, layer_sites, residual_sites
from interp.study.stations import Estimate, Plate, Section, Study, Table
from probes.bearing import anchor_of, bearings_of, findings_of
from probes.generic import generic_labels
from probes.sweeping import SweepResult, sweep
from probes.verdicts import N_CONTROLS, n_texts, verdicts

__all__ = ["STATION", "ProbeStation"]

N_ROWS = 2400
LEAST_ROWS = 1200
MAX_LABELS = 3
MANY_LABELS = 16
"""In its full form."""
MANY_CLASSES = 7
"""Above, the closed-form probe (LDA) is fitted: a logistic one would take minutes."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class ProbeStation:
    """A logistic probe a layer, with control task, shuffled labels and majority baseline."""

    name: str = "probe"
    title: str = "Linear probes over the layers"
    order: int = 20

    def applies(self, study: Study) -> str | None:
        """It needs labels, or tokens in sequence, and at least four texts to split."""
        if not layer_sites(study):
            return "this model offers no sites to probe"
        if len(study.tokens) < 4:
            return f"{len(study.tokens)} texts cannot be split into train and test by text; at least 4 are needed"
        labels = _labels(study)
        if labels:
            return None
        return "no labels were given, and too few tokens recur in front of others to ask for the previous one"

    def estimate(self, study: Study) -> Estimate:
        """Three fits a seed, site and label; in the full form an erasure beside 19 random ones a label."""
        sites = residual_sites(layer_sites(study))
        d = study.model.d_model or 256
        work, passes = 1.0, 0.0 if study.store is not None else float(len(study.tokens))
        n = _n_rows(study)
        for grid in _labels(study).values():
            known, n_classes = int((grid >= 0).sum()), len(grid[grid >= 0].unique())
            fits = 3 * len(_seeds(study)) * len(sites)
            logistic = 60 * 4 * min(n, known) * d * n_classes
            closed = 2 * min(n, known) * d**2 + 30 * d**3
            # small products and the optimiser's own steps run at about a third of a large product's speed
            work += fits * (0.012 + (logistic if n_classes <= MANY_CLASSES else closed) / 1e10)
            passes += (N_CONTROLS + 2) * n_texts(study) if study.effort.full else 0
        return Estimate(forward_passes=passes, seconds=work, memory_bytes=16 * n * d * (1 + len(sites)))

    def run(self, study: Study) -> Section:
        """Sweep every label over the sites."""
        sites = residual_sites(layer_sites(study))
        sweeps, used, lost = {}, {}, []
        for name, grid in _labels(study).items():
            try:
                rows = draw(study, sites, n_rows=_n_rows(study), seed=study.seed, where=grid >= 0)
                classes = rows.column(grid)
                many = len(classes.unique()) > MANY_CLASSES
                sweeps[name] = sweep(
                    dict(rows.acts),
                    classes,
                    [str(s) for s in sites],
                    groups=rows.doc,
                    types=rows.ids,
                    seeds=_seeds(study),
                    probe="lda" if many else None,
                    progress=study.progress,
                )
                used[name] = (rows, classes)
            except InputError as error:  # one label that cannot be probed must not hide the others
                lost.append(f"Label {name!r} was not probed: {error}")
        if not sweeps:
            raise InputError(" ".join(lost))
        section = Section(
            name=self.name,
            title=self.title,
            summary=" ".join(_finding(name, result) for name, result in list(sweeps.items())[:MAX_LABELS])
            + _others(sweeps),
            plates=tuple(
                _plate(name, result, half=len(sweeps) > MAX_LABELS) for name, result in sweeps.items()
            ),
            tables=tuple(_table(name, result) for name, result in sweeps.items()),
            numbers={name: _numbers(result) for name, result in sweeps.items()},
            caveats=(*lost, *_unseen(sweeps), *_caveats(study)),
            findings=findings_of(sweeps),
            bearings=bearings_of(used, sites),
        )
        return _with_verdicts(section, study, sweeps, used) if study.effort.full else section


STATION = ProbeStation()


def _labels(study: Study) -> Mapping[str, Tensor]:
    """The study's own labels; without any, what every text has."""
    full = study.effort.full
    if study.labels:
        few = list(study.labels.items())[: MANY_LABELS if full else MAX_LABELS]
        return {name: grid.cpu() for name, grid in few if len(grid[grid >= 0].unique()) > 1}
    return generic_labels(study, every=full)


def _n_rows(study: Study) -> int:
    return min(study.effort.of(N_ROWS, least=LEAST_ROWS), int(study.tokens.mask.sum()))


def _seeds(study: Study) -> list[int]:
    return [study.seed + s for s in SEEDS[: study.effort.of(len(SEEDS))]]


def _with_verdicts(
    section: Section, study: Study, sweeps: Mapping[str, SweepResult], used: Mapping[str, tuple[Rows, Tensor]]
) -> Section:
    table, numbers, findings, lost = verdicts(study, sweeps, used)
    return replace(
        section,
        tables=(table, *section.tables),
        numbers={**section.numbers, "verdicts": numbers},
        findings=(*(_remarked(f, numbers) for f in section.findings), *findings),
        caveats=(
            *lost,
            "An erasure that costs nothing does not show that the label is not used: it may be read elsewhere, or in "
            "few tokens. Random subspaces carry less variance than a label's own, which makes them a weak control.",
            *section.caveats,
        ),
    )


def _remarked(finding: Finding, verdicts: Mapping[str, Any]) -> Finding:
    """The accuracy that the index shows, with its label's verdict."""
    return replace(finding, remark=verdicts[finding.name]["verdict"]) if finding.shown else finding


def _others(sweeps: Mapping[str, SweepResult]) -> str:
    """The labels that the summary has no room for."""
    rest = list(sweeps)[MAX_LABELS:]
    return f" Probed as well: {', '.join(rest)}." if rest else ""


def _is_asked(study: Study) -> bool:
    return bool(study.labels)


def _best(result: SweepResult) -> int:
    return int(np.nanargmax(np.asarray(result.value)))


def _finding(name: str, result: SweepResult) -> str:
    value, majority, best = np.asarray(result.value), float(np.mean(result.chance or 0.0)), _best(result)
    low, high = result.interval[best] if result.interval is not None else (np.nan, np.nan)
    control, remark = "", ""
    if result.control is not None:
        control = f", {result.control[best]:.0%} on the control task"
        if result.control[best] >= value[best]:
            remark = " That is no better than the control: the probe may as well have remembered word types."
    nothing = max(majority, float(result.shuffled[best]), 1 / len(result.classes))
    verdict = "is read best" if low > nothing else "is not read above chance; the best is"
    return (
        f"{name.capitalize()} ({len(result.classes)} classes) {verdict} at {result.ticks[0][best]}: "
        f"{value[best]:.0%} of held-out texts' tokens "
        f"right ({low:.0%}-{high:.0%}; n = {result.n_test} tokens a split), "
        f"against {majority:.0%} for the commonest class{control}; at the first "
        f"site {value[0]:.0%}.{remark}"
    )


def _plate(name: str, result: SweepResult, *, half: bool = False) -> Plate:
    figure = result.plot()
    figure.update_layout(title=None)
    control = (
        ""
        if result.control is None
        else (
            " The control task gives every word type one random label: a probe that scores high on it has "
            "remembered types, not read the property."
        )
    )
    return Plate(
        title=f"Probe accuracy: {name}",
        anchor=anchor_of(name),
        half=half,
        figure=figure,
        caption=(
            f"{result.n} tokens of {result.n_groups} texts, {len(result.classes)} classes; "
            f"{result.accuracy.shape[1]} splits by text "
            f"({result.n_train} train, {result.n_test} test tokens). Band: 95% bootstrap interval over test "
            f"texts (Wilson's over texts where all or none are right).{control}"
        ),
    )


def _table(name: str, result: SweepResult) -> Table:
    columns = (
        "site",
        "accuracy",
        "low",
        "high",
        "control task",
        "selectivity",
        "shuffled labels",
        "majority class",
        "AUROC",
        "Brier score",
        "calibration error",
    )
    value, ends = np.asarray(result.value), result.interval
    rows = []
    for i, site in enumerate(result.ticks[0]):
        control = None if result.control is None else float(result.control[i])
        rows.append(
            (
                site,
                round(float(value[i]), 4),
                *(
                    None if ends is None else round(float(e), 4)
                    for e in (ends[i] if ends is not None else (0, 0))
                ),
                None if control is None else round(control, 4),
                None if control is None else round(float(value[i]) - control, 4),
                round(float(result.shuffled[i]), 4),
                round(float(np.mean(result.chance or 0.0)), 4),
                *(
                    None if x is None else round(float(x[i].mean()), 4)
                    for x in (result.auroc, result.brier, result.ece)
                ),
            )
        )
    return Table(title=f"Probe accuracy by site: {name}", columns=columns, rows=tuple(rows))


def _numbers(result: SweepResult) -> dict[str, object]:
    return {
        "sites": list(result.ticks[0]),
        "accuracy": np.asarray(result.value).tolist(),
        "interval": None if result.interval is None else result.interval.tolist(),
        "level": result.level,
        "by_seed": result.accuracy.tolist(),
        "control": None if result.control is None else result.control.tolist(),
        "control_reason": result.reason,
        "shuffled": result.shuffled.tolist(),
        "majority": float(np.mean(result.chance or 0.0)),
        "n": result.n,
        "n_groups": result.n_groups,
        "n_train": result.n_train,
        "n_test": result.n_test,
        "classes": list(result.classes),
        "converged": result.converged,
        "auroc": None if result.auroc is None else result.auroc.tolist(),
        "brier": None if result.brier is None else result.brier.tolist(),
        "calibration_error": None if result.ece is None else result.ece.tolist(),
        "unseen": list(result.unseen),
        "convention": result.convention,
    }


def _unseen(sweeps: Mapping[str, SweepResult]) -> tuple[str, ...]:
    """The first class of each label that a split could not learn."""
    return tuple(
        f"{name.capitalize()}: {one.unseen[0]}"
        + (f"; and {len(one.unseen) - 1} more." if one.unseen[1:] else ".")
        for name, one in sweeps.items()
        if one.unseen
    )


def _caveats(study: Study) -> tuple[str, ...]:
    fallback = (
        ()
        if _is_asked(study)
        else (
            "No labels were given, so the probe asks for something every text has: which of its commonest "
            "tokens stood just before. "
            "Where one token predicts its neighbour, the current token alone already tells part of it; the "
            "first site shows how much.",
        )
    )
    return (
        *fallback,
        "That a label can be read does not show that the model uses it"
        + ("." if study.effort.full else "; nothing was edited here."),
        "The intervals resample test texts; they leave out the spread from training on other texts (see the "
        "figures by seed).",
    )
