"""A task in one file of JSON lines: a header line, then one line per pair with its texts, ids and facts.

The header holds the text of every token that occurs, so a task read back shows its strings without a tokenizer,
and the hash of prompts and answers, which is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from interp.errors import StoreError
from interp.runs.files import json_bytes, write_bytes_atomic
from interp.tasks.pairs import Pair
from interp.tasks.published import Reference, reference
from interp.tasks.scoring import NONE
from interp.tokens import Tokens

__all__ = ["SCHEMA", "Paired", "parts_of", "read_lines", "to_lines", "write_lines"]

SCHEMA = 1
FORMAT = "interp task"


@runtime_checkable
class Paired(Protocol):
    """What is written of a :class:`interp.tasks.Task`."""

    @property
    def name(self) -> str: ...
    @property
    def measure(self) -> str: ...
    @property
    def clean(self) -> Tokens: ...
    @property
    def corrupted(self) -> Tokens: ...
    @property
    def answers(self) -> Tensor: ...
    @property
    def wrong(self) -> Tensor: ...
    @property
    def facts(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def texts(self) -> Sequence[tuple[str, str]]: ...
    @property
    def reference(self) -> Reference | None: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...
    def describe(self) -> dict[str, Any]: ...


def to_lines(task: Paired) -> list[dict[str, Any]]:
    """The header and a row per pair, as JSON values."""
    rows = []
    for i, (texts, fact) in enumerate(zip(task.texts, task.facts, strict=True)):
        rows.append(
            {
                "clean": texts[0],
                "corrupted": texts[1],
                "clean_ids": _real(task.clean, i),
                "corrupted_ids": _real(task.corrupted, i),
                "answers": [j for j in task.answers[i].tolist() if j != NONE],
                "wrong": [j for j in task.wrong[i].tolist() if j != NONE],
                "facts": dict(fact),
            }
        )
    shown = ("clean_ids", "corrupted_ids", "answers", "wrong")
    used = {_padding(task), *(j for row in rows for key in shown for j in row[key])}
    known = None if task.reference is None else [task.reference.task, task.reference.version]
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": task.name,
        "measure": task.measure,
        "reference": known,
        "provenance": dict(task.provenance),
        "prompts_sha256": task.describe()["prompts_sha256"],
        "tokens": {str(j): task.clean.show(j) for j in sorted(used)},
        "pad": _padding(task),
        "side": "right" if bool(task.clean.mask[:, 0].all()) else "left",
    }
    return [header, *rows]


def write_lines(task: Paired, path: str | Path) -> Path:
    """Write ``task`` so that ``path`` holds all of it or what it held before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, b"".join(json_bytes(line) + b"\n" for line in to_lines(task)))
    return path


def _real(tokens: Tokens, row: int) -> list[int]:
    return tokens.ids[row][tokens.mask[row]].tolist()


def _padding(task: Paired) -> int:
    padded = task.clean.ids[~task.clean.mask]
    return int(padded[0]) if len(padded) else 0


def parts_of(lines: list[dict[str, Any]], *, source: str | Path) -> tuple[list[Pair], dict[str, Any], str]:
    """The pairs that :func:`to_lines` wrote, the options of ``Task.of`` beside them, and the hash they must have.

    Raises
    ------
    StoreError
        The lines are foreign or of a later schema; ``source`` is what the message calls them.
    KeyError, TypeError, AttributeError, ValueError
        Something is missing or of another type.
    """
    header, rows = _checked(lines, source)
    strings = {int(key): str(text) for key, text in header["tokens"].items()}
    known = header["reference"]
    options = {
        "name": header["name"],
        "measure": header["measure"],
        "show": lambda token: strings.get(token, str(token)),
        "pad": header["pad"],
        "side": header["side"],
        "reference": None if known is None else reference(known[0], version=known[1]),
        "provenance": header["provenance"],
    }
    return [_pair(row) for row in rows], options, header["prompts_sha256"]


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a task file; StoreError if there is none, or it is torn."""
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"no task at {path}")
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise StoreError(f"{path} is no task file, or it is torn: {error}") from error


def _checked(lines: list[dict[str, Any]], source: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not lines or not isinstance(lines[0], dict) or lines[0].get("format") != FORMAT:
        raise StoreError(f"{source} was not written by Task.save; read your own data with interp.tasks.read")
    if lines[0].get("schema") != SCHEMA:
        raise StoreError(f"{source} has task schema {lines[0].get('schema')!r}; this version reads {SCHEMA}")
    return lines[0], lines[1:]


def _pair(row: dict[str, Any]) -> Pair:
    return Pair(
        clean=tuple(row["clean_ids"]),
        corrupted=tuple(row["corrupted_ids"]),
        answers=tuple(row["answers"]),
        wrong=tuple(row["wrong"]),
        facts=row["facts"],
        texts=(row["clean"], row["corrupted"]),
    )
