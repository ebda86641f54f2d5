"""Intervals that need nothing but counts."""

from __future__ import annotations

from statistics import NormalDist

__all__ = ["wilson_interval"]


def wilson_interval(right: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, ``right`` of ``n``: it keeps a width at 0 and at 1.

    For a mean of numbers between 0 and 1, give their sum as ``right``: it is then too wide rather than too narrow.

    References
    ----------
    Wilson 1927, Probable inference, the law of succession, and statistical inference; Brown, Cai & DasGupta 2001, (4).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
