"""What a finished station leaves for a later run and for the joins: its section as JSON, its vectors beside it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp.errors import StoreError
from interp.runs.files import read_json, write_bytes_atomic, write_json_atomic
from interp.study.findings import Bearings

__all__ = ["file_name", "keep", "kept"]

logger = logging.getLogger(__name__)


def file_name(name: str) -> str:
    """A station's name as a file's: itself if it is plain, else a hash of it."""
    plain = len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if plain and name else hashlib.sha256(name.encode()).hexdigest()[:16]


def keep(path: Path, key: str, section: dict[str, Any], bearings: Sequence[Bearings]) -> None:
    """Write a section; the vectors first, so that a section on disk always has them."""
    if bearings:
        from safetensors.torch import save

        tensors = {str(i): b.vectors.detach().float().cpu().contiguous() for i, b in enumerate(bearings)}
        write_bytes_atomic(path.with_suffix(".safetensors"), save(tensors))
    write_json_atomic(path, {"key": key, "section": section, "bearings": [b.describe() for b in bearings]})


def kept(path: Path, key: str) -> tuple[dict[str, Any], tuple[Bearings, ...]] | None:
    """A section and its bearings that an earlier run left under the same key; None where there are none to use."""
    if not path.is_file():
        return None
    try:
        record = read_json(path)
        if not isinstance(record, dict) or record.get("key") != key:
            return None
        return record["section"], _bearings(path.with_suffix(".safetensors"), record.get("bearings", []))
    except (StoreError, KeyError, TypeError) as error:
        logger.warning("%s; it is computed anew", error)
        return None


def _bearings(path: Path, described: Sequence[dict[str, Any]]) -> tuple[Bearings, ...]:
    if not described:
        return ()
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
        found = tuple(
            Bearings(
                kind=one["kind"],
                space=one["space"],
                site=one["site"],
                names=tuple(one["names"]),
                hrefs=tuple(one["hrefs"]),
                written=one["written"],
                vectors=tensors[str(i)],
            )  # fmt: skip
            for i, one in enumerate(described)
        )
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise StoreError(f"cannot read the vectors {path}: {error}") from error
    if not all(bool(torch.isfinite(one.vectors).all()) for one in found):
        raise StoreError(f"the vectors {path} are not finite")
    return found
