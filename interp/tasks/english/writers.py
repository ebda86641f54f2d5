"""Which tasks are written in English, by which function, with which corruptions; and the drawing of different pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random

from interp.errors import InputError
from interp.tasks.english.numbers import calendar, greater_than
from interp.tasks.english.people import gender, indirect_object
from interp.tasks.english.sentences import agreement, docstring
from interp.tasks.pairs import Draft, Pair, Words, fit

__all__ = ["WRITERS", "Writer", "different", "write"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A function (words, split, corruption, random) that writes drafts without end, and the corruptions it knows."""

    drafts: Callable[[Words, str, str, Random], Iterator[Draft]]
    corruptions: tuple[str, ...]


WRITERS: Mapping[str, Writer] = {
    "ioi": Writer(drafts=indirect_object, corruptions=("abc", "swap", "random_s2")),
    "greater_than": Writer(drafts=greater_than, corruptions=("year01",)),
    "docstring": Writer(drafts=docstring, corruptions=("random_random", "random_def", "random_doc")),
    "gender": Writer(drafts=gender, corruptions=("other_gender",)),
    "sva": Writer(drafts=agreement, corruptions=("other_number",)),
    "calendar": Writer(drafts=calendar, corruptions=("other_base", "other_offset")),
}
PATIENCE = 10
"""Drafts in a row without a new pair, per pair that was found, after which a split counts as exhausted."""


def write(task: str, words: Words, *, n: int, split: str, corruption: str, random: Random) -> list[Pair]:
    """The first ``n`` different pairs; those of a smaller ``n`` are the beginning of those of a larger.

    Raises
    ------
    InputError
        Too few words are one token, or too few drafts line up, or the split has no ``n`` different prompts.
    """
    drafts = WRITERS[task].drafts(words, split, corruption, random)
    return different((fitted for chunk in _chunks(drafts, n) for fitted in fit(words, chunk)), n=n, task=task)


def _chunks(drafts: Iterator[Draft], size: int) -> Iterator[list[Draft]]:
    while True:
        yield list(islice(drafts, min(size, 256)))


def different(fitted: Iterator[Pair | str], *, n: int, task: str) -> list[Pair]:
    """The first ``n`` pairs whose clean prompts differ."""
    found: dict[tuple[int, ...], Pair] = {}
    refused: list[str] = []
    idle = tries = 0
    while len(found) < n and idle < 200 + PATIENCE * len(found):
        item, tries, idle = next(fitted), tries + 1, idle + 1
        if isinstance(item, str):
            refused.append(item)
        elif item.clean not in found:
            found[item.clean], idle = item, 0
    if len(found) == n:
        return list(found.values())
    why = f"; {len(refused)} did not fit this tokenizer, the first because {refused[0]}" if refused else ""
    raise InputError(
        f"{task}: only {len(found)} different prompts in {tries} drafts, {n} were asked for{why}. Ask for fewer"
    )
