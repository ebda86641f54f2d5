"""The nouns of a comparison: its two sides, in what they differ, and the figures that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["DIFFERS", "SAME", "UNKNOWN", "WITHIN", "Hurdle", "Row", "Side"]

SAME, WITHIN, DIFFERS, UNKNOWN = "the same", "within error", "differs", "no interval"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One of the two studies."""

    name: str
    folder: Path
    report: Mapping[str, Any] = field(repr=False)
    failed: tuple[str, ...] = ()
    """Stations that failed in a study that was run for the comparison."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the study came to be."""
        return self.report["provenance"]

    @property
    def n_layers(self) -> int | None:
        """Blocks of the model."""
        return dict(self.report["facts"]).get("Layers")

    def findings(self) -> dict[tuple[str, str, str, str], Mapping[str, Any]]:
        """What was found, by what it is of."""
        every = [f for section in self.report["sections"] for f in section.get("findings", ())]
        return {(f["kind"], f["name"], f["site"], f["measure"]): f for f in every}

    def store(self) -> Any:
        """The activations of the study; see :func:`interp.open_store`."""
        from interp.stores.opening import open_store

        return open_store(self.acts)

    @property
    def acts(self) -> Path:
        """Where the activations lie, if they were kept."""
        earlier = self.provenance.get("tokens_sha256")  # reports of before the model was in the name
        return self.folder / "acts" / str(self.provenance.get("acts_sha256", earlier))[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurdle:
    """Something in which the studies differ, and what cannot be compared for it."""

    what: str
    a: str
    b: str
    stops: str
    """``"differences"``: no figure is subtracted from another; ``"similarity"``: no CKA; ``"sites"``: no figure of a
    site is; ``"probe"``: none of a probe is; ``""``: worth knowing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that both studies measured, or only one of them."""

    kind: str
    name: str
    site: str
    measure: str
    a: float | None
    b: float | None
    difference: float | None = None
    """b - a, where that is allowed."""
    low: float | None = None
    high: float | None = None
    """Its 95% interval, from those of the two by squares, as if they were independent (they share tokens: too wide)."""
    verdict: str = ""
    """``"the same"`` to the last bit, ``"within error"``, ``"differs"``, ``"no interval"``, or why there is none."""
    clear_a: bool = False
    clear_b: bool = False
