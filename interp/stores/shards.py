"""One shard of an activation store: what its bytes are, how they are written, mapped and checked.

A shard is a safetensors file whose header follows from its number of rows and the store's
configuration alone, so a reader compares the header with the one that must stand there instead of
trusting it. Read next: ``store.py`` reads many of them, ``harvesting.py`` makes them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError, StoreError
from interp.runs.files import CHUNK, atomic_file

__all__ = ["COLUMNS", "DTYPES", "Entry", "Layout", "check_length", "dtype_name", "map_shard", "write_shard"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
}
COLUMNS = {"doc": torch.int64, "tokens": torch.int32, "pos": torch.int32}


def dtype_name(dtype: str | torch.dtype) -> str:
    """The store's name of a float type.

    Raises
    ------
    InputError
        If a store cannot hold it.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"a store holds {', '.join(DTYPES)}; it was asked for {name}")
    return name


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor in a shard: its type, its shape, where its bytes begin in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Layout:
    """What every shard of a store holds: ``(site name, shape of one row)`` in forward order, and their type."""

    sites: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes one row takes on the disk."""
        d = sum(math.prod(shape) for _, shape in self.sites)
        return d * DTYPES[self.dtype].itemsize + sum(t.itemsize for t in COLUMNS.values())

    @lru_cache(maxsize=8)  # noqa: B019 - a store keeps its one layout for life
    def header(self, n_rows: int) -> tuple[bytes, dict[str, Entry], int]:
        """The first bytes of a shard of ``n_rows`` rows, its entries, and its length in bytes."""
        wanted = [(name, dtype, (n_rows,)) for name, dtype in COLUMNS.items()]
        wanted += [(f"acts/{name}", DTYPES[self.dtype], (n_rows, *shape)) for name, shape in self.sites]
        table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        place = 0
        for name, dtype, shape in wanted:
            end = place + math.prod(shape) * dtype.itemsize
            table[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [place, end]}
            place = end
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % 64)  # the data begin on a cache line
        head = len(text).to_bytes(8, "little") + text
        entries = {
            name: Entry(dtype, shape, len(head) + table[name]["data_offsets"][0])
            for name, dtype, shape in wanted
        }
        return head, entries, len(head) + place


def write_shard(path: Path, layout: Layout, columns: Mapping[str, Tensor]) -> tuple[str, int]:
    """Write one shard atomically; return its SHA-256 and its length.

    ``columns`` holds a contiguous CPU tensor of equal length for each entry of the layout.
    """
    head, entries, n_bytes = layout.header(len(columns["doc"]))
    digest = hashlib.sha256(head)
    with atomic_file(path) as file:
        file.write(head)
        for name, entry in entries.items():
            tensor = columns[name]
            assert (tensor.dtype, tuple(tensor.shape)) == (entry.dtype, entry.shape)
            assert tensor.is_contiguous()
            data = memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
            for start in range(0, len(data), CHUNK):  # hash and write while the piece is in the cache
                piece = data[start : start + CHUNK]
                digest.update(piece)
                file.write(piece)
    return digest.hexdigest(), n_bytes


def map_shard(path: Path, layout: Layout, n_rows: int) -> dict[str, Tensor]:
    """The shard's tensors, mapped from the file: nothing is read until it is touched.

    Writing into them changes neither the file nor what others read.

    Raises
    ------
    StoreError
        If the file is missing, of another length, or does not begin as this store's shards do.
    """
    head, entries, n_bytes = layout.header(n_rows)
    check_length(path, n_bytes)
    try:
        with path.open("rb") as file:
            found = file.read(len(head))
        if found != head:
            raise StoreError(
                f"shard {path.name} in {path.parent} is damaged: its header is not the one written"
            )
        # No file descriptor stays open (numpy's and mmap's would: a store of thousands of shards runs out of them).
        storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=n_bytes)
    except (OSError, RuntimeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"shard {path.name} in {path.parent} cannot be read: {error}") from error
    return {
        name: torch.empty(0, dtype=e.dtype).set_(storage, e.offset // e.dtype.itemsize, e.shape)  # type: ignore[call-overload]
        for name, e in entries.items()
    }


def check_length(path: Path, n_bytes: int) -> None:
    """Refuse a shard that is missing or not ``n_bytes`` long, by name."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise StoreError(f"shard {path.name} is missing from {path.parent}") from error
    except OSError as error:
        raise StoreError(f"shard {path.name} in {path.parent} cannot be read: {error.strerror}") from error
    if size != n_bytes or not path.is_file():
        raise StoreError(
            f"shard {path.name} in {path.parent} is torn: {size} bytes where {n_bytes} were written"
        )
