"""Your own labels: a CSV or JSON-lines file of texts, places in them and labels, onto a model's tokens.

A row says a ``text``, where in it (a ``token`` index, or a span ``start``/``end`` in characters; nothing: the last
token), and a ``label``. Every row that cannot be used is named with its line and the reason.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError, nearest

if TYPE_CHECKING:
    from interp.tokens import Tokens

__all__ = ["Labelled", "read_labels"]

_FIELDS = ("text", "token", "start", "end", "label")
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Tokens with a label where the file gave one."""

    tokens: Tokens
    labels: Int64[Tensor, "batch pos"]
    """Code of the class, -100 where there is none."""
    classes: tuple[str, ...]


def read_labels(model: Any, path: str | Path) -> Labelled:
    """Read ``path`` (.csv, or .jsonl with an object a line) and place its labels on the model's tokens.

    Token indices count the text's own tokens from 0 (a beginning mark that the model adds is not counted), negative
    from the end. A span labels the last token that overlaps it.

    Raises
    ------
    InputError
        The file is missing, or rows lack a text or label, point outside their text, or label a token twice
        differently; the message names the first such lines and their number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}")
    rows, wrong = [], []
    for line, row in _rows(path):
        reason = row if isinstance(row, str) else _fault(row)
        if reason:
            wrong.append(f"line {line}: {reason}")
        else:
            rows.append((line, row))
    _refuse(path, wrong)
    if not rows:
        raise InputError(f"{path} holds no rows")
    texts = list(dict.fromkeys(str(row["text"]) for _, row in rows))
    tokens = model.tokens(texts)
    classes = tuple(sorted({str(row["label"]) for _, row in rows}))
    labels = torch.full(tokens.ids.shape, -100, dtype=torch.long)
    number, placed = {text: i for i, text in enumerate(texts)}, _Placing(model, tokens, texts)
    for line, row in rows:
        which = number[str(row["text"])]
        column = placed.column(which, row)
        if isinstance(column, str):
            wrong.append(f"line {line}: {column}")
            continue
        code = classes.index(str(row["label"]))
        if labels[which, column] not in (-100, code):
            other = classes[int(labels[which, column])]
            wrong.append(
                f"line {line}: the same token is {other!r} in an earlier line and {row['label']!r} here"
            )
            continue
        labels[which, column] = code
    _refuse(path, wrong)
    if len(classes) < 2:
        raise InputError(
            f"{path} gives every row the label {', '.join(map(repr, classes))}; a probe needs at least two classes"
        )
    return Labelled(tokens=tokens, labels=labels, classes=classes)


def _refuse(path: Path, wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{path}: {'; '.join(wrong[:_SHOWN])}{more}")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                if None in row or None in row.values():
                    yield reader.line_num, "another number of fields than the header"
                else:
                    yield reader.line_num, {k: v for k, v in row.items() if v != ""}
            return
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                yield line, f"not JSON ({error})"
                continue
            yield line, row if isinstance(row, dict) else "not an object"


def _fault(row: Mapping[str, Any]) -> str:
    for name in ("text", "label"):
        if not str(row.get(name, "")).strip():
            close = nearest(name, [k for k in row if k not in _FIELDS])
            return f"no {name!r}{close}"
    for name in ("token", "start", "end"):
        if name in row:
            try:
                int(row[name])
            except (TypeError, ValueError):
                return f"{name} = {row[name]!r} is no whole number"
    if ("start" in row) != ("end" in row):
        return "a span needs both 'start' and 'end'"
    return ""


class _Placing:
    """Where in a row of tokens a place in its text is."""

    def __init__(self, model: Any, tokens: Tokens, texts: list[str]) -> None:
        self.model, self.tokens, self.texts = model, tokens, texts
        self.offsets: dict[int, list[tuple[int, int]]] = {}

    def column(self, which: int, row: Mapping[str, Any]) -> int | str:
        """The column, or why there is none."""
        real = torch.nonzero(self.tokens.mask[which]).flatten().tolist()
        spans = self._spans(which, len(real))
        own = real[len(real) - len(spans) :]
        if "start" in row:
            start, end = int(row["start"]), int(row["end"])
            if not 0 <= start < end <= len(self.texts[which]):
                return f"span {start}-{end} lies outside the text of {len(self.texts[which])} characters"
            over = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
            return own[over[-1]] if over else f"span {start}-{end} covers no token"
        index = int(row.get("token", -1))
        if not -len(own) <= index < len(own):
            return f"token {index} lies outside the text's {len(own)} tokens"
        return own[index]

    def _spans(self, which: int, n_real: int) -> list[tuple[int, int]]:
        """Characters of each of the text's own tokens."""
        if which not in self.offsets:
            coded = self.model.tokenizer(
                self.texts[which], add_special_tokens=False, return_offsets_mapping=True
            )
            spans = [(int(a), int(b)) for a, b in coded["offset_mapping"]]
            if len(spans) > n_real:
                raise InputError(f"text {which} has {len(spans)} tokens, of which the model takes {n_real}")
            self.offsets[which] = spans
        return self.offsets[which]
