"""What a store says about itself: its configuration and the lines of its manifests, each with a check.

Everything is read as if a stranger had written it. Read next: ``shards.py`` (the bytes that a line
stands for), ``store.py`` (reading them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import InterpError, StoreError
from interp.runs.files import JsonLines, inside, json_bytes, read_json, sha256_file
from interp.runs.progress import Stop
from interp.runs.progress import progress as bar
from interp.sites import Site
from interp.stores.shards import DTYPES, Layout, check_length

__all__ = [
    "SCHEMA",
    "Shard",
    "layout_of",
    "manifest_name",
    "read_config",
    "read_manifest",
    "sealed",
    "shard_name",
    "unsealed",
    "verify_shards",
]

SCHEMA = "interp.activation-store/1"


@dataclass(frozen=True, slots=True)
class Shard:
    """One line of a manifest: a shard, and how far in the texts its harvest had come."""

    name: str
    rows: int
    n_bytes: int
    sha256: str
    doc: int
    """The next document after this shard."""
    window: int
    """The next window of that document (0: its beginning)."""
    texts_sha256: str
    """Of all documents read so far, the one begun included."""
    source: str
    """What those texts were called."""

    def record(self) -> dict[str, Any]:
        """The manifest line."""
        cursor = {"doc": self.doc, "window": self.window}
        return sealed({"shard": self.name, "rows": self.rows, "bytes": self.n_bytes, "sha256": self.sha256,
                       "cursor": cursor, "texts_sha256": self.texts_sha256, "source": self.source})  # fmt: skip

    @classmethod
    def of(cls, record: Mapping[str, Any], where: str) -> Shard:
        """The shard that a manifest line describes, checked."""
        body = unsealed(record, where)
        try:
            cursor = body["cursor"]
            shard = cls(body["shard"], body["rows"], body["bytes"], body["sha256"],
                        cursor["doc"], cursor["window"], body["texts_sha256"], body["source"])  # fmt: skip
        except (KeyError, TypeError) as error:
            raise StoreError(f"{where} is not a shard's line: {error!r}") from error
        counts = (shard.rows, shard.n_bytes, shard.doc, shard.window)
        texts = (shard.name, shard.sha256, shard.texts_sha256, shard.source)
        if not all(type(n) is int and n >= 0 for n in counts) or not all(isinstance(t, str) for t in texts):
            raise StoreError(f"{where} is not a shard's line: {body}")
        return shard


def manifest_name(rank: int, world_size: int) -> str:
    """The manifest's file name of one of ``world_size`` harvesting processes."""
    return "manifest.jsonl" if world_size == 1 else f"manifest.{rank:05d}-of-{world_size:05d}.jsonl"


def shard_name(number: int, part: tuple[int, int]) -> str:
    """The file name of the ``number``-th shard of process ``part`` = (rank, world_size)."""
    return f"{number * part[1] + part[0]:06d}.safetensors"


def read_manifest(path: Path, layout: Layout, part: tuple[int, int]) -> tuple[Shard, ...]:
    """The shards of one manifest in order, each present and as long as it was written.

    Raises
    ------
    StoreError
        Naming the manifest's line or the shard.
    """
    shards = []
    for number, record in enumerate(JsonLines(path).read().records, start=1):
        shard = Shard.of(record, f"{path} line {number}")
        if shard.name != shard_name(number - 1, part):
            raise StoreError(
                f"{path} line {number} is about {shard.name!r}, not {shard_name(number - 1, part)}"
            )
        if layout.header(shard.rows)[2] != shard.n_bytes:
            raise StoreError(f"{path} line {number}: {shard.rows} rows do not take {shard.n_bytes} bytes")
        check_length(inside(path.parent, shard.name), shard.n_bytes)
        shards.append(shard)
    return tuple(shards)


def verify_shards(
    folder: Path, shards: Sequence[Shard], *, progress: bool | None = None, stop: Stop | None = None
) -> None:
    """Hash every shard again.

    Raises
    ------
    StoreError
        Naming every shard that is torn or has a changed bit.
    KeyboardInterrupt
        If ``stop`` asks for it; nothing was changed.
    """
    wrong = []
    for shard in bar(shards, desc="verify", unit="shard", enabled=progress):
        if stop is not None:
            stop.check(f"stopped before anything was added to {folder}")
        if sha256_file(inside(folder, shard.name)) != shard.sha256:
            wrong.append(shard.name)
    if wrong:
        raise StoreError(
            f"{folder}: {len(wrong)} of {len(shards)} shards are corrupted (their SHA-256 differs from "
            f"the manifest's): {', '.join(wrong)}"
        )


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a check over its canonical JSON, so that a flipped bit cannot pass for a value."""
    return {**record, "check": hashlib.sha256(json_bytes(dict(record))).hexdigest()[:16]}


def unsealed(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record without its check.

    Raises
    ------
    StoreError
        If the check does not hold.
    """
    if not isinstance(record, Mapping):
        raise StoreError(f"{where} is damaged: a JSON object was expected")
    body = {key: value for key, value in record.items() if key != "check"}
    try:
        good = sealed(body)["check"] == record.get("check")
    except (ValueError, RecursionError, OverflowError):
        good = False
    if not good:
        raise StoreError(f"{where} is damaged: its contents do not match their check")
    return body


def read_config(path: Path) -> dict[str, Any]:
    """A store's ``config.json``, its check and its schema verified."""
    file = path / "config.json"
    config = unsealed(read_json(file), str(file))
    if config.get("schema") != SCHEMA:
        raise StoreError(f"{file} has schema {config.get('schema')!r}; this version reads {SCHEMA!r}")
    return config


def layout_of(config: dict[str, Any]) -> Layout:
    """What each shard of a store with this configuration holds."""
    try:
        sites = tuple((site["name"], tuple(int(n) for n in site["shape"])) for site in config["sites"])
        names = [str(Site.parse(name)) for name, _ in sites]
        sane = names == [name for name, _ in sites] and config["dtype"] in DTYPES
        if not sane or type(config["world_size"]) is not int or config["world_size"] < 1:
            raise StoreError("it names known sites, a known float type and how many processes harvested")
    except (KeyError, TypeError, ValueError, AttributeError, InterpError) as error:
        raise StoreError(f"this is not the configuration of an activation store: {error}") from error
    return Layout(sites=sites, dtype=config["dtype"])
