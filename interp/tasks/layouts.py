"""Layouts: which columns hold a pair and its answer, and how an answer is worked out where no column holds it.

A layout turns a row into a draft or says what is wrong with the row. Read next: `reading.py`, which applies it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import InputError, nearest
from interp.tasks.english.numbers import year_tokens
from interp.tasks.pairs import Draft, Pair, Words

__all__ = ["Layout", "Row", "recognise"]

Row = Mapping[str, Any]
ROLES = ("clean", "corrupted", "answer", "wrong")
ALIASES = {
    "clean": ("clean", "clean_prompt", "clean_prefix", "prompt"),
    "corrupted": (
        "corrupted",
        "corrupted_prompt",
        "corrupt",
        "corrupt_prompt",
        "patch_prefix",
        "counterfactual",
    ),
    "answer": ("answer", "answers", "clean_answer", "correct", "correct_answer", "target"),
    "wrong": ("wrong", "wrong_answer", "wrong_answers", "patch_answer", "incorrect", "corrupted_answer"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the parts of a row are."""

    name: str
    columns: Mapping[str, str]
    """Role -> column."""
    write: Callable[[Layout, Row, Words, bool], Draft | str]
    task: str | None = None
    """The task the rows are known to be of; else it is called after the file."""
    fixed: str | None = None
    """The measure that belongs to it, where the presence of wrong answers does not decide."""

    @property
    def needs_wrong(self) -> bool:
        """Whether each row must have a wrong answer: there is a column for it."""
        return "wrong" in self.columns

    def measure(self, pairs: Sequence[Pair]) -> str:
        """What to compute when nothing else is asked for."""
        if self.fixed:
            return self.fixed
        return "logit_difference" if all(pair.wrong for pair in pairs) else "log_probability"

    def draft(self, row: Row, words: Words, space: bool) -> Draft | str:
        """The row as a draft, or what is wrong with it."""
        missing = [column for column in self.columns.values() if column not in row]
        if missing:
            return f"there is no {missing[0]!r}"
        for column in self.columns.values():
            if row[column] is None or (isinstance(row[column], str) and not row[column].strip()):
                return f"cell {column!r} is empty"
        for role in ("clean", "corrupted"):
            if not isinstance(row[self.columns[role]], str):
                return f"cell {self.columns[role]!r} is no text"
        return self.write(self, row, words, space)

    def cell(self, row: Row, role: str) -> Any:
        """What a row holds for a role."""
        return row[self.columns[role]]

    def facts(self, row: Row) -> dict[str, Any]:
        """The other columns."""
        return {key: value for key, value in row.items() if key and key not in self.columns.values()}


def recognise(source: Path, rows: Sequence[Row | str], columns: Mapping[str, str]) -> Layout:
    """The layout of a file, from the names of its columns.

    Raises
    ------
    InputError
        ``columns`` names a role or a column that there is not, or no column fits a role.
    """
    present = list(dict.fromkeys(key for row in rows if not isinstance(row, str) for key in row))
    for role, column in columns.items():
        if role not in ROLES:
            raise InputError(
                f"columns= names the role {role!r}{nearest(role, ROLES)} (roles: {', '.join(ROLES)})"
            )
        if column not in present:
            raise InputError(
                f"{source} has no column {column!r}{nearest(column, present)} (it has: {present})"
            )
    found = dict(columns)
    for role in ROLES:
        column = next((alias for alias in ALIASES[role] if alias in present), None)
        if role not in found and column is not None:
            found[role] = column
    pair = {role: found[role] for role in ("clean", "corrupted") if role in found}
    if len(pair) == 2 and "answer" not in found:
        if "label" in present:
            return Layout(
                name="years",
                columns={**pair, "label": "label"},
                write=_year,
                task="greater_than",
                fixed="probability_difference",
            )
        if {"correct_idx", "incorrect_idx"} <= set(present):
            return Layout(name="names", columns=pair, write=_names, task="ioi", fixed="logit_difference")
    lacking = [role for role in ROLES[:3] if role not in found]
    if lacking:
        known = ", ".join(ALIASES[lacking[0]])
        raise InputError(
            f"{source} has the columns {present}; none of them is known to hold {lacking[0]!r} ({known}): "
            f"say which with columns={{{lacking[0]!r}: ...}}"
        )
    task = "sva" if {"patch_prefix", "patch_answer"} <= set(found.values()) else None
    return Layout(name="columns", columns=found, write=_plain, task=task)


def _plain(layout: Layout, row: Row, words: Words, space: bool) -> Draft | str:
    """A row whose columns hold everything."""
    sets = {}
    for role in ("answer", "wrong"):
        cell = _several(layout.cell(row, role)) if role in layout.columns else []
        if isinstance(cell, str):
            return f"cell {layout.columns[role]!r} {cell}"
        sets[role] = [a if a[0].isspace() or not space else f" {a}" for a in cell]
    return Draft(
        clean=layout.cell(row, "clean"),
        corrupted=layout.cell(row, "corrupted"),
        answers=sets["answer"],
        wrong=sets["wrong"],
        facts=layout.facts(row),
    )


def _several(cell: Any) -> list[str] | str:
    """The answers of a cell, a text or a list of texts (in a table: written as JSON), or what is wrong with it."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return "begins like a list and is none"
    items = cell if isinstance(cell, list) else [cell]
    if not items or not all(isinstance(item, str) and item.strip() for item in items):
        return "holds no text, or an empty one"
    return items


_YEAR = re.compile(r"(\d\d)(\d\d)\b")


def _year(layout: Layout, row: Row, words: Words, space: bool) -> Draft | str:
    """``... the year 1732 ... the year 17`` with the label 32: right are the endings after it."""
    clean, label = layout.cell(row, "clean"), str(layout.cell(row, "label")).strip()
    year = _YEAR.search(clean)
    if not label.isdecimal() or year is None or int(label) != int(year[2]):
        shown = "no year of four digits" if year is None else f"the year {year[0]}"
        return f"label {label!r} does not fit the prompt, which has {shown}"
    if not clean.endswith(year[1]):
        return f"the prompt does not end in the century {year[1]}"
    if year[2] == "99":
        return "no ending is after 99"
    digits, _ = year_tokens(words)
    return Draft(
        clean=clean,
        corrupted=layout.cell(row, "corrupted"),
        answers=digits[int(label) + 1 :],
        wrong=digits[: int(label) + 1],
        facts={**layout.facts(row), "century": int(year[1]), "year": int(label)},
    )


_NAMES = re.compile(r"\b([A-Z][a-z]+) and ([A-Z][a-z]+)\b")


def _names(layout: Layout, row: Row, words: Words, space: bool) -> Draft | str:
    """Two names joined by "and", one of which acts again: the other one is the answer."""
    clean = layout.cell(row, "clean")
    pair = _NAMES.search(clean)
    if pair is None:
        return "there are no two names joined by 'and'"
    again = [name for name in pair.groups() if re.search(rf"\b{name}\b", clean[pair.end() :])]
    if len(again) != 1:
        return f"of {pair[1]} and {pair[2]}, {'both' if again else 'neither'} is named again: the answer is not clear"
    s = again[0]
    io = pair[1] if s == pair[2] else pair[2]
    indices = ("correct_idx", "incorrect_idx")
    facts = {key: value for key, value in layout.facts(row).items() if key not in indices}
    return Draft(
        clean=clean,
        corrupted=layout.cell(row, "corrupted"),
        answers=(f" {io}",),
        wrong=(f" {s}",),
        facts={**facts, "io": io, "s": s, "order": "ABBA" if io == pair[1] else "BABA"},
    )
