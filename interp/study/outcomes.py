"""What the main job leaves behind: the report's files, and the figures of every station as tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.pages import document
from interp.runs.files import ensure_folder
from interp.showing import Shown, brief

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Analysis"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis(Shown):
    """A study that was run: where its report is, and what is in it."""

    html: Path
    json: Path
    sections: tuple[Mapping[str, Any], ...]
    interrupted: bool = False

    def _facts(self) -> dict[str, Any]:
        said: dict[str, Any] = {"page": self.html, "interrupted": self.interrupted}
        return said | {section["name"]: section["status"] for section in self.sections}

    def _repr_html_(self) -> str:
        return document.frame_file(self.html, height=900, title="report") or Shown._repr_html_(self)

    @property
    def folder(self) -> Path:
        """Where everything lies: report, activations, the stations' own files."""
        return self.html.parent

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the stations that failed."""
        return tuple(section["name"] for section in self.sections if section["status"] == "failed")

    @property
    def results(self) -> dict[str, Any]:
        """Station -> its numbers, each with its n, convention and uncertainty; stations that are done only."""
        return {s["name"]: s["numbers"] for s in self.sections if s["status"] == "done"}

    def to_frame(self) -> pd.DataFrame:
        """Every finding as a row: station, kind, name, site, measure, value, low, high, chance, n."""
        import pandas as pd

        columns = ("kind", "name", "site", "measure", "value", "low", "high", "chance", "n")
        rows = [
            {"station": section["name"], **{column: finding[column] for column in columns}}
            for section in self.sections
            for finding in section.get("findings", ())
        ]
        return pd.DataFrame(rows, columns=["station", *columns])

    def save(self, path: str | Path) -> Path:
        """Copy the report and its pages into the folder ``path`` (not the activations); return the page's path."""
        home = ensure_folder(path)
        for file in (self.json, self.html):
            shutil.copy2(file, home / file.name)
        for section in self.sections:
            for leaf in section.get("leaves", ()):
                there = home / leaf["href"]
                ensure_folder(there.parent)
                shutil.copy2(self.folder / leaf["href"], there)
        return home / self.html.name

    def __repr__(self) -> str:
        states = ", ".join(f"{section['name']} {section['status']}" for section in self.sections)
        return f"Analysis({brief(self.html)!r}: {brief(states)})"
