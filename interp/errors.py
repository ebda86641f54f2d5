"""The one family of errors: what was given, what was expected, and the nearest valid thing.

Everything the toolkit raises on purpose is an :class:`InterpError`; each child is also the
built-in error a caller would expect, so ``except KeyError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckError",
    "InputError",
    "InterpError",
    "ModelError",
    "SiteError",
    "StoreError",
    "nearest",
]


class InterpError(Exception):
    """Base of every error raised on purpose by interp, probes, sae and circuits."""

    def __str__(self) -> str:
        # KeyError quotes its argument; a message should read the same whatever its other parent is.
        return str(self.args[0]) if self.args else ""


class InputError(InterpError, ValueError):
    """A value handed in by the caller cannot be used (tokens, texts, shapes, options)."""


class SiteError(InterpError, KeyError):
    """A site is unknown to this model, or cannot be read or edited there."""


class ModelError(InterpError, ValueError):
    """A model cannot be loaded, or a method does not apply to its architecture."""


class StoreError(InterpError, RuntimeError):
    """An activation store or result folder is missing, torn, foreign or corrupted."""


class CheckError(InterpError, RuntimeError):
    """Something that must hold does not: an adapter that fails its proof, a verification that differs."""


def nearest(name: str, valid: Iterable[str], *, n: int = 3) -> str:
    """The hint ``"; did you mean 'a', 'b'?"`` with up to ``n`` names close to ``name``, or ``""``."""
    close = difflib.get_close_matches(name, list(valid), n=n, cutoff=0.5)
    return f"; did you mean {', '.join(repr(c) for c in close)}?" if close else ""
