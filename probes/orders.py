"""Unsupervised probes of an order: days around a circle, depths along a line. Rows are averaged by value, the shape is
found without saying which value comes after which, and is then used as a probe of rows that were held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.metrics.orders import cyclic_order, linear_order
from interp.results import Result
from probes.controls import group_interval, split_by_group
from probes.sources import Samples, read, usable

__all__ = ["OrderProbe", "circle_probe", "ordinal_probe"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OrderProbe(Result):
    """How well the shape follows the order of the values; ``chance`` is the mean over permuted values."""

    p_value: float
    """Share of permutations of the values that do at least as well."""
    share: float
    """Of the variance of the value means, what lies in the shape's plane or along its line."""
    accuracy: float
    """Held-out rows whose nearest value in the plane, or along the line, is their own."""
    accuracy_interval: tuple[float, float]
    guessing: float
    """What the commonest value of the train rows gets right."""
    error: float
    """Mean distance of that nearest value from the true one, around the circle or along the line, in steps."""
    error_guessing: float
    """The least that one and the same value for all rows gets."""
    places: np.ndarray
    """[value, 1 or 2] the train means in the plane, or along the line."""
    axes_found: np.ndarray
    """[1 or 2, d] the directions, orthonormal."""
    roundness: float | None = None
    """1 - sd / mean of the whitened radius: 1 on a circle."""


def circle_probe(
    x: Any, values: Any, *, period: int, groups: Any = "row", plane: str = "top", seed: int = 0,
    test_fraction: float = 0.3,
) -> OrderProbe:  # fmt: skip
    """Do rows lie around a circle in the order of their values?

    Parameters
    ----------
    x, values
        Activations [sample, d] and whole numbers from 0 to ``period`` - 1 [sample], negative where there is none.
    period
        Steps once around.
    groups
        [sample] texts, held out whole; ``"row"`` where rows are independent.
    plane
        ``"top"`` (first two principal components of the value means) or ``"round"``, as for
        :func:`interp.metrics.cyclic_order`.

    Raises
    ------
    InputError
        A value outside the period, or a value that no train row has.
    """
    data = _samples(x, values, groups)
    if data.labels.max() >= period:
        row = int(np.flatnonzero(data.labels >= period)[0])
        raise InputError(
            f"labelled row {row} has the value {data.labels[row]}; with period {period} values end at {period - 1}"
        )
    means, test, present = _means(data, test_fraction, seed)
    found = cyclic_order(means, present, period=period, plane=plane, seed=seed)
    step = np.abs(np.subtract.outer(np.arange(period), np.arange(period)))
    return _judged(
        found, data, means, test, present, np.minimum(step, period - step), f"modulo {period}, plane: {plane}"
    )


def ordinal_probe(
    x: Any, values: Any, *, groups: Any = "row", seed: int = 0, test_fraction: float = 0.3
) -> OrderProbe:
    """Do rows lie along a line in the order of their values? The line is the value means' first principal component.

    Parameters as for :func:`circle_probe`; values are any whole numbers from 0 on.
    """
    data = _samples(x, values, groups)
    means, test, present = _means(data, test_fraction, seed)
    found = linear_order(means, present, seed=seed)
    size = int(data.labels.max()) + 1
    step = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return _judged(found, data, means, test, present, step, "first principal component")


def _samples(x: Any, values: Any, groups: Any) -> Samples:
    _, every = read({"x": x}, values, "x", tokens=None, groups=groups, types=None)
    return usable(every, None, [0])


def _means(data: Samples, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train means by value, which rows are held out, and the values."""
    rows, test = (
        data.rows("x").astype(np.float64),
        split_by_group(data.groups, test_fraction=test_fraction, seed=seed),
    )
    present = np.unique(data.labels)
    train = data.labels[~test]
    if lost := [int(v) for v in present if not (train == v).any()]:
        raise InputError(
            f"value {lost[0]} has no train rows (of {len(train)}); give more texts, or another seed"
        )
    if len(present) < 4:
        raise InputError(f"values {present.tolist()}: an order of fewer than four cannot be told from chance")
    return np.stack([rows[~test][train == v].mean(0) for v in present]), test, present


def _judged(
    found: Result,
    data: Samples,
    means: np.ndarray,
    test: np.ndarray,
    present: np.ndarray,
    step: np.ndarray,
    how: str,
) -> OrderProbe:
    known = found.provenance
    axes = np.atleast_2d(np.asarray(known.get("directions", known.get("direction")), dtype=np.float64))
    places = (means - means.mean(0)) @ axes.T
    rows, truth = (data.rows("x")[test] - means.mean(0)) @ axes.T, data.labels[test]
    guess = present[((rows[:, None] - places[None]) ** 2).sum(-1).argmin(1)]
    _, which = np.unique(data.groups[test], return_inverse=True)
    right = np.bincount(which, guess == truth)
    ends = group_interval(right[None], np.bincount(which).astype(float))[1][0]
    values, counts = np.unique(data.labels[~test], return_counts=True)
    constant = [float(step[v, truth].mean()) for v in present]
    return OrderProbe(
        name=found.name, value=float(found.value), n=int(test.sum()), chance=float(np.mean(found.chance or 0.0)),
        convention=f"order of {len(present)} train means, {how}; accuracy: nearest mean there, bootstrap over groups",
        p_value=known["p_value"], share=known["share"], accuracy=float((guess == truth).mean()),
        accuracy_interval=(float(ends[0]), float(ends[1])),
        guessing=float((truth == values[counts.argmax()]).mean()), error=float(step[guess, truth].mean()),
        error_guessing=min(constant), places=places, axes_found=axes, roundness=known.get("roundness"),
        provenance={"n_permutations": known["n_permutations"]},
    )  # fmt: skip
