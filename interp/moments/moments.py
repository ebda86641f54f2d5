"""The noun: an accumulator with the ways it is made and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.moments.accumulator import Accumulator, merged
from interp.moments.files import load, save
from interp.moments.sources import moments_from_model, moments_of

__all__ = ["Moments"]


class Moments(Accumulator):
    """A mergeable, mean-shifted, float64-reduced accumulator over rows of several sites.

    Row i of every site must stand for the same sample. With the default ``products="float32"`` rows are multiplied in
    float32 and summed in float64 (values right to about 1e-6); ``"float64"`` costs twice the time (1e-9).

    Parameters
    ----------
    widths
        Site -> d.
    cross
        True keeps the cross-product of every pair of sites (exact CKA between them), a sequence of pairs only those.
        Memory: 8 (sum d)^2 / 2 bytes for all pairs instead of 8 sum d^2.
    max_bytes
        Refuse a configuration that takes more; None refuses nothing. The size is logged before it is allocated.
    device
        Where the sums live.
    **options
        Fields of :class:`~interp.moments.config.MomentsConfig`: twin, block, n_classes, parts, products, chunk.
    """

    @classmethod
    def of(cls, data: Any, **options: Any) -> Moments:
        """Moments of arrays, Activations or a store; see :func:`interp.moments.sources.moments_of`."""
        return moments_of(data, cls, **options)

    @classmethod
    def stream(cls, model: Any, tokens: Any, sites: Any, **options: Any) -> Moments:
        """Moments straight from a model, nothing kept; see :func:`interp.moments.sources.moments_from_model`."""
        return moments_from_model(model, tokens, sites, cls, **options)

    def merge(self, *others: Moments) -> Moments:
        """The moments of all rows of these and ``others``, as a new object; any order gives the same to rounding.

        Raises
        ------
        InputError
            Their configurations differ.
        """
        return merged([self, *others])

    def save(self, path: str | Path) -> Path:
        """One safetensors file whose header holds the configuration as JSON."""
        return save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read :meth:`save`'s file; StoreError if it is missing, torn, foreign or does not fit its configuration."""
        return load(path, cls)
