"""What a report holds, as plain JSON-able values: the page is drawn from nothing else.

A report is a dict: ``schema``, ``title``, ``subtitle``, ``created``, ``facts`` (label, value), ``warnings``, ``notes``,
``index``, ``sections``, ``provenance``. A section is what :func:`outcome` returns: ``name``, ``title``, ``status``,
``reason``, ``summary``, ``seconds``, ``expected``, ``plates``, ``tables``, ``numbers``, ``caveats``, ``leaves``,
``findings``. Numbers that JSON cannot hold (nan,
infinities) become None. Read next: ``page.py``.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from interp.errors import InputError
from interp.study.stations import Section

__all__ = ["SCHEMA", "STATUSES", "figure_json", "outcome", "plain", "report"]

SCHEMA = "interp-report/1"
STATUSES = {
    "done": "done",
    "skipped": "does not apply",
    "failed": "failed",
    "interrupted": "interrupted",
    "waiting": "not reached",
}
DIGITS = 7
"""Significant digits kept of a figure's coordinates; results themselves are kept whole."""
_LINK = re.compile(r"<(?=/?a[\s/>])", re.IGNORECASE)


def plain(value: Any, *, digits: int | None = None) -> Any:
    """``value`` in JSON's types: arrays as lists, nan and infinities as None, anything unknown by its text.

    ``digits`` rounds floats to so many significant digits.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        value = float(value)
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits=digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), digits=digits)
    if isinstance(value, Tensor):
        return plain(value.detach().tolist(), digits=digits)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), digits=digits)
    if isinstance(value, Iterable):
        return [plain(item, digits=digits) for item in value]
    return str(value)


def _unpacked(value: Any) -> Any:
    """Plotly's packed arrays (``{"dtype", "bdata", "shape"}``) as nested lists, so that the JSON twin can be read."""
    if isinstance(value, Mapping):
        if "bdata" in value and "dtype" in value:
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
            shape = value.get("shape")
            if isinstance(shape, str):
                shape = [int(size) for size in shape.split(",")]
            return array.reshape(shape).tolist() if shape else array.tolist()
        return {key: _unpacked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unpacked(item) for item in value]
    if isinstance(value, str):
        # Plotly reads a few tags in texts; a link is never ours, so one that a token brings stays text.
        return _LINK.sub("&lt;", value)
    return value


def figure_json(figure: Any) -> dict[str, Any]:
    """A plotly figure (or its dict) as ``{"data", "layout"}`` in plain JSON types, drawable without WebGL."""
    spec = figure if isinstance(figure, Mapping) else figure.to_plotly_json()
    if "data" not in spec:
        raise InputError(f"a figure has 'data' and 'layout', got {sorted(spec)}")
    spec = plain(_unpacked(spec), digits=DIGITS)
    for trace in spec["data"]:
        # WebGL traces compile code at run time, which the page's policy forbids; the plain ones look the same.
        trace["type"] = str(trace.get("type", "scatter")).removesuffix("gl")
    layout = {"height": _height(spec["data"]), **spec.get("layout", {})}
    return {"data": spec["data"], "layout": layout}


def _height(traces: Sequence[Mapping[str, Any]]) -> int:
    """Pixels: a heatmap grows with its rows, so that cells stay cells."""
    if traces and traces[0]["type"] == "heatmap":
        n_rows = len(traces[0].get("z") or ())
        return min(680, 120 + max(40, min(90, 260 // max(1, n_rows))) * n_rows)
    return 380


def outcome(
    name: str,
    title: str,
    *,
    status: str = "done",
    section: Section | None = None,
    reason: str = "",
    seconds: float | None = None,
    expected: float | None = None,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """One section of a report: what a station found, or why there is nothing to show.

    ``expected`` are the seconds that were foretold; ``folder`` is the report's own, to which links to pages beside it
    are relative.

    Raises
    ------
    InputError
        The status is unknown, or a status other than "done" comes without its reason; a page lies outside the
        report's folder; an anchor is not plain.
    """
    if status not in STATUSES:
        raise InputError(f"unknown status {status!r}; expected one of {', '.join(STATUSES)}")
    if (section is None) == (status == "done") or (status != "done" and not reason):
        raise InputError(f"section {name!r}: 'done' comes with a section, every other status with a reason")
    found = section or Section(name=name, title=title, summary="")
    return {
        "name": name,
        "title": found.title or title,
        "status": status,
        "reason": reason,
        "summary": found.summary,
        "seconds": seconds,
        "plates": [
            {
                "title": plate.title,
                "caption": plate.caption,
                "figure": figure_json(plate.figure),
                "anchor": _anchor(plate.anchor),
                "half": plate.half,
            }
            for plate in found.plates
        ],
        "tables": [
            {
                "title": table.title,
                "columns": list(table.columns),
                "rows": plain(table.rows),
                "caption": table.caption,
                "anchor": _anchor(table.anchor),
            }
            for table in found.tables
        ],
        "numbers": plain(found.numbers),
        "caveats": list(found.caveats),
        "expected": expected,
        "leaves": [
            {"title": leaf.title, "href": _beside(leaf.path, folder), "caption": leaf.caption}
            for leaf in found.leaves
        ],
        "findings": [{**plain(asdict(finding)), "clear": finding.clear} for finding in found.findings],
    }


def _anchor(name: str) -> str:
    if name and not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise InputError(f"an anchor is made of letters, digits, - and _, got {name!r}")
    return name


def _beside(path: Path, folder: str | Path | None) -> str:
    """The link from the report's page to a page in its folder."""
    if folder is None:
        return path.name
    home, there = Path(folder).resolve(), Path(path).resolve()
    if not there.is_relative_to(home):
        raise InputError(f"{path} lies outside the report's folder {folder}: a link to it would break")
    return there.relative_to(home).as_posix()


def report(
    title: str,
    *,
    sections: Sequence[Mapping[str, Any]],
    subtitle: str = "",
    facts: Sequence[tuple[str, Any]] = (),
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    index: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A whole report. ``facts`` are shown at the top, ``warnings`` and ``notes`` stand before the findings.

    ``index`` is the table over the layers that links the sections (:func:`interp.study.joining.joined`).
    """
    return {
        "schema": SCHEMA,
        "title": title,
        "subtitle": subtitle,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "facts": [[label, plain(value)] for label, value in facts],
        "warnings": list(warnings),
        "notes": list(notes),
        "index": plain(index),
        "sections": [dict(section) for section in sections],
        "provenance": plain({} if provenance is None else provenance),
    }
