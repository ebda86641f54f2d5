"""The page of a circuit report: one file that asks nothing of the network and draws everything itself.

The page gets the record with scores rounded to five digits (the JSON twin has them whole) in an escaped JSON block;
its one script, allowed by hash, draws from that and writes texts as text only. Without JavaScript its tables remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuits.telling.record import FEATURES, SCHEMA
from circuits.telling.text import edge_names
from interp.errors import InputError
from interp.pages import document
from interp.report.content import plain

__all__ = ["render"]

DIGITS = 5
SHOWN = 40
"""Edges in the table that is there without JavaScript."""


def render(record: Mapping[str, Any], *, twin: str = "") -> str:
    """The HTML of a record; ``twin`` is the name of the JSON file beside it.

    Raises
    ------
    InputError
        ``record`` is not of this schema.
    """
    if record.get("schema") not in (SCHEMA, FEATURES):
        raise InputError(f"expected a circuit report of schema {SCHEMA!r}, got {record.get('schema')!r}")
    return document.render(
        "circuits.telling",
        "circuit.html.j2",
        styles=("interp.report:style.css", "circuit.css"),
        scripts=("circuit.js",),
        record=record,
        drawn=_drawn(record),
        largest=_largest(record["graph"]),
        twin=twin,
    )


def _drawn(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the script draws from."""
    kept = ("graph", "nodes", "stability", "faithfulness", "calibration", "reference", "attention", "prompts")
    return plain({name: record[name] for name in kept}, digits=DIGITS)


def _largest(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = edge_names(graph)
    exact = dict(zip(graph["exact"]["edges"], graph["exact"]["values"], strict=True))
    ranked = sorted(graph["chosen"], key=lambda edge: -abs(graph["scores"][edge]))[:SHOWN]
    return [
        {
            "name": names[edge],
            "score": graph["scores"][edge],
            "stderr": None if graph["stderr"] is None else graph["stderr"][edge],
            "exact": exact.get(edge),
        }
        for edge in ranked
    ]
