"""Texts from models and files, made safe for the format they go into; every exporter's one home of escaping.

A token is data: whatever it holds, it may not become markup, a link, a formula, a command to a terminal, or a change
of the reading direction. :func:`visible` comes first in every text format: it shows what would act without being seen.
Read next: ``interp/pages/document.py``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "cell",
    "code",
    "csv_text",
    "dot",
    "encodable",
    "figure_text",
    "markdown",
    "script_json",
    "shown",
    "visible",
    "xml",
]

_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_PICTURES = {
    "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
    "\x7f": "\u2421",
}
_MARKUP = re.compile(
    r"([\\`*_{}\[\]<>()#+!|~&$@-]|(?i:(?<=www)\.)|:(?=//))"
)  # readers link bare addresses, too
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_QUOTED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def visible(text: Any, *, keep: str = "") -> str:
    """``text`` on one line of characters that can be seen: what a terminal would obey is shown, not sent.

    Line ends, tabs and other C0 controls become their pictures (U+21B5, U+21E5, U+2400 and on); other controls,
    direction marks, zero-width characters, line separators, lone surrogates and unassigned code points their number,
    as ``\\u202e``. ``keep`` names characters that pass as they are.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _seen(c) for c in text)


def _seen(c: str) -> str:
    if c in _PICTURES:
        return _PICTURES[c]
    code = ord(c)
    if code < 0x20:
        return chr(0x2400 + code)
    if unicodedata.category(c) == "Zs":
        return c
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def encodable(text: Any) -> str:
    """``text`` as it is but for lone surrogates, which no file or table holds: they are shown by their number."""
    text = str(text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(_seen(c) if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def shown(value: Any) -> Any:
    """JSON-able ``value`` with every text in it :func:`visible`; line ends and tabs stay."""
    if isinstance(value, str):
        return visible(value, keep="\n\t")
    if isinstance(value, Mapping):
        return {shown(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value


def script_json(value: Any) -> str:
    """JSON that is safe inside ``<script type="application/json">``: no character of it can end the block."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_SCRIPT)


def markdown(text: Any) -> str:
    """``text`` as Markdown that means nothing but itself: no emphasis, markup, cell, link or heading comes of it."""
    return _MARKUP.sub(r"\\\1", visible(text))


def code(text: Any) -> str:
    """``text`` as a code span of Markdown, in a table too."""
    text = visible(text).replace("|", "\N{BROKEN BAR}")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def xml(text: Any) -> str:
    """``text`` for XML, also between quotes; characters that XML 1.0 forbids are shown by their number."""
    return visible(text).translate(_QUOTED)


def dot(text: Any) -> str:
    """``text`` inside a quoted string of DOT: escapes such as ``\\N`` and entities stay text."""
    return visible(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def cell(value: Any) -> Any:
    """A cell of CSV that no spreadsheet takes for a formula: a text that begins like one gets ``'`` before it."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    first = unicodedata.normalize("NFKC", text.lstrip()[:1])  # a wide sign counts in some locales
    return f"'{text}" if first in ("=", "+", "-", "@") else text


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV with a header line, texts as :func:`cell` gives them."""
    safe = table.astype(object).map(cell).rename(columns=cell)
    return safe.to_csv(index=False, lineterminator="\n")


def figure_text(text: Any) -> str:
    """``text`` in a plotly figure, which reads a small set of tags: tokens and names are data."""
    return visible(text, keep="\n").translate(_ENTITIES)
