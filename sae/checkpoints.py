"""What a checkpoint of an SAE run holds: coder, optimiser, scales, who fired when, and where the rows were read to."""

from __future__ import annotations

import logging
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import StoreError
from interp.runs import checkpoints
from sae.config import TrainConfig
from sae.learner import Learner, Scales
from sae.supply import Flow, Still

__all__ = ["restore", "write"]

_log = logging.getLogger("sae.training")
_SCALES = ("read", "written", "center_in", "center_out")


def write(folder: Path, learner: Learner, rows: Still | Flow, identity: dict[str, Any]) -> None:
    """Write the learner's whole state; every process must ask, and the first one writes."""
    tensors = {f"coder.{name}": value for name, value in learner.coder.state_dict().items()}
    tensors |= {f"optimiser.{name}": value for name, value in learner.optimiser.tensors().items()}
    tensors = learner.peers.whole(tensors | {"last_fired": learner.last_fired})
    tensors |= {f"scales.{name}": getattr(learner.scales, name) for name in _SCALES}
    tensors |= {f"rows.{name}": value for name, value in rows.tensors().items()}
    manifest = {"smallest": learner.smallest.hex(), "window": learner.window, **identity}
    if learner.peers.rank == 0:
        checkpoints.write(folder, learner.step, tensors, manifest)


def restore(
    folder: Path, learner: Learner, rows: Still | Flow, identity: dict[str, Any]
) -> list[dict[str, float]]:
    """Bring all to the newest sound checkpoint and ``metrics.jsonl`` to the same step; the metrics so far.

    Raises
    ------
    StoreError
        The run in ``folder`` has another configuration or other data, or every checkpoint in it is damaged.
    """
    found = checkpoints.newest(folder)
    if found is not None:
        place, manifest, tensors = found
        _same_run(manifest, identity, place)
        _take(learner, learner.peers.own(tensors), manifest)
        kept = _part(tensors, "rows.")
        if kept:
            rows.restore(kept)
    return checkpoints.lines_until(folder, learner.step)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _take(learner: Learner, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    learner.coder.load_state_dict(_part(tensors, "coder."))
    learner.optimiser.restore(_part(tensors, "optimiser."))
    device = learner.last_fired.device
    learner.scales = Scales(**{name: value.to(device) for name, value in _part(tensors, "scales.").items()})
    learner.last_fired = tensors["last_fired"].to(device)
    learner.smallest = float.fromhex(manifest["smallest"])
    learner.step = int(manifest["step"])
    if "window" in manifest:
        learner.window = int(manifest["window"])
    elif not learner.config.dead_after:
        _log.warning(
            "the run to go on with does not say after how many rows without firing a latent is dead; from step %d on "
            "it is after %d",
            learner.step,
            learner.window,
        )


def _as_it_was() -> dict[str, Any]:
    """What runs did before an option was there, which is its default; their checkpoints do not name it."""
    return {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in fields(TrainConfig)
        if field.default is not MISSING
    }


def _same_run(manifest: dict[str, Any], identity: dict[str, Any], place: Path) -> None:
    old, new = _as_it_was() | manifest.get("config", {}), identity["config"]
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
