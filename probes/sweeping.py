"""The sweep: at which sites can a label be read, and would a probe have read anything there?

One call fits a probe a site over several splits by group, and beside each the two fits that give the number its
meaning: a control task (random label per word type) and shuffled labels. Read next: ``controls.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from probes.controls import control_labels, group_interval, split_by_group
from probes.sources import Column, Samples, read

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.tokens import Tokens

__all__ = ["SweepResult", "sweep"]

_SMALL = 2_000_000
"""Entries of a training matrix below which a fit runs on one thread."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SweepResult(Result):
    """Held-out accuracy by site. ``chance`` is the majority baseline: always the train set's commonest class."""

    accuracy: np.ndarray
    """[site, seed] accuracy on each split's test groups."""
    control: np.ndarray | None = None
    """[site] accuracy on the control task, or None where word types are unknown."""
    control_interval: np.ndarray | None = None
    shuffled: np.ndarray
    """[site] accuracy of a probe fitted on shuffled labels, tested on the true ones."""
    shuffled_interval: np.ndarray
    classes: tuple[int, ...]
    n_groups: int
    n_train: int
    n_test: int
    """Samples of an average split."""
    converged: float
    """Share of the fits whose solver converged."""

    @property
    def selectivity(self) -> np.ndarray | None:
        """[site] accuracy minus control accuracy (Hewitt & Liang 2019)."""
        return None if self.control is None else np.asarray(self.value) - self.control

    def plot(self) -> go.Figure:
        """Accuracy over sites with its interval, the control, the shuffled labels and the majority baseline."""
        from probes import plots

        return plots.sweep_chart(
            self.ticks[0],
            np.asarray(self.value),
            self.interval,
            control=self.control,
            shuffled=self.shuffled,
            majority=float(np.mean(self.chance or 0.0)),
            title=self.name,
        )


def sweep(
    source: Any,
    labels: Column,
    sites: Sequence[str | Site] | str | Site,
    *,
    tokens: Tokens | None = None,
    groups: Column | str | None = None,
    types: Column | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    test_fraction: float = 0.3,
    max_samples: int | None = 4000,
    probe: Any = None,
    progress: bool = False,
) -> SweepResult:
    """Probe accuracy at every site, with interval, control task, shuffled labels and majority baseline.

    Parameters
    ----------
    source
        A model (then ``tokens`` says on what), an :class:`interp.ActivationStore`, or a mapping site -> rows
        [sample, d].
    labels
        Integer class of every sample: [batch, pos] (or [batch]) for a model, [sample] otherwise. Negative: no label.
    sites
        Names, globs or Sites.
    tokens
        What the model reads.
    groups
        Which text each sample comes from; whole groups go to train or test, never single tokens. Known for models
        and stores; for a mapping it must be given, or ``"row"`` where rows are independent.
    types
        Word type of each sample, for the control task; the token ids for models and stores.
    seeds
        One split, one control task and one shuffling each.
    max_samples
        Labelled samples used at most, drawn at random with the first seed.
    probe
        A scikit-learn classifier to clone; :class:`probes.LogisticProbe` by default.

    Raises
    ------
    InputError
        Labels and samples differ in number, one class only, or groups that cannot be split.

    Notes
    -----
    One forward pass a text for a model, none otherwise; 3 fits a site and seed. The interval resamples whole groups
    of the tested samples; it does not include the spread from training on other texts (see ``.accuracy`` over seeds).
    """
    names, data = read(source, labels, sites, tokens=tokens, groups=groups, types=types)
    data = _usable(data, max_samples, seeds)
    template = probe if probe is not None else _default_probe()
    splits = [split_by_group(data.groups, test_fraction=test_fraction, seed=seed) for seed in seeds]
    majority = _majority(data.labels, splits)
    tally = _Tally(data, len(names), len(seeds))
    for i, name in enumerate(_progress(names, progress)):
        rows = data.rows(name)
        if rows.shape[0] != len(data.labels):
            raise InputError(f"{name} holds {rows.shape[0]} samples, the labels {len(data.labels)}")
        for j, (seed, test) in enumerate(zip(seeds, splits, strict=True)):
            tally.fit(template, rows, i, j, seed=seed, test=test)
    return tally.result(names, seeds, splits, majority)


class _Tally:
    """What every fit got right, by site and group."""

    def __init__(self, data: Samples, n_sites: int, n_seeds: int) -> None:
        self.data = data
        self.group_names, self.group = np.unique(data.groups, return_inverse=True)
        shape = (n_sites, len(self.group_names))
        self.correct = {kind: np.zeros(shape) for kind in ("task", "control", "shuffled")}
        self.counts = np.zeros(len(self.group_names))
        self.accuracy = np.zeros((n_sites, n_seeds))
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
        for kind, (learn, judge) in truth.items():
            right, converged = _fit(template, rows[train], learn[train], rows[test], judge[test])
            np.add.at(self.correct[kind][i], self.group[test], right)
            self.fits.append(converged)
            if kind == "task":
                self.accuracy[i, j] = right.mean()
        if i == 0:
            np.add.at(self.counts, self.group[test], 1)

    def result(
        self, names: Sequence[str], seeds: Sequence[int], splits: Sequence[np.ndarray], majority: float
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
            accuracy=self.accuracy,
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


def _fit(
    template: Any, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Which test samples a fresh probe gets right, and whether its solver converged."""
    import warnings

    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if len(np.unique(y)) < 2:  # a control task can come out constant; the best probe then says that one class
        return y_test == y[0], True
    # on small matrices BLAS and OpenMP threads wait for each other: one thread measured 5x faster at 1400 x 64
    with threadpool_limits(1 if x.size < _SMALL else None), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # kept as a number: SweepResult.converged
        fitted = clone(template).fit(x, y)
    return fitted.predict(x_test) == y_test, bool(getattr(fitted, "converged_", True))


def _default_probe() -> Any:
    from probes.linear import LogisticProbe

    return LogisticProbe()


def _progress(names: Sequence[str], shown: bool) -> Any:
    from interp.runs.progress import progress

    return progress(names, total=len(names), desc="probes", enabled=None if shown else False)


def _majority(labels: np.ndarray, splits: Sequence[np.ndarray]) -> float:
    right = total = 0
    for test in splits:
        classes, counts = np.unique(labels[~test], return_counts=True)
        if len(classes) < 2:
            raise InputError(
                f"the train groups of a split hold one class only ({classes[0]}); give more texts, or other groups"
            )
        right += int((labels[test] == classes[counts.argmax()]).sum())
        total += int(test.sum())
    return right / total


def _usable(data: Samples, max_samples: int | None, seeds: Sequence[int]) -> Samples:
    """The labelled samples, at most ``max_samples`` of them."""
    if not len(seeds):
        raise InputError("seeds is empty; give at least one")
    keep = np.flatnonzero(data.labels >= 0)
    classes = np.unique(data.labels[keep])
    if len(classes) < 2:
        raise InputError(
            f"{len(keep)} of {len(data.labels)} samples are labelled, all of class {classes.tolist()}; "
            "a probe needs at least two classes"
        )
    if max_samples is not None and len(keep) > max_samples:
        keep = np.sort(np.random.default_rng(seeds[0]).choice(keep, size=max_samples, replace=False))
    every = data.rows
    types = None if data.types is None else data.types[keep]
    if types is not None and len(np.unique(types)) < 2:
        types = None  # one word type: the control task would be a constant
    return Samples(
        rows=lambda name: every(name)[keep], labels=data.labels[keep], groups=data.groups[keep], types=types
    )
