"""The page of a circuit report: one file that asks nothing of the network and draws everything itself.

The page gets the record with scores rounded to five digits (the JSON twin has them whole) in an escaped JSON block;
its one script, allowed by hash, draws from that and writes texts as text only. Without JavaScript its tables remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from circuits.telling.record import FEATURES, SCHEMA
from circuits.telling.text import edge_names
from interp.errors import InputError
from interp.report.content import plain
from interp.report.page import csp_hash, script_json

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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if record.get("schema") not in (SCHEMA, FEATURES):
        raise InputError(f"expected a circuit report of schema {SCHEMA!r}, got {record.get('schema')!r}")
    environment = Environment(
        loader=PackageLoader("circuits.telling", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = script_json
    environment.filters["flat"] = _flat
    own = resources.files("circuits.telling")
    script = (own / "circuit.js").read_text("utf-8")
    style = (resources.files("interp.report") / "style.css").read_text("utf-8")
    return environment.get_template("circuit.html.j2").render(
        record=record,
        drawn=_drawn(record),
        largest=_largest(record["graph"]),
        style=style + (own / "circuit.css").read_text("utf-8"),
        script=script,
        script_src=f"'{csp_hash(script)}'",
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


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [row for key, item in value.items() for row in _flat(item, f"{prefix}{key}.")]
    return [(prefix.removesuffix("."), value)]
