"""Objects that say what they are: one line for ``print``, a small table at the end of a notebook's cell.

A class inherits :class:`Shown` and says its facts, label by label; the line and the table are made here and nowhere
else, from texts that are made visible and escaped. A dataclass says its fields unless it says better.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Shown", "brief", "table_html"]

LONGEST = 300
"""Characters of a line."""
WORDS = 80
"""Characters of one text in it."""
ROWS = 20
"""Rows of a table that a notebook shows."""


class Shown:
    """Says its facts; the rest follows."""

    __slots__ = ()

    def _facts(self) -> dict[str, Any]:
        """What there is to say, by label; values of any kind, said by :func:`brief`."""
        if is_dataclass(self):
            return {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        return {}

    def _listing(self) -> pd.DataFrame | None:
        """A table to stand below the facts in a notebook, its first rows at least."""
        return None

    def __repr__(self) -> str:
        said = ", ".join(f"{label}: {brief(value)}" for label, value in self._facts().items())
        return _cut(f"{type(self).__name__}({said})", LONGEST)

    def _repr_html_(self) -> str:
        return table_html(type(self).__name__, self._facts(), self._listing())


def brief(value: Any) -> str:
    """A few words for any value: never the content of an array, a collection or a model."""
    if value is None or isinstance(value, bool):
        return {None: "\N{EN DASH}", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, str | int | Path):
        return _cut(visible(value), WORDS)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if isinstance(value, Mapping):
        return _pairs(value) if value else "none"
    if isinstance(value, Sequence):
        return _several(value) if len(value) else "none"
    if isinstance(value, Shown) or type(value).__str__ is object.__str__ or hasattr(value, "parameters"):
        return type(value).__name__
    return _cut(visible(value), WORDS)


def _several(items: Sequence[Any]) -> str:
    if all(isinstance(item, str | int | float) or type(item).__name__ == "Site" for item in items[:3]):
        shown = ", ".join(
            _cut(brief(item if isinstance(item, int | float) else str(item)), 24) for item in items[:3]
        )
        return shown if len(items) <= 3 else f"{len(items)} ({shown}, ...)"
    return f"{len(items)} of {type(items[0]).__name__}"


def _pairs(value: Mapping[Any, Any]) -> str:
    if len(value) <= 4 and all(isinstance(item, bool | int | float | None) for item in value.values()):
        return ", ".join(f"{_cut(visible(key), 24)} {brief(item)}" for key, item in value.items())
    return _several(list(map(str, value)))


def _array(value: Any) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    if getattr(value, "ndim", 1) == 0:
        return brief(value.item())
    place = getattr(value, "device", "cpu")
    return f"{kind} {list(value.shape)}" + ("" if str(place) == "cpu" else f" on {place}")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def table_html(name: str, facts: Mapping[str, Any], rows: pd.DataFrame | None = None) -> str:
    """The table of a notebook: a name, a line per fact, and the first rows of a frame."""
    cell = 'style="text-align:left;vertical-align:top"'
    lines = "".join(
        f"<tr><th {cell}>{_safe(label)}</th><td {cell}>{_safe(brief(value))}</td></tr>"
        for label, value in facts.items()
    )
    made = f"<div><p><b>{_safe(name)}</b></p><table>{lines}</table>"
    if rows is not None:
        first = rows.head(ROWS).astype(object).map(_cell).rename(columns=visible)
        made += first.to_html(index=False, escape=True, border=0)
        if len(rows) > ROWS:
            made += f"<p>{ROWS} of {len(rows)} rows</p>"
    return made + "</div>"


def _cell(value: Any) -> Any:
    return brief(value) if isinstance(value, str | float | list | tuple) else value


def _safe(text: str) -> str:
    return html.escape(visible(text), quote=True)
