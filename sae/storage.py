"""Coders on disk: a folder with ``coder.safetensors`` and ``coder.json``, written so that a torn one is told apart.

The JSON is written last and names the SHA-256 of the weights; a folder whose two halves do not belong together is
refused. No pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from interp.errors import InputError, StoreError
from interp.runs.checkpoints import read_tensors
from interp.runs.files import read_json, sha256_file, write_bytes_atomic, write_json_atomic
from sae.coder import Coder
from sae.foreign import read_foreign
from sae.rules import RULES
from sae.wiring import WIRINGS

__all__ = ["FORMATS", "load", "save"]

SCHEMA = 1
FORMATS = ("native",)
_WEIGHTS, _CARD = "coder.safetensors", "coder.json"


def save(
    coder: Coder, path: str | Path, *, format: str = "native", provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write ``coder`` to the folder ``path``.

    Raises
    ------
    InputError
        The format is unknown.
    StoreError
        The folder cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not known; it is one of {list(FORMATS)}")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    weights = {name: value.detach().cpu().contiguous() for name, value in coder.state_dict().items()}
    write_bytes_atomic(folder / _WEIGHTS, save_tensors(weights))
    card = {
        "format": "interp-toolkit coder",
        "schema": SCHEMA,
        "kind": coder.kind,
        "d_in": coder.d_in,
        "d_sae": coder.d_sae,
        "k": coder.k,
        "make": coder.make(),
        "dtype": str(coder.W_dec.dtype).removeprefix("torch."),
        "sha256": sha256_file(folder / _WEIGHTS),
        "provenance": dict(provenance or {}),
    }
    write_json_atomic(folder / _CARD, card)
    return folder


def load(path: str | Path) -> Coder:
    """The coder in the folder ``path``: one of :func:`save`, a run's folder, or one of SAELens or sparsify.

    Raises
    ------
    StoreError
        Missing, foreign, torn or damaged; the message names the file.
    """
    folder = Path(path)
    if not (folder / _CARD).is_file() and (folder / "coder" / _CARD).is_file():
        folder = folder / "coder"
    if not (folder / _CARD).is_file():
        if (other := read_foreign(folder)) is not None:
            return other
        raise StoreError(f"{folder} holds no {_CARD}: it is no coder of this toolkit")
    card = _checked(read_json(folder / _CARD), folder / _CARD)
    if sha256_file(folder / _WEIGHTS) != card["sha256"]:
        raise StoreError(f"{folder / _WEIGHTS} is not what {_CARD} describes: torn or changed")
    tensors = read_tensors(folder / _WEIGHTS)
    coder = _made(card, folder / _CARD)
    return fill(coder, tensors, folder / _WEIGHTS)


def _made(card: Mapping[str, Any], path: Path) -> Coder:
    """An untrained coder of the size and make that the card describes."""
    make = card.get("make", {})
    checks = {
        "kind": lambda v: v == card["kind"],
        "wiring": lambda v: v in WIRINGS,
        "d_out": lambda v: type(v) is int and 0 < v < 2**31,
        "n_sites": lambda v: type(v) is int and 0 < v < 2**16,
        "centred": lambda v: type(v) is bool,
        "bandwidth": lambda v: type(v) is float and 0 < v < 1e6,
    }
    if not isinstance(make, dict) or any(
        name not in checks or not checks[name](v) for name, v in make.items()
    ):
        raise StoreError(f"{path} describes a coder that cannot be: {make!r}")
    options = {"kind": card["kind"]} | make
    try:
        return Coder(card["d_in"], card["d_sae"], card["k"], dtype=getattr(torch, card["dtype"]), **options)
    except InputError as error:
        raise StoreError(f"{path} describes a coder that cannot be: {error}") from error


def fill(coder: Coder, tensors: Mapping[str, Tensor], path: Path) -> Coder:
    """Put ``tensors`` into ``coder`` after checking names, shapes, types and finiteness."""
    wanted = coder.state_dict()
    if set(tensors) != set(wanted):
        raise StoreError(f"{path} holds {sorted(tensors)}; a coder has {sorted(wanted)}")
    for name, value in tensors.items():
        want = wanted[name]
        if value.shape != want.shape or value.dtype != want.dtype:
            raise StoreError(
                f"{path}: {name} is {value.dtype} {list(value.shape)}; expected {want.dtype} {list(want.shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise StoreError(f"{path}: {name} holds NaN or infinity")
    coder.load_state_dict(dict(tensors))
    return coder


def _checked(card: Any, path: Path) -> dict[str, Any]:
    if not isinstance(card, dict) or card.get("format") != "interp-toolkit coder":
        raise StoreError(f"{path} does not describe a coder of this toolkit")
    if card.get("schema") != SCHEMA:
        raise StoreError(f"{path} has schema {card.get('schema')!r}; this version reads {SCHEMA}")
    sizes = [card.get(name) for name in ("d_in", "d_sae", "k")]
    if any(type(size) is not int or not 0 < size < 2**31 for size in sizes) or card["k"] > card["d_sae"]:
        raise StoreError(f"{path} gives impossible sizes: d_in, d_sae, k = {sizes}")
    if card.get("kind") not in RULES or card.get("dtype") not in (
        "float32",
        "float64",
        "bfloat16",
        "float16",
    ):
        raise StoreError(
            f"{path} names an unknown kind or dtype: {card.get('kind')!r}, {card.get('dtype')!r}"
        )
    return card
