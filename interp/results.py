"""Results: a number never travels alone.

Every measurement of the toolkit is a :class:`Result`: the raw values, how sure they are, how many samples stand
behind them, which convention was used, what chance would give, and where it all came from.
A Result knows how to become a table (:meth:`Result.to_frame`), a figure (:meth:`Result.plot`) and one file
(:meth:`Result.save`, a safetensors file whose header holds the rest as JSON; no pickle).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from interp.errors import InputError, StoreError, nearest
from interp.escaping import encodable, visible
from interp.runs.provenance import digest
from interp.showing import Shown, brief

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["SCHEMA", "Result"]

SCHEMA = 1
"""Version of the file layout; a reader refuses a later one."""

Kind = TypeVar(
    "Kind", bound="Result"
)  # not Self: the type checker of the test run knows it only inside decorated classes

_HEADER = "interp_result"
_KINDS: dict[str, type[Result]] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result(Shown):
    """A measured quantity with what is needed to judge it.

    Subclasses add fields (arrays, strings, numbers, tuples and mappings of those) and inherit everything else.
    Arrays along ``axes`` are labelled by ``ticks``, so that tables and figures need no further instruction.
    """

    name: str
    """The quantity, e.g. ``"linear CKA"``."""
    value: float | np.ndarray
    """The number, or an array of numbers with one axis per entry of ``axes``."""
    n: int
    """Samples behind each value."""
    convention: str
    """What exactly was computed, where the literature has more than one answer."""
    stderr: float | np.ndarray | None = None
    """Standard error, of ``value``'s shape."""
    interval: np.ndarray | None = None
    """Interval [..., 2] at ``level``: lower and upper end, ``value``'s shape before the last axis."""
    level: float = 0.95
    """Coverage of ``interval``."""
    chance: float | np.ndarray | None = None
    """What the same computation gives where there is nothing to find (a number, or an array like ``value``)."""
    axes: tuple[str, ...] = ()
    """Names of ``value``'s axes."""
    ticks: tuple[tuple[str, ...], ...] = ()
    """The labels along each axis."""
    reason: str | None = None
    """Why a value is not a number, where it is not."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: model, sites, seed, versions."""

    @property
    def n_over_d(self) -> float | None:
        """Samples per dimension, where the metric knows its dimension; below about 10 most values are biased."""
        return self.provenance.get("n_over_d")

    @property
    def caveat(self) -> str:
        """What few samples do to this value, or ``""``."""
        return self.provenance.get("caveat", "")

    @property
    def no_stderr(self) -> str:
        """Why there is no standard error, where there is none; or ``""``."""
        return self.provenance.get("no_stderr", "")

    @property
    def no_chance(self) -> str:
        """Why there is no chance level, where there is none; or ``""``."""
        return self.provenance.get("no_chance", "")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # slots=True builds the class twice; the second registration, under the same name, is the one that stays
        _KINDS[_kind(cls)] = cls

    def __repr__(self) -> str:
        name, convention = brief(self.name), brief(self.convention)
        why = "" if self.reason is None else f", {brief(self.reason)}"
        if np.ndim(self.value) == 0:
            spread = "" if self.stderr is None else f" ± {float(self.stderr):.2g}"
            chance = "" if self.chance is None else f", chance {float(np.mean(self.chance)):.3g}"
            return f"{name} = {float(self.value):.5g}{spread} (n = {self.n}{chance}; {convention}{why})"
        low, high = _span(np.asarray(self.value))
        return f"{name}: {self._shape()}, {low} to {high} (n = {self.n}; {convention}{why})"

    def _shape(self) -> str:
        sizes = zip(np.shape(self.value), self.axes, strict=False)
        return " x ".join(f"{size} {visible(axis)[:24]}" for size, axis in sizes)

    def _facts(self) -> dict[str, Any]:
        said: dict[str, Any] = {"name": self.name}
        if np.ndim(self.value) == 0:
            said["value"] = float(self.value)
            if self.stderr is not None:
                said["standard error"] = float(self.stderr)
            if self.interval is not None:
                said[f"{self.level:.0%} interval"] = " to ".join(f"{end:.4g}" for end in self.interval)
        else:
            said |= {"shape": self._shape(), "values": " to ".join(_span(np.asarray(self.value)))}
        if self.chance is not None:
            said["chance"] = float(np.mean(self.chance))
        said |= {"n": self.n, "convention": self.convention}
        own = {f.name: getattr(self, f.name) for f in fields(self)[_N_FIELDS:]}
        given = {
            "why there is no number": self.reason,
            "caveat": self.caveat or None,
            "provenance": digest(self.provenance),
        }
        return said | own | {label: value for label, value in given.items() if value is not None}

    def _listing(self) -> pd.DataFrame | None:
        return self.to_frame() if np.ndim(self.value) else None

    def to_frame(self) -> pd.DataFrame:
        """A tidy table: one row per value, a column per axis, then value, stderr, low, high, chance, n."""
        import pandas as pd

        value = np.asarray(self.value, dtype=float)
        columns: dict[str, Any] = {}
        for axis, (name, labels) in enumerate(zip(_unique(self.axes), self.ticks, strict=True)):
            index = np.indices(value.shape)[axis].ravel()
            words = [encodable(label) for label in labels]
            columns[encodable(name)] = [words[i] for i in index]
        if not self.axes:
            columns["name"] = [encodable(self.name)] * value.size
        columns["value"] = value.ravel()
        for column, array in (("stderr", self.stderr), ("chance", self.chance)):
            if array is not None:
                columns[column] = np.broadcast_to(np.asarray(array, dtype=float), value.shape).ravel()
        if self.interval is not None:
            ends = np.broadcast_to(self.interval, (*value.shape, 2)).reshape(-1, 2)
            columns["low"], columns["high"] = ends[:, 0], ends[:, 1]
        columns["n"] = self.n
        return pd.DataFrame(columns)

    def plot(self) -> go.Figure:
        """The figure that fits the shape: a heatmap for two axes, a line with its band for one, a bar for a number."""
        from interp import plots

        return plots.of_result(self)

    def save(self, path: str | Path) -> Path:
        """Write everything to one file: arrays as safetensors, the rest as JSON in its header.

        Raises
        ------
        InputError
            A field holds something that is neither an array nor JSON.
        """
        from safetensors.numpy import save

        path = Path(path)
        arrays: dict[str, np.ndarray] = {}
        record = {f.name: _encode(getattr(self, f.name), f.name, arrays) for f in fields(self)}
        header = {"schema": SCHEMA, "kind": _kind(type(self)), "record": record}
        arrays.setdefault(
            "_", np.zeros(0, dtype=np.uint8)
        )  # an empty file of tensors would have no body at all
        payload = save(arrays, metadata={_HEADER: json.dumps(header, allow_nan=False)})
        _write(path, payload)
        return path

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """Read a result back; ``Result.load`` accepts any kind, a subclass only its own.

        Raises
        ------
        StoreError
            The file is missing, foreign, torn, of a later schema, or of a kind that is not imported or not asked for.
        """
        path = Path(path)
        header, arrays = _read(path)
        kind = _KINDS.get(header["kind"])
        if kind is None:
            known = ", ".join(sorted(_KINDS))
            raise StoreError(
                f"{path} holds a {header['kind']!r}, which is not loaded here{nearest(header['kind'], _KINDS)}"
                f" (import its package first; loaded kinds: {known})"
            )
        if not issubclass(kind, cls):
            raise StoreError(f"{path} holds a {header['kind']!r}, not a {_kind(cls)!r}")
        try:
            values = {name: _decode(value, arrays) for name, value in header["record"].items()}
            names = {f.name for f in fields(kind)}
            if set(values) != names:
                raise StoreError(
                    f"{path} has fields {sorted(values)}; a {header['kind']!r} has {sorted(names)}"
                )
            return kind(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} cannot be read as a {header['kind']!r}: {error}") from error


_KINDS["interp.Result"] = Result
_N_FIELDS = len(fields(Result))


def _kind(cls: type) -> str:
    return f"{cls.__module__.split('.')[0]}.{cls.__qualname__}"


def _unique(axes: tuple[str, ...]) -> list[str]:
    """The axis names with repeated ones numbered: a site-by-site matrix has columns site and site_2."""
    seen: dict[str, int] = {}
    out = []
    for axis in axes:
        seen[axis] = seen.get(axis, 0) + 1
        out.append(axis if seen[axis] == 1 else f"{axis}_{seen[axis]}")
    return out


def _span(value: np.ndarray) -> tuple[str, str]:
    finite = value[np.isfinite(value)]
    return (f"{finite.min():.4g}", f"{finite.max():.4g}") if finite.size else ("nan", "nan")


def _encode(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON for ``value``; arrays go to ``arrays`` and leave a reference."""
    if isinstance(value, np.ndarray):
        arrays[place] = np.ascontiguousarray(value)
        return {"$array": place}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{place}.{i}", arrays) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) or key.startswith("$") for key in value):
            raise InputError(f"field {place!r} has keys that are not plain text: {list(value)[:5]}")
        return {key: _encode(item, f"{place}.{key}", arrays) for key, item in value.items()}
    raise InputError(
        f"field {place!r} holds a {type(value).__name__}; a result keeps arrays, text, numbers and their collections"
    )


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$array"}:
        return arrays[value["$array"]]
    if set(value) == {"$float"}:
        return float(value["$float"])
    if set(value) == {"$tuple"}:
        return tuple(_decode(item, arrays) for item in value["$tuple"])
    return {key: _decode(item, arrays) for key, item in value.items()}


def _write(path: Path, payload: bytes) -> None:
    from interp.runs.files import write_bytes_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, payload)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StoreError(f"no result at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata[_HEADER])
        schema, kind, record = header["schema"], header["kind"], header["record"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is no result file of this toolkit, or it is torn: {error}") from error
    if schema != SCHEMA or not isinstance(kind, str) or not isinstance(record, dict):
        raise StoreError(f"{path} has result schema {schema!r}; this version reads {SCHEMA}")
    return header, arrays
