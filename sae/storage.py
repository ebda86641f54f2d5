"""Coders on disk: ours, a folder with ``coder.safetensors`` and ``coder.json``, and those of other libraries.

What is written is written so that a torn folder is told apart: the JSON comes last and names the SHA-256 of the
weights and bears a check of itself (``interp.json`` beside another library's files does the same for each of them). A
folder whose parts do not belong together is refused. No pickle. Other libraries' formats: ``formats/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from interp.errors import InputError, StoreError, nearest
from interp.runs.checkpoints import read_tensors
from interp.runs.files import (
    ensure_folder,
    json_bytes,
    read_json,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from interp.stores.manifest import sealed, unsealed
from sae.coder import Coder
from sae.formats import FOREIGN, files, recognised
from sae.formats.assembly import DTYPES, assembled, card_of, dtype_name
from sae.rules import RULES
from sae.wiring import WIRINGS

__all__ = ["FORMATS", "load", "save"]

SCHEMA = 2
FORMATS = ("native", *FOREIGN)
_WEIGHTS, _CARD, _SEAL = "coder.safetensors", "coder.json", "interp.json"


def save(
    coder: Coder, path: str | Path, *, format: str = "native", provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write ``coder`` to the folder ``path``.

    Parameters
    ----------
    format
        One of ``sae.storage.FORMATS``. A foreign one is what its library reads; b_dec is folded into the encoder's bias
        where the format has it off the rows, or on them, and batch top-k becomes a threshold.
    provenance
        JSON-able. ``"model"``, ``"site"`` and ``"target"`` go where a foreign format has a place for them.

    Raises
    ------
    InputError
        The format is unknown or has no words for this coder (the message says which have), the folder already holds a
        coder of another format or cannot be written to, or ``provenance`` is no JSON.
    StoreError
        The disk is full.
    """
    if format not in FORMATS:
        raise InputError(
            f"format {format!r} is not known; it is one of {list(FORMATS)}{nearest(format, FORMATS)}"
        )
    known = dict(provenance or {})
    try:
        json_bytes(known)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"provenance is kept as JSON, and this is none: {error}") from error
    weights = _WEIGHTS if format == "native" else FOREIGN[format].weights
    content = {} if format == "native" else files(coder, format, known)
    folder = ensure_folder(path)
    others = {_WEIGHTS, *(made.weights for made in FOREIGN.values())} - {weights}
    if there := sorted(name for name in others if (folder / name).exists()):
        raise InputError(f"{folder} already holds a coder, {there}; choose another folder")
    if format == "native":
        return _save_native(coder, folder, known)
    for name, data in content.items():
        write_bytes_atomic(folder / name, data)
    hashes = {name: sha256_file(folder / name) for name in content}
    write_json_atomic(folder / _SEAL, sealed({"format": format, "sha256": hashes, "provenance": known}))
    return folder


def _save_native(coder: Coder, folder: Path, known: dict[str, Any]) -> Path:
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
        "dtype": dtype_name(coder),
        "sha256": sha256_file(folder / _WEIGHTS),
        "provenance": known,
    }
    write_json_atomic(folder / _CARD, sealed(card))
    return folder


def load(path: str | Path) -> Coder:
    """The coder at ``path``: a folder of :func:`save`, a run's folder, one of another library, or its weights' file.

    Raises
    ------
    StoreError
        Missing, foreign, torn or damaged, or with an option that would give other codes; the message names it.
    """
    folder = Path(path)
    if folder.name == _WEIGHTS and folder.is_file():
        folder = folder.parent
    if (folder / "coder" / _CARD).is_file() and not (folder / _CARD).is_file():
        folder = folder / "coder"
    found = recognised(folder)
    if (folder / _CARD).is_file():
        if found is not None:
            raise StoreError(f"{folder} holds two coders, {_WEIGHTS} and {FOREIGN[found[0]].weights}")
        return _load_native(folder)
    if found is None:
        reason = (
            "does not exist" if not folder.exists() else f"holds no {_CARD} and no weights of a known format"
        )
        raise StoreError(f"{folder} {reason}: no coder is there")
    name, folder = found
    _unbroken(folder)
    return FOREIGN[name].read(folder)


def _unbroken(folder: Path) -> None:
    """Compare files that we wrote for another library with what we wrote."""
    if not (folder / _SEAL).is_file():
        return
    seal = unsealed(card_of(folder / _SEAL), str(folder / _SEAL))
    hashes, name = seal.get("sha256"), seal.get("format")
    if not isinstance(hashes, dict) or not isinstance(name, str) or name not in FOREIGN:
        raise StoreError(f"{folder / _SEAL} is damaged")
    names = {FOREIGN[name].weights, "cfg.json", "config.json"}  # names in a file never become paths
    for each in sorted(names & set(hashes)):
        if sha256_file(folder / each) != hashes[each]:
            raise StoreError(f"{folder / each} is not what {_SEAL} describes: torn or changed")
    if FOREIGN[name].weights not in hashes or set(hashes) - names:
        raise StoreError(f"{folder / _SEAL} is damaged")


def _load_native(folder: Path) -> Coder:
    path = folder / _WEIGHTS
    card = _checked(read_json(folder / _CARD), folder / _CARD)
    if sha256_file(path) != card["sha256"]:
        raise StoreError(f"{path} is not what {_CARD} describes: torn or changed")
    tensors = read_tensors(path)
    for name, value in tensors.items():
        if value.dtype != DTYPES[card["dtype"]]:
            raise StoreError(f"{path}: {name} is {value.dtype}; expected {card['dtype']}")
    make = _make(card, folder / _CARD)
    sizes = {"d_in": card["d_in"], "d_sae": card["d_sae"], "d_out": make.pop("d_out", card["d_in"])}
    coder = assembled(tensors, kind=card["kind"], k=card["k"], place=path, **make)
    for name, size in sizes.items():
        if getattr(coder, name) != size:
            raise StoreError(f"{path} has {name} = {getattr(coder, name)}; {_CARD} says {size}")
    return coder


def _make(card: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How the card says that the tensors are used."""
    make = card.get("make", {})
    checks = {
        "kind": lambda v: v == card["kind"],
        "wiring": lambda v: isinstance(v, str) and v in WIRINGS,
        "d_out": lambda v: type(v) is int and 0 < v < 2**31,
        "n_sites": lambda v: type(v) is int and 0 < v < 2**16,
        "centred": lambda v: type(v) is bool,
        "bandwidth": lambda v: type(v) is float and 0 < v < 1e6,
    }
    if not isinstance(make, dict) or any(
        name not in checks or not checks[name](v) for name, v in make.items()
    ):
        raise StoreError(f"{path} describes a coder that cannot be: {make!r}")
    return {name: value for name, value in make.items() if name != "kind"}


def _checked(card: Any, path: Path) -> dict[str, Any]:
    if not isinstance(card, dict) or card.get("format") != "interp-toolkit coder":
        raise StoreError(f"{path} does not describe a coder of this toolkit")
    if card.get("schema") != SCHEMA:
        raise StoreError(f"{path} has schema {card.get('schema')!r}; this version reads {SCHEMA}")
    card = unsealed(card, str(path))
    sizes = [card.get(name) for name in ("d_in", "d_sae", "k")]
    if any(type(size) is not int or not 0 < size < 2**31 for size in sizes) or card["k"] > card["d_sae"]:
        raise StoreError(f"{path} gives impossible sizes: d_in, d_sae, k = {sizes}")
    if any(not isinstance(card.get(name), str) for name in ("kind", "dtype", "sha256")) or (
        card["kind"] not in RULES or card["dtype"] not in DTYPES
    ):
        raise StoreError(
            f"{path} names an unknown kind or dtype: {card.get('kind')!r}, {card.get('dtype')!r}"
        )
    return card
