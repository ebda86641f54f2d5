"""Findings and bearings: the common form in which stations say what was found where, so that it can be joined.

A :class:`Finding` is one measured thing at one site; :class:`Bearings` are vectors with names that live in one space,
such as a dictionary's latents or the probes of a layer. Stations hand them over in their section; ``joining.py`` lays
them side by side and ``comparing.py`` sets those of two studies against each other. Neither knows what a probe is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError

__all__ = ["STREAM", "Bearings", "Finding"]

STREAM = "residual stream"
"""The space of everything that is written to or read from the residual stream, at whichever layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found at one place."""

    kind: str
    """What sort of thing: the column of the index it stands in (``"rank"``, ``"probe"``, ``"latent"``, ``"part"``)."""
    name: str
    """What it is called there: ``"agreement"``, ``"latent 12"``."""
    site: str
    """Where, as a site's name, head included (``"blocks.2.attn.hook_z[0]"``); empty where it is of the whole model."""
    measure: str
    """What ``value`` is: ``"effective rank"``, ``"accuracy"``."""
    value: float | None
    """None where it could not be measured."""
    low: float | None = None
    high: float | None = None
    """Ends of its 95% interval."""
    n: int | None = None
    """Independent things behind the interval, or rows where there is none."""
    chance: float | None = None
    """What nothing at all would give."""
    remark: str = ""
    """A word or two that the index sets beside it: a verdict."""
    href: str = ""
    """Where it is told: ``"#anchor"`` on the report's page, or a page beside it."""
    shown: bool = True
    """Whether the index over the layers shows it."""
    own: bool = False
    """Whether its name means nothing outside of this study: latent 12 of one dictionary is not latent 12 of another."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What has to agree for two findings of two studies to be of the same thing."""
        return self.kind, self.name, self.site, self.measure

    @property
    def clear(self) -> bool:
        """Whether it (with an interval: all of that) lies above chance; True where there is no chance level."""
        least = self.value if self.low is None else self.low
        return self.chance is None or (least is not None and least > self.chance)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bearings:
    """Named vectors of one kind in one space."""

    kind: str
    """As in :class:`Finding`."""
    space: str
    """:data:`STREAM`, or the name of the only site where they live. Vectors are compared within one space."""
    site: str
    """Where they were found."""
    names: tuple[str, ...]
    vectors: Float[Tensor, "direction d"]
    hrefs: tuple[str, ...] = ()
    written: bool = False
    """Whether they are what a part adds to the space: then only sites behind it can hold them."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.names) != len(self.vectors):
            raise InputError(f"{len(self.names)} names for vectors of shape {list(self.vectors.shape)}")
        if self.hrefs and len(self.hrefs) != len(self.names):
            raise InputError(f"{len(self.names)} names but {len(self.hrefs)} links")

    def describe(self) -> dict[str, Any]:
        """All but the vectors, as JSON values."""
        return {
            "kind": self.kind, "space": self.space, "site": self.site, "names": list(self.names),
            "hrefs": list(self.hrefs), "written": self.written,
        }  # fmt: skip
