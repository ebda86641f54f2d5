"""Moments on disk: one safetensors file of float64 sums, its header the configuration as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch

from interp.errors import InputError, StoreError
from interp.moments.accumulator import Accumulator
from interp.moments.config import MomentsConfig
from interp.moments.sums import Sums, empty

__all__ = ["load", "save"]

M = TypeVar("M", bound=Accumulator)

SCHEMA = 1
_HEADER = "interp_moments"


def _label(part: int, key: tuple[str, ...], config: MomentsConfig) -> str:
    """A key as a tensor name: sites by their number, so that no name from outside matters."""
    where = [str(config.sites.index(site)) for site in key[1:]]
    return "/".join([str(part), key[0], *where])


def save(moments: Accumulator, path: str | Path) -> Path:
    """Write everything, atomically."""
    from safetensors.torch import save as pack

    from interp.runs.files import write_bytes_atomic

    path = Path(path)
    config = moments.config
    tensors = {
        _label(i, key, config): value.contiguous().cpu()
        for i, part in enumerate(moments.parts)
        for key, value in part.table.items()
    }
    if moments.n:
        tensors |= {f"shift/{i}": moments.shift[site].cpu() for i, site in enumerate(config.sites)}
    head = {"schema": SCHEMA, "config": config.record(), "dropped": moments.dropped,
            "chunks": moments._n_chunks, "blocks": moments._n_blocks}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, pack(tensors, metadata={_HEADER: json.dumps(head)}))
    return path


def load(path: str | Path, kind: type[M]) -> M:
    """Read it back as a ``kind``; every sum must be there, of its shape, finite."""
    path = Path(path)
    head, tensors = _read(path)
    try:
        config = MomentsConfig.from_record(head["config"])
        moments = kind.__new__(kind)
        moments._begin(config, None, torch.device("meta"))  # nothing is allocated on a file's word
        moments.dropped, moments._n_chunks, moments._n_blocks = (
            head["dropped"],
            head["chunks"],
            head["blocks"],
        )
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise StoreError(f"{path} holds no valid configuration: {error}") from error
    shape = empty(config, torch.device("meta")).table
    for i in range(config.parts):
        table = {}
        for key, like in shape.items():
            name = _label(i, key, config)
            value = tensors.pop(name, None)
            if value is None or value.shape != like.shape or value.dtype != torch.float64:
                raise StoreError(
                    f"{path} does not fit its configuration: sum {name!r} of {key} is missing or odd"
                )
            table[key] = value
        moments._parts[i] = Sums(table)
    if moments.n:
        shifts = {}
        for j, (site, d) in enumerate(zip(config.sites, config.widths, strict=True)):
            shift = tensors.pop(f"shift/{j}", None)
            if shift is None or shift.shape != (d,) or shift.dtype != torch.float64:
                raise StoreError(
                    f"{path} does not fit its configuration: the origin of {site} is missing or odd"
                )
            shifts[site] = shift
        moments._shift = shifts
    held = [v for part in moments._parts for v in part.table.values()] + list((moments._shift or {}).values())
    if tensors or not all(bool(torch.isfinite(v).all()) for v in held):
        raise StoreError(f"{path} holds {'foreign tensors' if tensors else 'sums that are not finite'}")
    return moments


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StoreError(f"no moments at {path}")
    try:
        with torch.inference_mode(False), safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if head["schema"] != SCHEMA:
            raise StoreError(f"{path} has moments schema {head['schema']!r}; this version reads {SCHEMA}")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is no moments file of this toolkit, or it is torn: {error}") from error
    return head, tensors
