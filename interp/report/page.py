"""Render a report as one HTML file that needs nothing else: no network, no server, no second file.

The page carries its style, its one script and plotly.js (compressed) and lets nothing else run: its
Content-Security-Policy names the scripts by hash and forbids every request. Whatever came from a model or a text
reaches it through autoescaped templates or escaped JSON blocks. Without JavaScript, text and tables remain.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from interp.errors import InputError, StoreError
from interp.plots.bundle import plotly_bundle
from interp.report.content import SCHEMA, STATUSES
from interp.runs.files import write_bytes_atomic

__all__ = ["csp_hash", "read", "render", "script_json", "write"]

MAX_BYTES = 512 * 2**20
"""The largest report.json that :func:`read` opens."""
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def script_json(value: Any) -> str:
    """JSON that is safe inside ``<script type="application/json">``: no character of it can end the block."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


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


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested numbers as (dotted name, value) rows."""
    if isinstance(value, Mapping) and value:
        return [row for key, item in value.items() for row in _flat(item, f"{prefix}{key}.")]
    return [(prefix.removesuffix("."), value)]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def csp_hash(source: str) -> str:
    """How a Content-Security-Policy names a script that may run: by the hash of its text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def render(report: Mapping[str, Any], *, twin: str = "") -> str:
    """The page of a report. ``twin`` is the name of the JSON file beside it, if there is one.

    Raises
    ------
    InputError
        ``report`` is not of this schema.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if report.get("schema") != SCHEMA:
        raise InputError(f"expected a report of schema {SCHEMA!r}, got {report.get('schema')!r}")
    environment = Environment(
        loader=PackageLoader("interp.report", "."),
        autoescape=True,  # always: the template's name does not end in .html
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, exact=_exact, flat=_flat, duration=_duration, json=script_json)
    environment.tests["numeric"] = _is_number
    folder = resources.files("interp.report")
    script = (folder / "page.js").read_text("utf-8")
    bundle = plotly_bundle() if any(section["plates"] for section in report["sections"]) else None
    allowed = [csp_hash(script), *([bundle.csp_hash] if bundle else [])]
    return environment.get_template("template.html.j2").render(
        report=report,
        statuses=STATUSES,
        style=(folder / "style.css").read_text("utf-8"),
        script=script,
        bundle=bundle,
        script_src=" ".join(f"'{value}'" for value in allowed),
        twin=twin,
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
    write_bytes_atomic(html, render(report, twin=twin.name).encode("utf-8", errors="replace"))
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
