"""Which texts to show for a latent: the strongest ones, and some from every interval of strength below them.

Everything is done for all latents at once on the sorted codes. A text is shown once a latent, at the token where the
latent is strongest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae.codes import Codes

__all__ = ["Examples", "Plan", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many examples, and how much text about each."""

    top: int = 20
    """The strongest texts."""
    intervals: int = 5
    """Equal parts of the span from 0 to the largest code, from which others are drawn."""
    each: int = 5
    """Texts of each interval."""
    before: int = 12
    """Tokens shown before the peak."""
    after: int = 6
    """Tokens shown behind it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Chosen examples, sorted by latent, then group (0: strongest; then intervals from the highest), then strength."""

    plan: Plan
    latent: np.ndarray
    """[example]"""
    group: np.ndarray
    """[example]"""
    row: np.ndarray
    """[example] row of the peak in the codes."""
    left: np.ndarray
    """[example] tokens shown before the peak."""
    length: np.ndarray
    """[example] tokens shown in all."""
    starts: np.ndarray
    """[example + 1] where each example's shown codes begin in ``offset`` and ``value``."""
    offset: np.ndarray
    """[shown code] its place in the window."""
    value: np.ndarray
    """[shown code]"""
    share: np.ndarray
    """[latent, interval] share of the latent's firings in each interval, from the highest."""

    def of(self, latent: int) -> range:
        """The examples of one latent."""
        begin, end = np.searchsorted(self.latent, [latent, latent + 1])
        return range(int(begin), int(end))


def choose(codes: Codes, plan: Plan, *, seed: int = 0) -> Examples:
    """Examples of every latent that fires."""
    latent = np.repeat(np.arange(codes.d_sae, dtype=np.int64), codes.counts)
    size = np.abs(codes.values)
    run, text_row, peak = _peaks(codes, latent, size)
    strongest = codes.strongest.astype(np.float64)
    share = _shares(latent, size, strongest, plan.intervals, codes)
    part = _interval(peak, strongest[run], plan.intervals)
    order = np.lexsort((-peak, run))
    rank = _rank(run[order])
    top = order[rank < plan.top]
    rest = order[rank >= plan.top]
    mixed = rest[np.random.default_rng(seed).permutation(len(rest))]
    key = run[mixed] * plan.intervals + part[mixed]
    mixed = mixed[np.argsort(key, kind="stable")]
    drawn = mixed[_rank(run[mixed] * plan.intervals + part[mixed]) < plan.each]
    chosen = np.concatenate([top, drawn])
    group = np.concatenate([np.zeros(len(top), dtype=np.int64), 1 + part[drawn]])
    order = np.lexsort((-peak[chosen], group, run[chosen]))
    chosen, group = chosen[order], group[order]
    row = text_row[chosen].astype(np.int64)
    left, length = _windows(codes, row, plan)
    starts, offset, value = _shown(codes, latent, run[chosen], row - left, length)
    return Examples(
        plan=plan,
        latent=run[chosen],
        group=group,
        row=row,
        left=left,
        length=length,
        starts=starts,
        offset=offset,
        value=value,
        share=share,
    )


def _peaks(codes: Codes, latent: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every (latent, text) that meet: the latent, the row where it is strongest, and how strong it is there."""
    if not len(latent):
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0)
    text = codes.where[codes.rows, 0]
    new = np.ones(len(latent), dtype=bool)
    new[1:] = (np.diff(latent) != 0) | (np.diff(text) != 0)
    begin = np.flatnonzero(new)
    peak = np.maximum.reduceat(size, begin)
    run = np.cumsum(new) - 1
    at = np.flatnonzero(size == peak[run])
    first = at[np.flatnonzero(np.diff(run[at], prepend=-1))]  # the earliest where several are equally strong
    return latent[begin], codes.rows[first], peak.astype(np.float64)


def _rank(sorted_key: np.ndarray) -> np.ndarray:
    """Place of each entry within its run of equal keys."""
    new = np.ones(len(sorted_key), dtype=bool)
    new[1:] = np.diff(sorted_key) != 0
    begin = np.flatnonzero(new)
    return np.arange(len(sorted_key)) - begin[np.cumsum(new) - 1] if len(sorted_key) else begin


def _interval(size: np.ndarray, strongest: np.ndarray, n: int) -> np.ndarray:
    """0 for the highest of ``n`` equal parts of (0, strongest]."""
    return np.clip(np.floor((1 - size / np.maximum(strongest, 1e-300)) * n).astype(np.int64), 0, n - 1)


def _shares(latent: np.ndarray, size: np.ndarray, strongest: np.ndarray, n: int, codes: Codes) -> np.ndarray:
    key = latent * n + _interval(size, strongest[latent], n)
    counts = np.bincount(key, minlength=codes.d_sae * n).reshape(codes.d_sae, n)
    return counts / np.maximum(codes.counts, 1)[:, None]


def _windows(codes: Codes, row: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """How far each window reaches to the left, and its length: within the text, and over rows that there are."""
    text = codes.where[:, 0]
    begin = np.searchsorted(text, text[row], side="left")
    end = np.searchsorted(text, text[row], side="right")
    left = np.minimum(row - begin, plan.before)
    right = np.minimum(end - 1 - row, plan.after)
    return left, left + right + 1


def _shown(
    codes: Codes, latent: np.ndarray, of: np.ndarray, begin: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The codes of each example's latent inside its window."""
    place = latent * codes.n + codes.rows  # ascending: sorted by latent, then row
    low = np.searchsorted(place, of * codes.n + begin)
    high = np.searchsorted(place, of * codes.n + begin + length)
    starts = np.concatenate([[0], np.cumsum(high - low)])
    inside = np.arange(starts[-1]) + np.repeat(low - starts[:-1], high - low)
    offset = codes.rows[inside] - np.repeat(begin, high - low)
    return starts, offset.astype(np.int64), codes.values[inside]
