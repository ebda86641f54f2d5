"""What was found in a group network: every measure, with its figures and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circuits.groups.measures import Measures
from circuits.groups.page import section_of, write_page

if TYPE_CHECKING:
    from interp.study.stations import Section

__all__ = ["GroupReading"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GroupReading(Measures):
    """The algorithm of a group network. ``value`` is the logit similarity of each irrep, ``chance`` a lookup table's.

    What could not be measured is missing from its mapping and has its reason in :attr:`absent`.
    """

    def section(self) -> Section:
        """The finding with its figures and tables, as a station of the main job hands it back."""
        return section_of(self)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained page, and the same as JSON beside it (``<name>.json``)."""
        return write_page(self, path)
