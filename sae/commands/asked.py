"""What a training was asked to do, and the echo of it on disk that a run which goes on is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from interp.errors import InputError, StoreError
from interp.runs.files import ensure_folder, read_json, write_json_atomic
from sae.config import TrainConfig

__all__ = ["asked", "echo"]

CONFIG, DATA = "config.json", "data.json"


def asked(values: Mapping[str, Any]) -> TrainConfig:
    """The training that options by name describe; a whole number will do where a float is meant.

    Raises
    ------
    InputError
        A value of another type, or a combination that cannot run.
    """
    kinds = {field.name: str(field.type) for field in fields(TrainConfig)}
    return TrainConfig.of(
        {k: float(v) if kinds.get(k) == "float" and type(v) is int else v for k, v in values.items()}
    )


def echo(out: Path, config: TrainConfig, data: Mapping[str, Any], *, resume: bool) -> None:
    """Write what will run into the run's folder; a run that goes on must have been asked for the same.

    Raises
    ------
    InputError
        The folder cannot be written, or holds a run and ``resume`` is False.
    StoreError
        The run there had another configuration or read other data; every difference is named.
    """
    ensure_folder(out)
    begun = (out / "metrics.jsonl").exists() or (out / "checkpoints").exists()
    if begun and not resume:
        raise InputError(
            f"{out} already holds a run; leave out --no-resume to go on with it, or choose another folder"
        )
    now = {CONFIG: config.as_dict(), DATA: json.loads(json.dumps(data))}
    for name, what in ((CONFIG, "another configuration"), (DATA, "other data")) if begun else ():
        if (out / name).exists() and (differs := _differences(read_json(out / name), now[name])):
            raise StoreError(f"the run in {out} has {what} ({'; '.join(differs)}); choose another folder")
    for name, value in now.items():
        write_json_atomic(out / name, value)


def _differences(old: Any, new: Mapping[str, Any], inside: str = "") -> list[str]:
    old = old if isinstance(old, dict) else {}
    found = []
    for name in dict.fromkeys((*old, *new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{inside}{name}.")
        elif a != b:
            found.append(f"{inside}{name}: {a!r} there, {b!r} now")
    return found
