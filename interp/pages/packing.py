"""Arrays as text inside a page: named columns in one block, bytes by significance, gzip, base64.

A block is a little-endian uint32, the length of a JSON header, the header, and the columns' bytes. Of a column with
more than one byte an entry, all lowest bytes come first, then all second ones: high bytes are nearly all alike, so
they compress to nothing. ``page.js`` reads it back.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["packed", "smallest", "unpacked"]

_TYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4", "int8": "i1", "float32": "f4"}


def smallest(values: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 on in the narrowest unsigned type that holds them."""
    most = int(values.max()) if values.size else 0
    for kind in ("uint8", "uint16", "uint32"):
        if most <= np.iinfo(kind).max:
            return values.astype(kind)
    raise OverflowError(f"{most} does not fit 32 bits")


def packed(columns: Mapping[str, np.ndarray], extra: Any = None) -> str:
    """Columns (and any JSON beside them) as base64 text."""
    header: dict[str, Any] = {"extra": extra, "columns": []}
    body = []
    for name, values in columns.items():
        flat = np.ascontiguousarray(values)
        kind = _TYPES[str(flat.dtype)]
        header["columns"].append([name, kind, list(flat.shape)])
        raw = flat.astype(flat.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, flat.dtype.itemsize)
        body.append(np.ascontiguousarray(raw.T).tobytes())
    head = json.dumps(header, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    whole = len(head).to_bytes(4, "little") + head + b"".join(body)
    return base64.b64encode(gzip.compress(whole, 9, mtime=0)).decode("ascii")


def unpacked(text: str) -> tuple[dict[str, np.ndarray], Any]:
    """What :func:`packed` was given."""
    whole = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(whole[:4], "little")
    header, place = json.loads(whole[4 : 4 + length]), 4 + length
    columns = {}
    for name, kind, shape in header["columns"]:
        dtype = np.dtype("<" + kind)
        n = int(np.prod(shape))
        raw = np.frombuffer(whole, np.uint8, n * dtype.itemsize, place).reshape(dtype.itemsize, n)
        columns[name] = np.ascontiguousarray(raw.T).view(dtype).reshape(shape)
        place += n * dtype.itemsize
    return columns, header["extra"]
