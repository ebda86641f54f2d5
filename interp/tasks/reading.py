"""``interp.tasks.read``: your own pairs of prompts, from CSV or JSON lines, with every unusable row named."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.tasks.layouts import Layout, Row, recognise
from interp.tasks.loading import made, words_of
from interp.tasks.pairs import Draft, Pair, Words, fit
from interp.tasks.task import Task

__all__ = ["read"]

SHOWN = 20
"""How many unusable rows an error lists."""


def read(  # one parameter over seven: where the data is, how it is laid out, what to do with bad rows
    path: str | Path,
    *,
    model: Any = None,
    tokenizer: Any = None,
    columns: Mapping[str, str] | None = None,
    measure: str | None = None,
    space: bool = True,
    on_error: str = "raise",
    prepend_bos: bool | None = None,
) -> Task:
    """A task from a CSV, TSV or JSON-lines file with a pair of prompts and its answer in every row.

    Parameters
    ----------
    path
        ``.csv``/``.tsv`` with a header line, or ``.jsonl``/``.ndjson`` with an object a line; UTF-8.
    model, tokenizer
        A model of the toolkit with a tokenizer, or a tokenizer.
    columns
        The columns of ``clean``, ``corrupted``, ``answer`` and ``wrong``, where their names are not recognised, as
        ``{"clean": "my prompt", ...}``. Recognised are those four and some others (an error lists them), and
        three published layouts, whose answers are worked out from the prompts: years (``clean, corrupted, label``),
        indirect objects (``clean, corrupted, correct_idx, incorrect_idx``: the indices belong to one tokenizer, so the
        answer is the name that is not repeated), and agreement (``clean_prefix, patch_prefix, clean_answer,
        patch_answer``). All other columns become facts.
    measure
        Of the task: ``logit_difference``, ``probability_difference``, or ``log_probability``. By default what fits
        the layout: log-probability where there are no wrong answers.
    space
        Put a space before answers that have none; False: they follow the prompt as they are.
    on_error
        ``"raise"``: rows that cannot be used are listed in one error; ``"skip"``: they are left out, and counted and
        listed in the task's ``provenance["skipped"]``.
    prepend_bos
        Whether prompts begin with the beginning-of-sequence token; None: where the tokenizer has one.

    Returns
    -------
    Task
        The usable rows in the file's order; ``facts["row"]`` is the row's number, from 1. Cells may hold several
        answers: a JSON list. Prompts of different rows may differ in length, those of a pair may not.

    Raises
    ------
    InputError
        The file is missing, empty, or not what its name says; columns are missing; or rows are unusable: an empty
        cell, prompts of different lengths or without difference, an answer that is not one token or also wrong.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error={on_error!r}; it is 'raise' or 'skip'")
    source = Path(path)
    words = words_of(model, tokenizer, prepend_bos)
    assert words is not None
    rows = list(_rows(source))
    if not rows:
        raise InputError(f"{source} has no rows")
    if not any(isinstance(row, dict) for row in rows):
        shown = [f"row {i}: {row}" for i, row in enumerate(rows[:SHOWN], start=1)]
        raise InputError("\n".join([f"{source}: none of its {len(rows)} rows can be used", *shown]))
    layout = recognise(source, rows, columns or {})
    outcome = _outcomes(words, layout, rows, space)
    bad = [f"row {i}: {item}" for i, item in enumerate(outcome, start=1) if isinstance(item, str)]
    pairs = [item for item in outcome if isinstance(item, Pair)]
    if bad and (on_error == "raise" or not pairs):
        hint = "" if not pairs else "; on_error='skip' leaves them out"
        more = [f"... and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        raise InputError(
            "\n".join([f"{source}: {len(bad)} of {len(rows)} rows cannot be used{hint}", *bad[:SHOWN], *more])
        )
    provenance = {
        "source": "file",
        "file": source.name,
        "layout": layout.name,
        "columns": dict(layout.columns),
        "skipped": bad,
    }
    chosen = measure or layout.measure(pairs)
    return made(pairs, layout.task or source.stem, chosen, words, model, known=None, provenance=provenance)


def _outcomes(words: Words, layout: Layout, rows: Sequence[Row | str], space: bool) -> list[Pair | str]:
    """Every row as a pair, or why it is none."""
    drafts: list[Draft | str] = []
    for i, row in enumerate(rows, start=1):
        draft = row if isinstance(row, str) else layout.draft(row, words, space)
        drafts.append(draft if isinstance(draft, str) else _numbered(draft, i))
    fitted = iter(fit(words, [draft for draft in drafts if isinstance(draft, Draft)]))
    outcome = [next(fitted) if isinstance(draft, Draft) else draft for draft in drafts]
    if layout.needs_wrong:
        return [
            "there is no wrong answer" if isinstance(item, Pair) and not item.wrong else item
            for item in outcome
        ]
    return outcome


def _numbered(draft: Draft, number: int) -> Draft:
    return Draft(
        clean=draft.clean,
        corrupted=draft.corrupted,
        answers=draft.answers,
        wrong=draft.wrong,
        facts={**draft.facts, "row": number},
    )


def _rows(source: Path) -> Iterator[Row | str]:
    """The rows as column -> cell, or why a line is no row."""
    readers = {".csv": _table, ".tsv": _table, ".jsonl": _objects, ".ndjson": _objects}
    if source.suffix.lower() not in readers:
        raise InputError(f"{source.name!r}: pairs of prompts are read from {', '.join(readers)}")
    if not source.is_file():
        raise InputError(f"no file {str(source)!r}" + (" (it is a folder)" if source.is_dir() else ""))
    with source.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield from readers[source.suffix.lower()](stream, source)
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not UTF-8 text: {error.reason}") from error


def _table(stream: Any, source: Path) -> Iterator[Row | str]:
    delimiter = "\t" if source.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
    try:
        doubled = [name for name, times in Counter(reader.fieldnames or ()).items() if times > 1]
        if doubled:
            raise InputError(f"{source} has the column {doubled[0]!r} more than once")
        for row in reader:
            if None in row:
                yield f"it has {len(row[None])} cells more than the header"
            elif None in row.values():
                yield f"it has {sum(cell is None for cell in row.values())} cells fewer than the header"
            else:
                yield dict(row)
    except csv.Error as error:
        raise InputError(f"{source}, behind line {reader.line_num}: not CSV ({error})") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _objects(stream: Any, source: Path) -> Iterator[Row | str]:
    for line in stream:
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            yield f"not JSON ({error})"
            continue
        yield value if isinstance(value, dict) else f"a row is a JSON object, got {type(value).__name__}"
