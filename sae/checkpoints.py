"""What a checkpoint of an SAE run holds: the coder, Adam's moments, when each latent last fired, the input scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import StoreError
from interp.runs import checkpoints

if TYPE_CHECKING:
    from sae.training import Trainer

__all__ = ["restore", "write"]


def write(folder: Path, trainer: Trainer, identity: dict[str, Any]) -> Path:
    """Write the trainer's whole state."""
    manifest = {"scale": trainer.scale.hex(), **identity}
    return checkpoints.write(folder, trainer.step, _state(trainer), manifest)


def restore(folder: Path, trainer: Trainer, identity: dict[str, Any]) -> list[dict[str, float]]:
    """Bring ``trainer`` to the newest sound checkpoint and ``metrics.jsonl`` to the same step; the metrics so far.

    Raises
    ------
    StoreError
        The run in ``folder`` has another configuration or other data, or every checkpoint in it is damaged.
    """
    found = checkpoints.newest(folder)
    if found is not None:
        place, manifest, tensors = found
        _same_run(manifest, identity, place)
        _take(trainer, tensors, manifest)
    return checkpoints.lines_until(folder, trainer.step)


def _state(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {f"coder.{name}": value for name, value in trainer.coder.state_dict().items()}
    for name, parameter in trainer.coder.named_parameters():
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{name}.{key}"] = torch.as_tensor(value)
    tensors["last_fired"] = trainer.last_fired
    return tensors


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
