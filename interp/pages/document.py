"""One HTML file that needs nothing else: its head, its policy, its style and script, and the frame it shows in.

The Content-Security-Policy names the scripts by hash and forbids every request. Whatever came from a model or a text
reaches a page through autoescaped templates or escaped JSON blocks (``interp/escaping.py``), its controls and
direction marks made visible.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from interp.escaping import script_json, shown, visible
from interp.runs.files import write_bytes_atomic

__all__ = ["csp_hash", "frame", "frame_file", "render", "write"]


def csp_hash(source: str) -> str:
    """How a Content-Security-Policy names a script that may run: by the hash of its text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def render(
    package: str,
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    allowed: Sequence[str] = (),
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """A page from a template of ``package`` that extends ``page.html.j2``.

    Parameters
    ----------
    styles, scripts
        Files of ``package`` (or ``"another.package:file"``), put behind the shared ``base.css`` and ``page.js`` in
        this order.
    allowed
        Hashes of further scripts, which are plotly's: it writes style attributes, so these are then allowed too.
    filters
        For the template, besides ``json`` (an escaped block) and ``flat`` (nested values as rows).
    values
        For the template.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("interp.pages", ".")]),
        autoescape=True,  # always: the templates' names do not end in .html
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    environment.filters["json"] = _block
    environment.filters["flat"] = _flat
    environment.filters.update(filters or {})
    style = _joined("base.css", package, styles)
    script = _joined("page.js", package, scripts)
    hashes = [csp_hash(script), *allowed]
    return environment.get_template(template).render(
        style=style,
        script=script,
        script_src=" ".join(f"'{value}'" for value in hashes),
        style_src="'unsafe-inline'" if allowed else f"'{csp_hash(style)}'",
        **values,
    )


def _joined(shared: str, package: str, names: Sequence[str]) -> str:
    places = [f"interp.pages:{shared}", *(name if ":" in name else f"{package}:{name}" for name in names)]
    parts = [place.split(":") for place in places]
    return "".join((resources.files(home) / name).read_text("utf-8") for home, name in parts)


def _seen(value: Any) -> Any:
    return (
        visible(value, keep="\n\t") if type(value) is str else value
    )  # what is marked as safe is another type


def _block(value: Any) -> Any:
    from markupsafe import Markup

    return Markup(script_json(shown(value)))  # noqa: S704  (escaped by script_json)


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as (dotted name, value) rows."""
    if isinstance(value, Mapping) and value:
        return [row for key, item in value.items() for row in _flat(item, f"{prefix}{key}.")]
    return [(prefix.removesuffix("."), value)]


def frame(page: str, *, height: int, title: str = "") -> str:
    """A page shut into a frame of a notebook: its script runs, but reaches neither the notebook nor the network."""
    inside = html.escape(page.encode("utf-8", errors="replace").decode("utf-8"), quote=True)
    named = html.escape(visible(title), quote=True)
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{inside}" title="{named}" width="100%" height="{int(height)}" '
        'style="border:0"></iframe>'
    )


FRAMED = 24 * 2**20
"""Bytes of a page that a notebook still carries."""


def frame_file(path: Path, *, height: int, title: str = "") -> str | None:
    """The page in a file as :func:`frame`; None where the file is gone, or too large to be carried along."""
    if not path.is_file() or path.stat().st_size > FRAMED:
        return None
    return frame(path.read_text("utf-8"), height=height, title=title)


def write(path: str | Path, page: str) -> Path:
    """Write a page whole or not at all, its folder too where that is missing; what cannot be encoded becomes ``?``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, page.encode("utf-8", errors="replace"))
    return path
