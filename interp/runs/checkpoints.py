"""Checkpoints of a long run: written aside, proved by a manifest, renamed into place.

``checkpoints/step-00000100/`` holds ``state.safetensors`` and ``manifest.json``, the manifest with the SHA-256 of the
other. A killed run leaves at worst a temporary folder, which the next start removes. What is in the tensors and the
manifest is the run's own business.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from interp.errors import InputError, StoreError
from interp.runs.files import (
    JsonLines,
    json_bytes,
    read_json,
    sha256_file,
    translated,
    unique,
    write_bytes_atomic,
    write_json_atomic,
)

__all__ = ["METRICS", "lines_until", "newest", "prepared", "read_tensors", "write"]

_NAME = re.compile(r"^step-(\d{8})$")
_STATE, _MANIFEST = "state.safetensors", "manifest.json"
METRICS = "metrics.jsonl"
KEEP = 2
"""Newest checkpoints kept; the one before the last is the fallback if the last is damaged."""


def prepared(folder: Path, *, resume: bool) -> Path:
    """The run's folder, made and swept of what a killed writer left.

    Raises
    ------
    InputError
        It already holds a run and ``resume`` is False.
    StoreError
        It cannot be made.
    """
    if not resume and ((folder / METRICS).exists() or (folder / "checkpoints").exists()):
        raise InputError(
            f"{folder} already holds a run; say resume=True to go on with it, or choose another folder"
        )
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    for left in (folder / "checkpoints").glob("step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    return folder


def write(folder: Path, step: int, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> Path:
    """Write a checkpoint; the folder's name appears only once everything in it is on the disk."""
    place = folder / "checkpoints" / f"step-{step:08d}"
    if place.exists():
        return place
    aside = place.with_name(place.name + ".tmp")
    with translated(place):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write_bytes_atomic(
            aside / _STATE,
            save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}),
        )
        known = {"step": step, "sha256": sha256_file(aside / _STATE)}
        write_json_atomic(aside / _MANIFEST, {**manifest, **known})
        aside.rename(place)
        _sync(place.parent)
        write_json_atomic(folder / "checkpoints" / "latest.json", {"latest": place.name})
    for old in _steps(folder)[:-KEEP]:
        shutil.rmtree(folder / "checkpoints" / f"step-{old:08d}", ignore_errors=True)
    return place


def newest(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]] | None:
    """The newest sound checkpoint: its folder, manifest and tensors; None where there is no checkpoint at all.

    Raises
    ------
    StoreError
        There are checkpoints, and every one is damaged; the message says how.
    """
    problems = []
    for step in reversed(_steps(folder)):
        place = folder / "checkpoints" / f"step-{step:08d}"
        try:
            manifest = read_json(place / _MANIFEST)
            if sha256_file(place / _STATE) != manifest["sha256"] or manifest["step"] != step:
                raise StoreError(f"{place / _STATE} is not what its manifest describes")
            return place, manifest, read_tensors(place / _STATE)
        except (StoreError, KeyError, TypeError) as error:
            problems.append(str(error))
    if problems:
        raise StoreError(f"no checkpoint in {folder} is sound: " + "; ".join(problems))
    return None


def lines_until(folder: Path, step: int) -> list[dict[str, Any]]:
    """The metric lines up to ``step``; later ones, written between the checkpoint and the kill, are dropped."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = [line for line in JsonLines(path).read().records if line.get("step", step + 1) <= step]
    write_bytes_atomic(path, b"".join(json_bytes(line) + b"\n" for line in lines))
    return lines


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises
    ------
    StoreError
        Missing, unreadable, damaged, of a type that torch has not, or with two tensors of one name.
    """
    try:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        tensors = load_tensors(data)
        json.loads(data[8 : 8 + length], object_pairs_hook=unique)  # the library takes the last of two
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError, RecursionError, RuntimeError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return tensors


def _steps(folder: Path) -> list[int]:
    found = [_NAME.match(entry.name) for entry in (folder / "checkpoints").iterdir()]
    return sorted(int(match[1]) for match in found if match)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
