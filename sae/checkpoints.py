"""Checkpoints of a training run: written aside, proved by a manifest, renamed into place.

``checkpoints/step-00000100/`` holds ``state.safetensors`` and ``manifest.json``, the manifest with the SHA-256 of the
other. A killed run leaves at worst a temporary folder, which the next start removes.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from interp.errors import InputError, StoreError
from interp.runs.files import json_bytes, read_json, sha256_file, write_bytes_atomic, write_json_atomic
from sae.storage import read_tensors

if TYPE_CHECKING:
    from sae.training import Trainer

__all__ = ["prepared", "restore", "write"]

_NAME = re.compile(r"^step-(\d{8})$")
_STATE, _MANIFEST = "state.safetensors", "manifest.json"
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
    if not resume and ((folder / "metrics.jsonl").exists() or (folder / "checkpoints").exists()):
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


def write(folder: Path, trainer: Trainer, identity: dict[str, Any]) -> Path:
    """Write the trainer's whole state; the folder's name appears only once everything in it is on the disk."""
    place = folder / "checkpoints" / f"step-{trainer.step:08d}"
    if place.exists():
        return place
    aside = place.with_name(place.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    write_bytes_atomic(aside / _STATE, save_tensors(_state(trainer)))
    manifest = {
        "step": trainer.step,
        "scale": trainer.scale.hex(),
        "sha256": sha256_file(aside / _STATE),
        **identity,
    }
    write_json_atomic(aside / _MANIFEST, manifest)
    aside.rename(place)
    _sync(place.parent)
    write_json_atomic(folder / "checkpoints" / "latest.json", {"latest": place.name})
    for old in _steps(folder)[:-KEEP]:
        shutil.rmtree(folder / "checkpoints" / f"step-{old:08d}", ignore_errors=True)
    return place


def restore(folder: Path, trainer: Trainer, identity: dict[str, Any]) -> list[dict[str, float]]:
    """Bring ``trainer`` to the newest sound checkpoint and ``metrics.jsonl`` to the same step; the metrics so far.

    Raises
    ------
    StoreError
        The run in ``folder`` has another configuration or other data, or every checkpoint in it is damaged.
    """
    problems = []
    for step in reversed(_steps(folder)):
        place = folder / "checkpoints" / f"step-{step:08d}"
        try:
            manifest = read_json(place / _MANIFEST)
            if sha256_file(place / _STATE) != manifest["sha256"]:
                raise StoreError(f"{place / _STATE} is not what its manifest describes")
            tensors = read_tensors(place / _STATE)
        except (StoreError, KeyError, TypeError) as error:
            problems.append(str(error))
            continue
        _same_run(manifest, identity, place)
        _take(trainer, tensors, manifest)
        return _metrics_until(folder, trainer.step)
    if problems:
        raise StoreError(f"no checkpoint in {folder} is sound: " + "; ".join(problems))
    return _metrics_until(folder, 0)


def _steps(folder: Path) -> list[int]:
    found = [_NAME.match(entry.name) for entry in (folder / "checkpoints").iterdir()]
    return sorted(int(match[1]) for match in found if match)


def _state(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {f"coder.{name}": value.detach() for name, value in trainer.coder.state_dict().items()}
    for name, parameter in trainer.coder.named_parameters():
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{name}.{key}"] = torch.as_tensor(value)
    tensors["last_fired"] = trainer.last_fired
    return {name: value.cpu().contiguous().clone() for name, value in tensors.items()}


def _take(trainer: Trainer, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }

    trainer.coder.load_state_dict(part("coder."))
    for name, parameter in trainer.coder.named_parameters():
        state = part(f"adam.{name}.")
        if state:
            trainer.optimizer.state[parameter] = state
    trainer.last_fired = tensors["last_fired"]
    trainer.scale = float.fromhex(manifest["scale"])
    trainer.step = int(manifest["step"])


def _same_run(manifest: dict[str, Any], identity: dict[str, Any], place: Path) -> None:
    old, new = manifest.get("config", {}), identity["config"]
    differs = [
        f"{name}: {old.get(name)!r} there, {value!r} now"
        for name, value in new.items()
        if old.get(name) != value
    ]
    if differs:
        raise StoreError(
            f"{place} belongs to another configuration ({'; '.join(differs)}); choose another folder"
        )
    if manifest.get("data") != identity["data"]:
        raise StoreError(f"{place} was trained on other data; choose another folder")


def _metrics_until(folder: Path, step: int) -> list[dict[str, float]]:
    """The metric lines up to ``step``; later ones, written between the checkpoint and the kill, are dropped."""
    from interp.runs.files import JsonLines

    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [line for line in JsonLines(path).read().records if line.get("step", step + 1) <= step]
    write_bytes_atomic(path, b"".join(json_bytes(line) + b"\n" for line in lines))
    return lines


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
