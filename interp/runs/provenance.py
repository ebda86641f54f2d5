"""Where a number came from: versions, machine, model, texts, seed, command; JSON throughout."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

__all__ = ["digest", "provenance", "versions"]

PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight", "numpy", "safetensors", "scikit-learn")


def versions() -> dict[str, str | None]:
    """Installed versions of what the numbers depend on; None where a package is not installed."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "interp-toolkit": _version("interp-toolkit"),
    }
    return found | {name: _version(name) for name in PACKAGES}


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def provenance(
    model: Any = None,
    *,
    texts_sha: str | None = None,
    seed: int | None = None,
    command: Sequence[str] | str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """What to keep beside a result so that it can be made again.

    Parameters
    ----------
    model
        A model of the toolkit; its ``describe()`` (with the hash of its weights) is kept.
    texts_sha
        SHA-256 of the texts.
    seed
        The seed that the run was given.
    command
        The command line, as words or as one string.
    extra
        Further JSON values, kept under their names.

    Returns
    -------
    dict
        JSON-able. It holds no time, user or path, so the same run gives the same record.
    """
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else os.cpu_count()
    record: dict[str, Any] = {
        "versions": versions(),
        "platform": {"system": platform.system(), "machine": platform.machine(), "threads": threads},
    }
    given = {"texts_sha256": texts_sha, "seed": seed}
    record |= {name: value for name, value in given.items() if value is not None}
    if model is not None:
        record["model"] = model.describe()
    if command is not None:
        record["command"] = command if isinstance(command, str) else list(command)
    return record | extra


def digest(record: Mapping[str, Any]) -> str | None:
    """Twelve hex digits of the SHA-256 of a provenance; equal where two records say the same. None for an empty one."""
    if not record:
        return None
    text = json.dumps(record, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]
