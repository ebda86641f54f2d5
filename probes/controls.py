"""Controls: the splits, the control task and the baselines that make a probe's accuracy mean something."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from interp.errors import InputError
from interp.intervals import wilson_interval

if TYPE_CHECKING:
    from probes.sources import Samples

logger = logging.getLogger("interp")

__all__ = ["control_labels", "group_interval", "majority_share", "split_by_group", "unseen_classes"]


def control_labels(
    labels: Int[np.ndarray, "sample"], types: Int[np.ndarray, "sample"], *, seed: int
) -> Int[np.ndarray, "sample"]:
    """Hewitt & Liang's control task: every word type gets one random label, the same wherever it occurs.

    The random labels follow the distribution of ``labels``. A probe can only solve this by telling types apart and
    remembering; accuracy on the task minus accuracy on this is its *selectivity*.

    References
    ----------
    Hewitt & Liang 2019, section 2.
    """
    if len(labels) != len(types):
        raise InputError(
            f"{len(labels)} labels were given for {len(types)} word types; one type a sample is needed"
        )
    _, which = np.unique(types, return_inverse=True)
    drawn = np.random.default_rng(seed).choice(labels, size=int(which.max()) + 1)
    return drawn[which]


def split_by_group(
    groups: Int[np.ndarray, "sample"], *, test_fraction: float, seed: int
) -> Bool[np.ndarray, "sample"]:
    """Which samples are for testing: whole groups, drawn at random until ``test_fraction`` of the samples is reached.

    Raises
    ------
    InputError
        There is one group only: samples of one text are not independent, so it cannot be split.
    """
    names, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"all {len(groups)} samples belong to one group ({names[0] if len(names) else 'none'}); "
            "a split by group needs at least two (give more texts, or other groups)"
        )
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction = {test_fraction}; it lies between 0 and 1")
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    chosen = order[before < test_fraction * len(groups)]
    chosen = chosen[: len(names) - 1]  # something must remain to train on
    return np.isin(which, chosen)


def group_interval(
    correct: np.ndarray, counts: np.ndarray, *, level: float = 0.95, n_draws: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Standard error [site] and percentile interval [site, 2] of a pooled accuracy, resampling whole groups.

    Parameters
    ----------
    correct
        [site, group] how many tested samples of the group were right.
    counts
        [group] how many were tested.

    Notes
    -----
    Where all or none were right, every resample says the same; there the interval is Wilson's, with the groups as
    trials (a text's tokens may stand or fall together), and the error is half its width in normal deviations.
    """
    rng = np.random.default_rng(seed)
    n_groups = len(counts)
    weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    total = weights @ counts
    drawn = (weights @ correct.T)[total > 0] / total[total > 0, None]
    tail = (1 - level) / 2
    stderr, ends = drawn.std(0), np.quantile(drawn, [tail, 1 - tail], axis=0).T
    for i, right in enumerate(correct.sum(1)):
        if right in (0, counts.sum()):
            ends[i] = wilson_interval(n_groups if right else 0, n_groups, level=level)
            stderr[i] = (ends[i, 1] - ends[i, 0]) / 2 / NormalDist().inv_cdf(1 - tail)
    return stderr, ends


def majority_share(labels: np.ndarray, splits: Sequence[np.ndarray]) -> float:
    """What the commonest class of the train rows gets right among the tested ones, over all splits.

    Raises
    ------
    InputError
        The train rows of a split hold one class only.
    """
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


def unseen_classes(data: Samples, seeds: Sequence[int], splits: Sequence[np.ndarray]) -> tuple[str, ...]:
    """What has to be said of classes that only the tested groups of a split have."""
    told = []
    for seed, test in zip(seeds, splits, strict=True):
        for lost in np.setdiff1d(data.labels[test], data.labels[~test]):
            rows = np.flatnonzero(test & (data.labels == lost))
            told.append(
                f"class {lost} has no train rows in the split of seed {seed}: its {len(rows)} tested rows, the first "
                f"of them {data.name(int(rows[0]))}, count as wrong"
            )
    if told:
        logger.warning("%s%s", told[0], f"; and {len(told) - 1} more such classes" if told[1:] else "")
    return tuple(told)
