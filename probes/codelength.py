"""Online codelength: how many bits the labels cost when the probe that predicts them is sent along (MDL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.results import Result

__all__ = ["FRACTIONS", "Codelength", "mdl"]

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where the blocks end (Voita & Titov)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Codelength(Result):
    """Bits to send the labels, mean over orders; ``chance`` is the uniform code's n log2(classes)."""

    orders: np.ndarray
    """[seed] bits in each order."""

    @property
    def compression(self) -> float:
        """Uniform code over this one: 1 where nothing is learnt, less where the probe is misled."""
        return float(np.mean(self.chance or 0.0)) / float(self.value)


def mdl(
    x: Any,
    y: Any,
    *,
    probe: Any = None,
    groups: Any = None,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0, 1, 2),
) -> Codelength:
    """Online (prequential) codelength of labels ``y`` [sample] given rows ``x`` [sample, d].

    The first block is sent uniformly; each later one with the probabilities of a probe fitted on all before it,
    smoothed as (t p + 1) / (t + classes) after t rows, so that a class not yet seen costs log2(t + classes) bits.

    Parameters
    ----------
    probe
        A classifier with ``predict_proba``; :class:`probes.LogisticProbe` with C = 1 by default.
    groups
        [sample] whole groups follow each other in the random order, so that no text is learnt from its own half.
    fractions
        Shares of the rows at which blocks end.
    seeds
        One random order each; the interval is Student's over them.

    References
    ----------
    Voita & Titov 2020, Information-theoretic probing with minimum description length, (3).
    """
    from scipy.stats import t as student

    from probes.linear import LogisticProbe

    rows = np.asarray(x)
    names, codes = np.unique(np.asarray(y), return_inverse=True)
    if len(rows) != len(codes):
        raise InputError(f"{len(codes)} labels were given for {len(rows)} rows")
    if len(names) < 2:
        raise InputError(f"the labels are of one class only ({names[0]}); sending them costs nothing")
    template = LogisticProbe(C=1.0) if probe is None else probe
    belongs = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
    bits = np.array(
        [_bits(rows, codes, len(names), _order(belongs, seed), template, fractions) for seed in seeds]
    )
    spread = float(bits.std(ddof=1) / len(bits) ** 0.5) if len(bits) > 1 else None
    half = None if spread is None else float(student.ppf(0.975, len(bits) - 1)) * spread
    return Codelength(
        name="online codelength",
        value=float(bits.mean()),
        n=len(rows),
        stderr=spread,
        interval=None if half is None else bits.mean() + np.array([-half, half]),
        chance=len(rows) * float(np.log2(len(names))),
        convention=f"bits, {len(fractions)} blocks, mean of {len(bits)} orders; chance: uniform code",
        orders=bits,
        provenance={"seeds": [int(s) for s in seeds]},
    )


def _order(belongs: np.ndarray, seed: int) -> np.ndarray:
    rank = np.random.default_rng(seed).permutation(int(belongs.max()) + 1)
    return np.argsort(rank[belongs], kind="stable")


def _bits(
    rows: np.ndarray,
    codes: np.ndarray,
    n_classes: int,
    order: np.ndarray,
    template: Any,
    fractions: Sequence[float],
) -> float:
    ends = sorted({max(1, round(f * len(order))) for f in fractions} | {len(order)})
    total = ends[0] * np.log2(n_classes)
    for start, stop in zip(ends, ends[1:], strict=False):
        seen, next_ = order[:start], order[start:stop]
        p = _predicted(template, rows[seen], codes[seen], rows[next_], n_classes)
        smooth = (start * p + 1) / (start + n_classes)
        total -= np.log2(smooth[np.arange(len(next_)), codes[next_]]).sum()
    return float(total)


def _predicted(template: Any, x: np.ndarray, y: np.ndarray, x_next: np.ndarray, n_classes: int) -> np.ndarray:
    import warnings

    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    p = np.zeros((len(x_next), n_classes))
    present = np.unique(y)
    if len(present) == 1:
        p[:, present] = 1.0
        return p
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        p[:, present] = clone(template).fit(x, y).predict_proba(x_next)
    return p
