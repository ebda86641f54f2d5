"""Coders in the files of other libraries, both ways: each format is a reader, a writer, and what it cannot express.

A reader gives the codes that the library itself gives, or refuses the option by name that would make them differ; a
writer refuses by name what its format has no words for. Formats are told apart by the file that holds the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import InputError, StoreError
from sae.coder import Coder
from sae.formats import dictionaries, gemma, saelens, saelens_flat, sparsify

__all__ = ["FOREIGN", "Format", "files", "recognised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one library keeps a coder in a folder."""

    weights: str
    """The file that it is recognised by."""
    read: Callable[[Path], Coder]
    """The folder -> the coder."""
    files: Callable[[Coder, Mapping[str, Any]], dict[str, bytes]]
    """The coder and what is known of its making -> the bytes of every file, the weights first."""
    lacks: Callable[[Coder], str | None]
    """What of this coder it has no words for; None if it can be written."""


FOREIGN: dict[str, Format] = {
    "saelens": Format(
        weights=saelens.WEIGHTS, read=saelens.read, files=saelens.files, lacks=saelens.lacks
    ),
    "saelens_legacy": Format(
        weights=saelens.WEIGHTS, read=saelens.read, files=saelens_flat.files, lacks=saelens_flat.lacks
    ),
    "sparsify": Format(
        weights=sparsify.WEIGHTS, read=sparsify.read, files=sparsify.files, lacks=sparsify.lacks
    ),
    "dictionary_learning": Format(
        weights=dictionaries.WEIGHTS, read=dictionaries.read, files=dictionaries.files, lacks=dictionaries.lacks
    ),
    "gemma_scope": Format(
        weights=gemma.NPZ, read=gemma.read_npz_folder, files=gemma.files_npz, lacks=gemma.lacks_npz
    ),
    "gemma_scope_2": Format(
        weights=gemma.SAFE, read=gemma.read_safe_folder, files=gemma.files_safe, lacks=gemma.lacks
    ),
}  # fmt: skip
"""By the name that ``sae.save(..., format=)`` takes."""


def recognised(path: Path) -> tuple[str, Path] | None:
    """The format of the folder, or of the weights' file, at ``path``, and the folder; None if there is none.

    Raises
    ------
    StoreError
        Weights of several formats lie side by side.
    """
    folder = path.parent if path.is_file() else path
    found = {
        made.weights: name
        for name, made in reversed(FOREIGN.items())
        if (path.name == made.weights if path.is_file() else (folder / made.weights).is_file())
    }
    if len(found) > 1:
        raise StoreError(f"{folder} holds several coders, {sorted(found)}; say which file is meant")
    return None if not found else (next(iter(found.values())), folder)


def files(coder: Coder, format: str, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of ``coder`` in a foreign format.

    Raises
    ------
    InputError
        The format cannot express it; the message says what, and which formats can.
    """
    if (lack := FOREIGN[format].lacks(coder)) is not None:
        able = ["native", *(name for name, made in FOREIGN.items() if made.lacks(coder) is None)]
        raise InputError(f"{format} has no words for {lack}; what can hold this coder: {', '.join(able)}")
    return FOREIGN[format].files(coder, provenance)
