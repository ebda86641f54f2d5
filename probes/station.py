"""The probe station: which of the study's labels can be read linearly at which layer, and beside which controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.study.sampling import draw, layer_sites, residual_sites
from interp.study.stations import Estimate, Plate, Section, Study, Table
from probes.sweeping import SweepResult, sweep

__all__ = ["STATION", "ProbeStation"]

N_ROWS = 2400
MAX_LABELS = 3
N_COMMON = 6
SEEDS = (0, 1, 2)
IGNORE = -100


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
        """Nine fits a site and label."""
        sites = residual_sites(layer_sites(study))
        d = study.model.d_model or 256
        n = min(N_ROWS, int(study.tokens.mask.sum()))
        work = 0.0
        for grid in _labels(study).values():
            n_classes = len(grid[grid >= 0].unique())
            work += 3 * len(SEEDS) * len(sites) * (0.02 + 80 * 4 * n * d * max(1, n_classes) / 5e9)
        passes = 0.0 if study.store is not None else float(len(study.tokens))
        return Estimate(forward_passes=passes, seconds=2.0 + work, memory_bytes=16 * n * d * (1 + len(sites)))

    def run(self, study: Study) -> Section:
        """Sweep every label over the sites."""
        sites = residual_sites(layer_sites(study))
        sweeps, lost = {}, []
        for name, grid in _labels(study).items():
            try:
                rows = draw(study, sites, n_rows=N_ROWS, seed=study.seed, where=grid >= 0)
                sweeps[name] = sweep(
                    dict(rows.acts),
                    rows.column(grid),
                    [str(s) for s in sites],
                    groups=rows.doc,
                    types=rows.ids,
                    seeds=[study.seed + s for s in SEEDS],
                    progress=study.progress,
                )
            except InputError as error:  # one label that cannot be probed must not hide the others
                lost.append(f"Label {name!r} was not probed: {error}")
        if not sweeps:
            raise InputError(" ".join(lost))
        return Section(
            name=self.name,
            title=self.title,
            summary=" ".join(_finding(name, result) for name, result in sweeps.items()),
            plates=tuple(_plate(name, result) for name, result in sweeps.items()),
            tables=tuple(_table(name, result) for name, result in sweeps.items()),
            numbers={name: _numbers(result) for name, result in sweeps.items()},
            caveats=(*lost, *_unseen(sweeps), *_caveats(study)),
        )


STATION = ProbeStation()


def _labels(study: Study) -> Mapping[str, Tensor]:
    """The study's own labels; without any, which of the commonest tokens stood just before."""
    if study.labels:
        return {
            name: grid.cpu()
            for name, grid in list(study.labels.items())[:MAX_LABELS]
            if len(grid[grid >= 0].unique()) > 1
        }
    if study.store is not None and bool((study.store.pos[:1] < 0).any()):
        return {}
    previous = _previous_token(study)
    return {} if previous is None else {"previous token": previous}


def _previous_token(study: Study) -> Tensor | None:
    ids, mask = study.tokens.ids.cpu(), study.tokens.mask.cpu()
    if ids.shape[1] < 3:
        return None
    before, real = ids[:, :-1], mask[:, 1:] & mask[:, :-1]
    begins = before[:, 0]
    if len(begins) > 1 and bool((begins == begins[0]).all()):
        real[:, 0] = False  # behind a beginning-of-sequence mark the position alone would give the label away
    tokens, counts = before[real].unique(return_counts=True)
    common = tokens[counts.argsort(descending=True)][:N_COMMON]
    common = common[torch.tensor([int(((before == t) & real).sum()) >= 20 for t in common], dtype=torch.bool)]
    if len(common) < 2:
        return None
    grid = torch.full_like(ids, IGNORE)
    for label, token in enumerate(common.tolist()):
        grid[:, 1:][(before == token) & real] = label
    return grid


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


def _plate(name: str, result: SweepResult) -> Plate:
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
        "That a label can be read does not show that the model uses it; nothing was edited here.",
        "The intervals resample test texts; they leave out the spread from training on other texts (see the "
        "figures by seed).",
    )
