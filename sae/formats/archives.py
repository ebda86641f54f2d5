"""Archives that others pack tensors into, read without running anything in them: .npz and torch's .pt.

Both are zip files. Sizes are checked against the file before anything is unpacked, every entry's CRC is checked, and
of a .pt only what ``weights_only=True`` lets through is looked at. No entry's name ever becomes a path.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import StoreError

__all__ = ["npz_bytes", "pt_bytes", "read_npz", "read_pt"]

_SLACK = 1 << 16
_RATIO = 16
"""Weights hardly shrink; an archive that unpacks to more than this many times its size is a bomb."""


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a numpy archive.

    Raises
    ------
    StoreError
        Missing, damaged, or holding anything but plain arrays of numbers.
    """
    with _opened(path) as archive:
        return {entry.removesuffix(".npy"): _array(archive, entry, path) for entry in _entries(archive, path)}


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing") from error
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise StoreError(f"{path} is damaged: no zip archive ({error})") from error


def _entries(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Names of the entries, after their sizes have been found to be honest."""
    found = archive.infolist()
    names = [info.filename for info in found]
    if len(set(names)) != len(names) or len(names) > 1024:
        raise StoreError(f"{path} is damaged: {len(names)} entries, some of the same name")
    total, packed = sum(info.file_size for info in found), path.stat().st_size
    if total > _RATIO * packed + _SLACK:
        raise StoreError(f"{path} has {packed} bytes and would unpack to {total}; it is not read")
    return names


def _array(archive: zipfile.ZipFile, entry: str, path: Path) -> Tensor:
    try:
        with archive.open(entry) as stream:
            version = np.lib.format.read_magic(stream)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = header[version](stream)
            left = archive.getinfo(entry).file_size - stream.tell()
        if dtype.hasobject or dtype.kind not in "fiu" or prod(shape) * dtype.itemsize != left:
            raise ValueError(f"an array {dtype} {list(shape)} in {left} bytes")
        with archive.open(entry) as stream:  # to its end, where the CRC is compared
            array = np.lib.format.read_array(stream, allow_pickle=False)
        return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    except Exception as error:  # noqa: BLE001 - damaged bytes may fail anywhere in zip, zlib or the header's parser
        raise StoreError(f"{path}: entry {entry!r} is damaged or no array of numbers ({error})") from error


def npz_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The archive that numpy would write."""
    stream = io.BytesIO()
    np.savez(
        stream, allow_pickle=False, **{name: value.detach().cpu().numpy() for name, value in tensors.items()}
    )
    return stream.getvalue()


def read_pt(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that ``torch.save`` wrote.

    Raises
    ------
    StoreError
        Missing, damaged, compressed, or holding anything but tensors by name.
    """
    with _opened(path) as archive:
        names = _entries(archive, path)
        if any(archive.getinfo(name).compress_type != zipfile.ZIP_STORED for name in names):
            raise StoreError(f"{path} is compressed, which torch.save never does; it is not read")
        try:
            bad = archive.testzip()
        except Exception as error:  # noqa: BLE001 - as above
            raise StoreError(f"{path} is damaged: {error}") from error
        if bad is not None:
            raise StoreError(f"{path} is damaged: entry {bad!r} does not have its checksum")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old storage types
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - the restricted unpickler refuses in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(f"{path} holds more than tensors, or is damaged: {reason[:200]}") from error
    if not isinstance(found, Mapping) or not found:
        raise StoreError(f"{path} holds no tensors by name but {type(found).__name__}")
    return {str(name): _plain(value, name, path) for name, value in found.items()}


def _plain(value: Any, name: Any, path: Path) -> Tensor:
    """A tensor as large as it says: no view that repeats a few bytes a billion times."""
    honest = (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
    if not honest:
        raise StoreError(f"{path}: {str(name)[:80]!r} is no plain tensor but {type(value).__name__}")
    return value.detach()


def pt_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The state dict as ``torch.save`` packs it: what dictionary_learning reads is nothing else."""
    stream = io.BytesIO()
    torch.save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, stream)
    return stream.getvalue()
