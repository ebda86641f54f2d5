"""Files that are either whole or absent, and folders that never hold a half-truth.

Everything the toolkit writes goes through here: a temporary file in the same folder, fsync, rename,
fsync of the folder; logs and manifests are JSON lines that only grow and whose torn last line is
recognised. No name that comes out of a file ever becomes a path unchecked (:func:`inside`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from interp.errors import InputError, StoreError

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, two writers are the user's care there
    fcntl = None

__all__ = [
    "JsonLines",
    "Lines",
    "atomic_file",
    "ensure_folder",
    "free_bytes",
    "inside",
    "json_bytes",
    "locked",
    "read_json",
    "require_space",
    "sha256_file",
    "sweep_temporaries",
    "translated",
    "unique",
    "write_bytes_atomic",
    "write_json_atomic",
]

CHUNK = 1 << 22
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_KIND = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)


def _size(n_bytes: int | float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} bytes" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


@contextmanager
def translated(path: str | Path, *, doing: str = "write") -> Iterator[None]:
    """Turn an :class:`OSError` raised within into the toolkit's own, with the path and the figures.

    Raises
    ------
    StoreError
        If the disk (or the quota) is full, or the device fails.
    InputError
        If the place cannot be used: no permission, read-only, missing, not a folder.
    """
    try:
        yield
    except OSError as error:
        raise _translation(Path(path), error, doing) from error


def _translation(path: Path, error: OSError, doing: str) -> StoreError | InputError:
    if error.errno in _FULL:
        with suppress(OSError):
            return StoreError(
                f"disk full while writing {path}: {_size(free_bytes(path))} free; "
                "what was complete before is still whole: free some space and run again"
            )
        return StoreError(f"disk full while writing {path}; what was complete before is still whole")
    reason = error.strerror or str(error)
    if error.errno in _FORBIDDEN:
        return InputError(f"cannot {doing} {path}: {reason}; choose a folder that you may write to")
    if error.errno == errno.ENOENT:
        return InputError(f"cannot {doing} {path}: it does not exist")
    if error.errno in _WRONG_KIND:
        return InputError(f"cannot {doing} {path}: {reason}")
    return StoreError(f"cannot {doing} {path}: {reason}")


def _existing(path: Path) -> Path:
    """``path`` or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: str | Path) -> int:
    """Bytes that an ordinary user may still write where ``path`` is or would be."""
    return shutil.disk_usage(_existing(Path(path))).free


def require_space(path: str | Path, n_bytes: int, *, what: str = "this run") -> None:
    """Refuse before the work begins if ``n_bytes`` do not fit where ``path`` is.

    Raises
    ------
    StoreError
        With both figures and the path.
    """
    free = free_bytes(path)
    if free < n_bytes:
        raise StoreError(
            f"not enough disk space at {path}: {what} needs {_size(n_bytes)}, {_size(free)} are free"
        )


def ensure_folder(path: str | Path) -> Path:
    """The folder, made if it is missing, after a trial write in it.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    """
    path = Path(path)
    with translated(path, doing="make folder"):
        path.mkdir(parents=True, exist_ok=True)
    trial = path / f".{secrets.token_hex(6)}.tmp"
    with translated(path, doing="write to folder"):
        trial.touch()
        trial.unlink()
    return path


def inside(folder: str | Path, name: str) -> Path:
    """``folder / name`` where ``name`` is one plain file name.

    Raises
    ------
    StoreError
        If the name could point anywhere else (separators, ``..``, hidden or empty names).
    """
    plain = isinstance(name, str) and 0 < len(name) <= 128 and not name.startswith(".")
    if not plain or any(not (c.isascii() and (c.isalnum() or c in "._-")) for c in name):
        raise StoreError(
            f"unsafe file name {name!r} for folder {folder}: letters, digits, '.', '_' and '-' only"
        )
    return Path(folder) / name


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write into that appears at ``path`` whole, or not at all.

    It is written beside its place, fsynced, renamed over it; the folder is fsynced last. If the
    body raises, nothing is left behind and what stood at ``path`` stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with translated(path):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def sweep_temporaries(folder: str | Path, mine: Callable[[str], bool]) -> None:
    """Remove what a killed writer left: temporary files of final names for which ``mine(name)`` holds."""
    for left in Path(folder).glob(".*.tmp"):
        final = left.name[1:].rsplit(".", 2)[0]
        if mine(final):
            with suppress(FileNotFoundError):
                left.unlink()


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds all of it or what it held before."""
    with atomic_file(path) as file:
        file.write(data)


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """Canonical JSON: sorted keys, UTF-8, no NaN; the same value always gives the same bytes."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return text.encode("utf-8", errors="backslashreplace")


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write ``value`` as readable canonical JSON, atomically."""
    write_bytes_atomic(path, json_bytes(value, indent=1) + b"\n")


def read_json(path: str | Path, *, limit: int = 1 << 28) -> Any:
    """The value in a JSON file of at most ``limit`` bytes.

    Raises
    ------
    StoreError
        If the file is missing, larger than ``limit``, not JSON, or an object in it has two values of one name.
    """
    path = Path(path)
    data = _read(path, limit)
    try:
        return json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: not JSON ({error})") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, as a hook of ``json.loads``: of two values of one name neither is the right one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two values of the name {twice[:80]!r}")
    return made


def _read(path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise StoreError(f"{path} is {_size(size)}; at most {_size(limit)} were expected")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def sha256_file(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal, read in pieces.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


@contextmanager
def locked(path: str | Path, *, wait: bool = False, create: bool = False) -> Iterator[None]:
    """Hold ``path`` (a file or folder) for this process alone; the lock dies with the process.

    Raises
    ------
    StoreError
        If another process holds it and ``wait`` is False.
    """
    if fcntl is None:
        yield
        return
    with translated(path, doing="lock"):
        handle = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{path} is in use by another process; wait for it or choose another folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What a JSON-lines file holds."""

    records: tuple[dict[str, Any], ...]
    """The whole lines, in order."""
    torn: str
    """The rest of a last line that was never finished, or ``""``."""
    n_bytes: int
    """Length of the whole lines."""


class JsonLines:
    """An append-only file of one JSON object a line.

    A line counts once its newline is on the disk; a writer killed in the middle of one leaves a torn
    tail that :meth:`read` reports and leaves out, and :meth:`mend` cuts off.
    """

    def __init__(self, path: str | Path, *, sync: bool = True) -> None:
        self.path = Path(path)
        self.sync = sync

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line, and (with ``sync``) return only when it is on the disk.

        Raises
        ------
        StoreError
            If the disk is full; the file is then as it was before.
        """
        line = json_bytes(dict(record)) + b"\n"
        with translated(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                before = os.fstat(handle).st_size
                try:
                    rest = line
                    while rest:
                        rest = rest[os.write(handle, rest) :]
                    if self.sync:
                        os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, before)
                    raise
            finally:
                os.close(handle)

    def read(self, *, limit: int = 1 << 30) -> Lines:
        """Every whole line, and the torn tail if there is one.

        Raises
        ------
        StoreError
            If the file is missing, or a line that was finished is not a JSON object.
        """
        data = _read(self.path, limit)
        *whole, torn = data.split(b"\n")
        records = []
        for number, line in enumerate(whole, start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise StoreError(f"{self.path} is damaged at line {number}: not JSON ({error})") from error
            if not isinstance(record, dict):
                raise StoreError(f"{self.path} is damaged at line {number}: a JSON object was expected")
            records.append(record)
        text = torn.decode("utf-8", errors="replace")
        return Lines(records=tuple(records), torn=text, n_bytes=len(data) - len(torn))

    def mend(self) -> str:
        """Cut off a torn tail; return what was cut."""
        lines = self.read()
        if lines.torn:
            with translated(self.path), self.path.open("r+b") as file:
                file.truncate(lines.n_bytes)
                os.fsync(file.fileno())
        return lines.torn
