"""Nested prefixes (Matryoshka): what do the first m coordinates know? One scatter answers for every prefix.

Whether the order of coordinates is what makes short prefixes good shows beside coordinates in random order, and beside
as many principal components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.results import Result
from probes.closed import Scatter
from probes.controls import group_interval, majority_share, split_by_group
from probes.sources import read, usable
from probes.sweeping import template_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["PrefixCurve", "prefix_curve"]

_SURE = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PrefixCurve(Result):
    """Held-out accuracy by size of the prefix; ``chance`` is the majority class of the train groups."""

    shuffled_order: np.ndarray
    """[size] accuracy of as many coordinates in random order, mean over splits."""
    principal: np.ndarray
    """[size] accuracy of as many leading principal components of the train rows."""
    sure: tuple[float, ...]
    """Probabilities at which the adaptive reader stops."""
    adaptive_accuracy: np.ndarray
    """[sure] accuracy when each row is read by growing prefixes until the likeliest class has that probability."""
    adaptive_size: np.ndarray
    """[sure] coordinates read on average."""

    def plot(self) -> go.Figure:
        """Accuracy over the prefix, with both controls and the adaptive reader."""
        from probes import plots

        sizes = [int(m) for m in self.ticks[0]]
        return plots.prefix_chart(
            sizes, np.asarray(self.value), self.interval,
            others={"coordinates in random order": self.shuffled_order, "principal components": self.principal},
            adaptive=(self.adaptive_size, self.adaptive_accuracy), majority=float(np.mean(self.chance or 0.0)),
            title=self.name,
        )  # fmt: skip


def prefix_curve(
    x: Any,
    y: Any,
    *,
    sizes: Sequence[int] | None = None,
    groups: Any = "row",
    probe: Any = "lda",
    seeds: Sequence[int] = (0, 1, 2),
    test_fraction: float = 0.3,
) -> PrefixCurve:
    """Accuracy of a closed-form probe on the first m coordinates, for every m.

    Parameters
    ----------
    x, y
        Activations [sample, d], their coordinates in the order that is to be judged, and classes [sample] (negative:
        no label).
    sizes
        Prefixes; 1, 2, 4, ... and d by default.
    groups
        [sample] texts, held out whole; ``"row"`` where rows are independent.
    probe
        ``"lda"`` or ``"mass_mean"``, or one of these estimators: the adaptive reader needs probabilities.

    Notes
    -----
    Rows are multiplied once a split; a prefix's statistics are a corner of the scatter.

    References
    ----------
    Kusupati et al. 2022, Matryoshka representation learning, sections 3 and 4.2 (adaptive classification).
    """
    _, every = read({"x": x}, y, "x", tokens=None, groups=groups, types=None)
    data, template = usable(every, None, seeds), template_of(probe)
    if not hasattr(template, "fit_scatter") or not hasattr(template, "predict_proba"):
        raise InputError(
            f"{type(template).__name__} is no closed form with probabilities; take 'lda' or 'mass_mean'"
        )
    rows = data.rows("x").astype(np.float64)
    cuts = _sizes(sizes, rows.shape[1])
    splits = [split_by_group(data.groups, test_fraction=test_fraction, seed=seed) for seed in seeds]
    names, group = np.unique(data.groups, return_inverse=True)
    right, counts = np.zeros((len(cuts), len(names))), np.zeros(len(names))
    mixed, principal = np.zeros(len(cuts)), np.zeros(len(cuts))
    adaptive = np.zeros((2, len(_SURE)))
    for seed, test in zip(seeds, splits, strict=True):
        order = np.random.default_rng([seed, 17]).permutation(rows.shape[1])
        centred = rows[~test] - rows[~test].mean(0)
        leading = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
        guesses, p = _prefixed(template, rows, data.labels, test, cuts)
        truth = data.labels[test]
        for i, guess in enumerate(guesses):
            np.add.at(right[i], group[test], guess == truth)
        np.add.at(counts, group[test], 1)
        for into, other in ((mixed, rows[:, order]), (principal, rows @ leading)):
            into += [
                float((g == truth).mean()) / len(splits)
                for g in _prefixed(template, other, data.labels, test, cuts)[0]
            ]
        adaptive += np.stack(_adaptive(guesses, p, truth, cuts)) / len(splits)
    tested = counts > 0
    stderr, ends = group_interval(right[:, tested], counts[tested])
    return PrefixCurve(
        name="prefix accuracy", value=right.sum(1) / counts.sum(), stderr=stderr, interval=ends, n=len(data.labels),
        chance=majority_share(data.labels, splits), axes=("prefix",), ticks=(tuple(str(m) for m in cuts),),
        convention=f"held-out accuracy of the first m coordinates, {len(splits)} splits; bootstrap over groups",
        shuffled_order=mixed, principal=principal, sure=_SURE, adaptive_size=adaptive[0], adaptive_accuracy=adaptive[1],
        provenance={"seeds": [int(s) for s in seeds]},
    )  # fmt: skip


def _sizes(sizes: Sequence[int] | None, d: int) -> list[int]:
    cuts = sorted({*(2**i for i in range(d.bit_length()) if 2**i < d), d} if sizes is None else {*sizes})
    if not cuts or cuts[0] < 1 or cuts[-1] > d:
        raise InputError(f"sizes = {cuts}; a prefix has 1 to {d} coordinates")
    return cuts


def _prefixed(
    template: Any, rows: np.ndarray, labels: np.ndarray, test: np.ndarray, cuts: list[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Guesses [row] and the probability of each, for every prefix."""
    from sklearn.base import clone

    classes, codes = np.unique(labels[~test], return_inverse=True)
    whole = Scatter.of_rows(rows[~test], (codes[:, None] == np.arange(len(classes))).astype(np.float64))
    guesses, sure = [], []
    for m in cuts:
        probe = clone(template)
        probe.classes_, probe.multilabel_, probe.n_features_in_ = classes, False, m
        part = replace(whole, mean=whole.mean[:m], total=whole.total[:m, :m], means=whole.means[:, :m])
        p = probe.fit_scatter(part).predict_proba(rows[test][:, :m])
        guesses.append(classes[p.argmax(1)])
        sure.append(p.max(1))
    return guesses, sure


def _adaptive(
    guesses: list[np.ndarray], p: list[np.ndarray], truth: np.ndarray, cuts: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean size and accuracy by stopping probability; a row that is never sure enough is read whole."""
    table, reached = np.stack(guesses), np.stack(p)[None] >= np.array(_SURE)[:, None, None]
    reached[:, -1] = True
    stop = reached.argmax(1)
    size = np.array(cuts)[stop].mean(1)
    return size, (table[stop, np.arange(len(truth))] == truth).mean(1)
