"""Direction: a vector at a site, the least that a probe, a latent or a steering method has to agree on.

Anything with a ``site`` and a ``vector`` is one; the packages above hand them to each other without importing each
other.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from interp.sites import Site

__all__ = ["Direction"]


@runtime_checkable
class Direction(Protocol):
    """A vector at a site, in the site's own coordinates and of any length."""

    @property
    def site(self) -> str | Site:
        """Where it lives."""
        ...

    @property
    def vector(self) -> Float[Tensor, " d"]:
        """The vector."""
        ...
