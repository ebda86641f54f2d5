"""Texts from a file, one at a time: JSON lines or plain text, never the whole corpus at once.

Every command that takes `--texts FILE` reads it here. Read next: `harvesting.py`, which streams them through a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from interp.errors import InputError, nearest

__all__ = ["read_texts"]


def read_texts(path: str | Path, *, field: str = "text", limit: int | None = None) -> Iterator[str]:
    """The texts of a file, in order.

    Parameters
    ----------
    path
        `.jsonl`/`.ndjson`: one JSON object a line, whose `field` is the text, or one JSON string a line.
        Anything else: UTF-8 text in which blank lines part one text from the next.
    field
        The key that holds the text.
    limit
        At most this many texts.

    Raises
    ------
    InputError
        The file is missing, is not UTF-8, holds no text, or has a line that is no JSON, lacks `field`, or whose
        text is empty: each with the line's number. Raised when the text in question is reached.
    """
    if limit is not None and limit < 1:
        raise InputError(f"at least one text is needed, got limit={limit}")
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no text file {str(source)!r}" + (" (it is a folder)" if source.is_dir() else ""))
    return islice(_texts(source, field), limit)


def _texts(source: Path, field: str) -> Iterator[str]:
    reader = _json_lines if source.suffix in {".jsonl", ".ndjson"} else _paragraphs
    empty = True
    with source.open(encoding="utf-8") as stream:
        try:
            for text in reader(stream, source, field):
                empty = False
                yield text
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source} is not UTF-8 text: {error.reason} at byte {error.start} of a block"
            ) from error
    if empty:
        raise InputError(f"{source} holds no text")


def _json_lines(stream: TextIO, source: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"{source}, line {number}: not JSON ({error})") from error
        if isinstance(value, dict):
            if field not in value:
                raise InputError(
                    f"{source}, line {number}: no field {field!r} among {sorted(value)}{nearest(field, value)}"
                )
            value = value[field]
        if not isinstance(value, str):
            raise InputError(f"{source}, line {number}: a text is a string, got {type(value).__name__}")
        if not value.strip():
            raise InputError(f"{source}, line {number}: the text is empty")
        yield value


def _paragraphs(stream: TextIO, source: Path, field: str) -> Iterator[str]:
    lines: list[str] = []
    for line in stream:
        if line.strip():
            lines.append(line.rstrip("\n"))
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)
