"""What every fit of a sweep got right, by site, split and group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from probes.closed import Path, Scatter
from probes.controls import control_labels, group_interval
from probes.discriminants import ClosedForm
from probes.scores import auroc, brier, calibration_error
from probes.sources import Samples
from probes.sweep_result import SweepResult

__all__ = ["Fits", "Tally"]

_SMALL = 2_000_000
"""Entries of a training matrix below which a fit runs on one thread."""


class Tally:
    """What every fit got right, by site and group."""

    def __init__(self, data: Samples, n_sites: int, n_seeds: int) -> None:
        self.data = data
        self.group_names, self.group = np.unique(data.groups, return_inverse=True)
        shape = (n_sites, len(self.group_names))
        self.correct = {kind: np.zeros(shape) for kind in ("task", "control", "shuffled")}
        self.counts = np.zeros(len(self.group_names))
        self.scores = {
            kind: np.full((n_sites, n_seeds), np.nan) for kind in ("accuracy", "auroc", "brier", "ece")
        }
        self.fits: list[bool] = []

    def fit(self, template: Any, rows: np.ndarray, i: int, j: int, *, seed: int, test: np.ndarray) -> None:
        labels, train = self.data.labels, ~test
        truth = {"task": (labels, labels)}
        shuffled = np.random.default_rng([seed, 1]).permutation(labels[train])
        whole = labels.copy()
        whole[train] = shuffled
        truth["shuffled"] = (whole, labels)
        if self.data.types is not None:
            control = control_labels(labels, self.data.types, seed=seed)
            truth["control"] = (control, control)
        fits = Fits(template, rows, train)
        for kind, (learn, judge) in truth.items():
            probe, converged = fits.fit(learn[train])
            right = (probe.predict(rows[test]) if probe else learn[train][0]) == judge[test]
            np.add.at(self.correct[kind][i], self.group[test], right)
            self.fits.append(converged)
            if kind == "task":
                self.scores["accuracy"][i, j] = right.mean()
                self._score(probe, rows[test], labels[test], i, j)
        if i == 0:
            np.add.at(self.counts, self.group[test], 1)

    def _score(self, probe: Any, rows: np.ndarray, labels: np.ndarray, i: int, j: int) -> None:
        """AUROC and calibration; a tested class that the train rows lack has probability 0."""
        classes = np.union1d(probe.classes_, labels)
        place, codes = np.searchsorted(classes, probe.classes_), np.searchsorted(classes, labels)
        p = None
        if hasattr(probe, "predict_proba"):
            p = np.zeros((len(rows), len(classes)))
            p[:, place] = probe.predict_proba(rows)
            self.scores["brier"][i, j], self.scores["ece"][i, j] = (
                brier(p, codes),
                calibration_error(p, codes),
            )
        if len(np.unique(codes)) < 2:
            return
        if hasattr(probe, "decision_function"):
            scores = probe.decision_function(rows)
            wide = np.full((len(rows), len(classes)), -np.inf)
            wide[:, place] = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores
            self.scores["auroc"][i, j] = auroc(wide, codes)
        elif p is not None:
            self.scores["auroc"][i, j] = auroc(p, codes)

    def result(
        self,
        names: Sequence[str],
        seeds: Sequence[int],
        splits: Sequence[np.ndarray],
        majority: float,
        **extras: Any,
    ) -> SweepResult:
        tested = self.counts > 0
        share = {kind: c[:, tested].sum(1) / self.counts.sum() for kind, c in self.correct.items()}
        spread = {kind: group_interval(c[:, tested], self.counts[tested]) for kind, c in self.correct.items()}
        has_control = self.data.types is not None
        n = len(self.data.labels)
        n_test = round(float(np.mean([s.sum() for s in splits])))
        return SweepResult(
            name="probe accuracy",
            value=share["task"],
            stderr=spread["task"][0],
            interval=spread["task"][1],
            n=n,
            chance=majority,
            axes=("site",),
            ticks=(tuple(names),),
            convention=f"held-out accuracy over {len(seeds)} splits by group; interval: bootstrap over tested groups; "
            "chance: majority class of the train groups; control: one random label per word type",
            accuracy=self.scores["accuracy"],
            **{k: None if np.isnan(v).all() else v for k, v in self.scores.items() if k != "accuracy"},
            **extras,
            control=share["control"] if has_control else None,
            control_interval=spread["control"][1] if has_control else None,
            shuffled=share["shuffled"],
            shuffled_interval=spread["shuffled"][1],
            classes=tuple(int(c) for c in np.unique(self.data.labels)),
            n_groups=len(self.group_names),
            n_train=n - n_test,
            n_test=n_test,
            converged=float(np.mean(self.fits)),
            reason=None
            if has_control
            else "no word types that differ were given, so there is no control task",
            provenance={"seeds": [int(s) for s in seeds]},
        )


class Fits:
    """Fits of one probe on the same rows with several labels.

    A closed-form probe multiplies the rows once and decomposes their scatter once, whatever the labels.
    """

    def __init__(self, template: Any, rows: np.ndarray, train: np.ndarray) -> None:
        self.template, self.rows = template, rows[train]
        self.closed = isinstance(template, ClosedForm)
        self.scatter: Scatter | None = None
        self.solved: Path | None = None

    def fit(self, labels: np.ndarray) -> tuple[Any, bool]:
        """A fitted probe and whether its solver converged; no probe if there is one class only."""
        import warnings

        from sklearn.base import clone
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        if (
            len(np.unique(labels)) < 2
        ):  # a control task can come out constant; the best probe then says that class
            return None, True
        # on small matrices BLAS and OpenMP threads wait for each other: one thread measured 5x faster at 1400 x 64
        with threadpool_limits(1 if self.rows.size < _SMALL else None), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # kept as a number: SweepResult.converged
            probe = clone(self.template)
            fitted = self._closed(probe, labels) if self.closed else probe.fit(self.rows, labels)
        return fitted, bool(getattr(fitted, "converged_", True))

    def _closed(self, probe: Any, labels: np.ndarray) -> Any:
        probe.classes_, codes = np.unique(labels, return_inverse=True)
        probe.multilabel_, probe.n_features_in_ = False, self.rows.shape[1]
        columns = (codes[:, None] == np.arange(len(probe.classes_))).astype(self.rows.dtype)
        if self.scatter is None:
            self.scatter = Scatter.of_rows(self.rows, columns, single=True)
        counts = columns.sum(0, dtype=np.float64)
        one = replace(
            self.scatter, counts=counts, means=(columns.T @ self.rows).astype(float) / counts[:, None]
        )
        if self.solved is None and probe._eigen():
            self.solved = probe.solve_path(one)
        return probe.fit_scatter(one, solved=self.solved)
