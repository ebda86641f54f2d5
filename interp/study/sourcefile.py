"""A model out of a Python file of the user's own: ``interp analyze net.py:make``.

Naming the file and the function is the user's word that the file may be run; no file is run otherwise.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from interp.errors import InputError, nearest
from interp.runs.files import sha256_file

__all__ = ["Made", "code_of", "is_source", "made_by"]

_VERSIONED = ("torch", "transformers", "transformer_lens", "nnsight", "interp")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """What the function returned."""

    model: Any
    inputs: Tensor | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    sha256: str
    """Of the file."""


def is_source(text: str) -> bool:
    """Whether ``text`` names a function in a Python file: ``path/to/net.py:make``."""
    path, colon, name = text.rpartition(":")
    return bool(colon) and path.endswith(".py") and name.isidentifier()


def made_by(text: str, *, backend: Any = "auto", device: str = "auto") -> Made:
    """Run the file, call the function, take what it returns: a model, ``(model, inputs)``, or with labels as a third.

    ``device`` is where the model is put (``"auto"``: it stays where the function left it), ``backend`` the library that
    runs a model of tokens.

    Raises
    ------
    InputError
        There is no such file or function, it raises, or returns something else; or ``backend`` cannot run a network
        with inputs of its own.
    """
    path, _, name = text.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no file {path!r}")
    spec = importlib.util.spec_from_file_location(f"_studied_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling inside the file look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001  (the user's file may raise anything)
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    make = getattr(module, name, None)
    if not callable(make):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(
            f"{path} has no function {name!r}{nearest(name, known)} (it has {', '.join(known) or 'none'})"
        )
    try:
        found = make()
    except Exception as error:  # noqa: BLE001
        raise InputError(f"{text} raised {type(error).__name__}: {error}") from error
    parts: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    model, inputs, labels = (*parts, None, None)[:3] if len(parts) <= 3 else (None, None, None)
    if not (isinstance(model, nn.Module) or hasattr(model, "capture")):
        raise InputError(
            f"{text} returned {_said(parts)}; it returns a module, (module, inputs), or (module, inputs, labels)"
        )
    if inputs is not None and not isinstance(inputs, Tensor):
        raise InputError(
            f"the inputs that {text} returned are a {type(inputs).__name__}; a tensor was expected"
        )
    if device != "auto":
        net: Any = getattr(model, "module", model)
        net.to(device)  # inputs follow the parameters
    if inputs is not None and backend not in ("auto", "torch"):
        raise InputError(
            f"backend {backend!r} does not run {text}, which brings its own inputs; take 'torch' or 'auto'"
        )
    if inputs is None and not hasattr(model, "capture"):
        from interp import load

        model = load(model, backend=backend)
    return Made(model=model, inputs=inputs, labels=dict(labels or {}), sha256=sha256_file(file))


def code_of(module: Any) -> str:
    """SHA-256 of how a network of the user's own computes: its parts as printed, and the source of their classes.

    Classes of packages whose versions a study records go by their names, and so does one without a source to read.
    """
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(module)).encode())
    for kind in sorted(
        {type(part) for part in module.modules()}, key=lambda k: (k.__module__, k.__qualname__)
    ):
        if kind.__module__.partition(".")[0] not in _VERSIONED:
            try:
                digest.update(inspect.getsource(kind).encode())
            except (OSError, TypeError):
                digest.update(kind.__qualname__.encode())
    return digest.hexdigest()


def _said(parts: tuple[Any, ...]) -> str:
    return ", ".join(type(part).__name__ for part in parts)
