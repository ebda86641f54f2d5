"""plotly.js as one string that a page can carry: compressed once, and named by its hash for the page's policy."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
from dataclasses import dataclass

__all__ = ["Bundle", "plotly_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A script that a page inflates and runs by itself, without a network."""

    version: str
    packed: str
    """base64 of the gzip'd source: 2 MB instead of 4.8."""
    csp_hash: str
    """``sha256-...`` of the inflated source, as Content-Security-Policy writes it."""


@functools.cache
def plotly_bundle() -> Bundle:
    """The plotly.js that the installed plotly ships. Cost: about half a second, once per process."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    source = get_plotlyjs().encode("utf-8")
    digest = base64.b64encode(hashlib.sha256(source).digest()).decode("ascii")
    # mtime=0: the same plotly gives the same page, byte for byte.
    packed = base64.b64encode(gzip.compress(source, 9, mtime=0)).decode("ascii")
    return Bundle(version=get_plotlyjs_version(), packed=packed, csp_hash=f"sha256-{digest}")
