"""What a training was asked to do: a file's options, those of the command line over them, and the echo on disk."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from interp.errors import InputError, StoreError
from interp.runs.files import ensure_folder, read_json, write_json_atomic
from sae.config import TrainConfig

__all__ = ["asked", "echo"]

CONFIG, DATA = "config.json", "data.json"


def asked(file: Path | None, options: Sequence[str]) -> TrainConfig:
    """The configuration of a TOML or JSON file with ``name=value`` options over it.

    Raises
    ------
    InputError
        A file that cannot be read, an option that does not exist (with the nearest), or a value of another type.
    """
    values = {} if file is None else _read(file)
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {option!r} is not NAME=VALUE, such as --set k=16")
        values[name.strip()] = _value(value.strip())
    kinds = {field.name: str(field.type) for field in fields(TrainConfig)}
    return TrainConfig.of(
        {k: float(v) if kinds.get(k) == "float" and type(v) is int else v for k, v in values.items()}
    )


def _read(file: Path) -> dict[str, Any]:
    if file.suffix not in (".toml", ".json"):
        raise InputError(f"--config {file}: a .toml or .json file is expected")
    if not file.is_file():
        raise InputError(
            f"--config {file}: " + ("it is a folder" if file.is_dir() else "there is no such file")
        )
    try:
        values = read_json(file) if file.suffix == ".json" else tomllib.loads(file.read_text("utf-8"))
    except (StoreError, ValueError) as error:  # a TOML or a decoding error is a ValueError
        raise InputError(f"--config {file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {file}: options by name are expected, not a {type(values).__name__}")
    return values


def _value(text: str) -> Any:
    """As JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


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
            f"{out} already holds a run; say --resume to go on with it, or choose another folder"
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
