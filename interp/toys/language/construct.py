"""What a construct with a right answer is, and what all of them are written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interp.toys.language.lexicon import Word
from interp.toys.language.writing import Dice, Page

__all__ = ["Construct", "Facts", "fill", "fill_opening", "others"]

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Construct:
    """A kind of text that asks for something."""

    draw: Callable[[Dice, str | None], Facts]
    """(dice, reason): facts of the training text where the reason is None, else held-out ones of that kind."""
    write: Callable[[Page, Dice, Facts], None]
    right: Callable[[Facts], tuple[Word, ...]]
    wrong: Callable[[Facts], tuple[Word, ...]]
    heldout: tuple[str, ...]
    """The kinds of held-out combinations."""


def fill(page: Page, text: str, slots: Mapping[str, Word]) -> None:
    """Write a template: words, and slots such as ``{p}``."""
    for piece in text.split():
        page.say(slots[piece[1:-1]] if piece.startswith("{") else piece)


def fill_opening(page: Page, text: str, slots: Mapping[str, Word]) -> None:
    """Write an opening; of a subordinate one (``When ... ,``) all between the first word and the comma is inside."""
    first, _, rest = text.partition(" ")
    if first not in ("When", "While", "After", "Before") or not rest.endswith(" ,"):
        fill(page, text, slots)
        return
    page.say(first)
    page.depth += 1
    fill(page, rest.removesuffix(" ,"), slots)
    page.depth -= 1
    page.say(",")


def others(words: tuple[Word, ...], but: Word) -> tuple[Word, ...]:
    """The wrong answers among ``words``."""
    return tuple(word for word in words if word is not but)
