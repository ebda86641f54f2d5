"""Render a report as one HTML file that needs nothing else: no network, no server, no second file.

The page carries its style, its one script and plotly.js (compressed) and lets nothing else run: its
Content-Security-Policy names the scripts by hash and forbids every request. Whatever came from a model or a text
reaches it through autoescaped templates or escaped JSON blocks. Without JavaScript, text and tables remain.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.errors import InputError, StoreError
from interp.pages import document
from interp.plots.bundle import plotly_bundle
from interp.report.content import SCHEMA, STATUSES
from interp.runs.files import write_bytes_atomic

__all__ = ["read", "render", "write"]

MAX_BYTES = 512 * 2**20
"""The largest report.json that :func:`read` opens."""


def _number(value: Any) -> str:
    """A table cell as text; floats with four significant digits (the exact value stays in the cell's data)."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_number(item) for item in value)
    return str(value)


def _exact(value: Any) -> str:
    """A recorded value to be copied as it is."""
    if isinstance(value, list):
        return ", ".join(_exact(item) for item in value)
    return "\N{EN DASH}" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


_INNER = re.compile(r"#[\w=.-]+|[\w./-]+(#[\w=.-]+)?", re.ASCII)


def _href(link: str) -> str:
    """A link on this page or to a page beside it; anything else, such as an address with a scheme, is dropped."""
    return link if _INNER.fullmatch(link) and not link.startswith("/") and ".." not in link else ""


def _whole(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with what reports of earlier versions lack."""
    new = {"leaves": (), "expected": None, "findings": ()}
    sections = [
        {
            **new,
            **section,
            **{k: [{"anchor": "", "half": False, **one} for one in section[k]] for k in ("plates", "tables")},
        }
        for section in report["sections"]
    ]
    return {"index": None, **report, "sections": sections}


def render(report: Mapping[str, Any], *, twin: str = "") -> str:
    """The page of a report. ``twin`` is the name of the JSON file beside it, if there is one.

    Raises
    ------
    InputError
        ``report`` is not of this schema.
    """
    if report.get("schema") != SCHEMA:
        raise InputError(f"expected a report of schema {SCHEMA!r}, got {report.get('schema')!r}")
    report = _whole(report)
    bundle = plotly_bundle() if any(section["plates"] for section in report["sections"]) else None
    return document.render(
        "interp.report",
        "template.html.j2",
        styles=("style.css",),
        scripts=("report.js",),
        allowed=[bundle.csp_hash] if bundle else [],
        filters={"number": _number, "exact": _exact, "duration": _duration, "href": _href},
        report=report,
        statuses=STATUSES,
        bundle=bundle,
        twin=twin,
        numeric=_is_number,
    )


def write(
    report: Mapping[str, Any], folder: str | os.PathLike[str], *, name: str = "report"
) -> tuple[Path, Path]:
    """Write ``name.json`` and ``name.html`` into ``folder``, each whole or not at all; return (html, json)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    html, twin = folder / f"{name}.html", folder / f"{name}.json"
    # Not sorted: the order of the fields is the order on the page.
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_bytes_atomic(twin, text.encode("utf-8", errors="backslashreplace") + b"\n")
    document.write(html, render(report, twin=twin.name))
    return html, twin


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A report from its JSON twin.

    Raises
    ------
    StoreError
        The file is missing, too large, not JSON, or no report.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StoreError(f"{path} is larger than {MAX_BYTES} bytes: not a report of ours")
        report = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the report {path}: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise StoreError(f"{path} is no report of schema {SCHEMA!r}")
    return report
