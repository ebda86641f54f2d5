"""Moments: one pass over rows of many sites, and every second-order question about them answered afterwards.

``moments.py`` is the noun, ``accumulator.py`` what it stands on, ``sums.py`` the arithmetic, ``sources.py`` what it
can be made from.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {"Moments": "moments", "SiteMoments": "accumulator", "MomentsConfig": "config", "Sums": "sums"},
)
