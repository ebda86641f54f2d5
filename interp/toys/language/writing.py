"""The page and the dice: what a document is written with.

Every choice goes through :class:`Dice`, which adds up its log-probability, so that a document comes with the
probability of the choices that made it: the generator's own entropy. The text is then a function of the choices
(almost always one that can be undone), so the mean of ``-log p`` is an upper bound of the text's entropy and, to
within the rare ambiguous derivation, equal to it.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence
from typing import TypeVar

from interp.errors import InputError
from interp.toys.language.lexicon import IGNORE, Word, lexicon

__all__ = ["Dice", "Page", "whole"]

T = TypeVar("T")


@functools.cache
def _cumulative(weights: tuple[float, ...]) -> list[float]:
    return list(itertools.accumulate(weights))


def whole(name: str, value: object, *, least: int = 0, below: int | None = None) -> None:
    """Refuse what is no whole number from ``least`` on (and below ``below``)."""
    if type(value) is not int or value < least or (below is not None and value >= below):
        top = "" if below is None else f" and below {below}"
        raise InputError(f"{name} must be a whole number of at least {least}{top}, got {value!r}")


class Dice:
    """Seeded choices that know their probability.

    Attributes
    ----------
    nats
        Minus the log-probability of all choices so far.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.nats = 0.0

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``, each as likely as any."""
        self.nats += math.log(len(options))
        return options[int(self._random.random() * len(options))]

    def some(self, options: Sequence[T], n: int) -> list[T]:
        """``n`` different ones in random order."""
        for i in range(n):
            self.nats += math.log(len(options) - i)
        return self._random.sample(options, n)

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """One of ``options``, with probability in proportion to ``weights``."""
        sums = _cumulative(tuple(weights))
        chosen = self._random.choices(range(len(options)), cum_weights=sums)[0]
        self.nats -= math.log(weights[chosen] / sums[-1])
        return options[chosen]

    def unsaid(self, n_options: int) -> None:
        """Take back the cost of a choice among ``n_options`` that the text will not show."""
        self.nats -= math.log(n_options)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        yes = self._random.random() < probability
        self.nats -= math.log(probability if yes else 1 - probability)
        return yes

    def whole(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        self.nats += math.log(high - low + 1)
        return low + int(self._random.random() * (high - low + 1))


@functools.cache
def _words(text: str) -> tuple[Word, ...]:
    return tuple(lexicon().fixed[part] for part in text.split())


class Page:
    """A document under way: its words, and what is known about each beyond the lexicon.

    ``depth``, ``agreement`` and ``mood`` are states: every word written gets the present value.
    """

    __slots__ = (
        "_entities", "agreement", "agreements", "answer", "depth", "depths", "entities", "mood", "moods", "words",
    )  # fmt: skip

    def __init__(self) -> None:
        self.words: list[Word] = []
        self.entities: list[int] = []
        self.depths: list[int] = []
        self.agreements: list[int] = []
        self.moods: list[int] = []
        self.depth, self.agreement, self.mood = 0, IGNORE, IGNORE
        self._entities: dict[object, int] = {}
        self.answer: int | None = None
        """Where the answer of the document's task stands."""

    def say(self, *parts: str | Word, entity: object = None) -> None:
        """Write function words (a string of them) and words; a name or the words of ``entity`` get its number."""
        number = IGNORE if entity is None else self.number(entity)
        for part in parts:
            for word in _words(part) if isinstance(part, str) else (part,):
                self.words.append(word)
                self.entities.append(self.number(word) if word.pos == "name" and entity is None else number)
                self.depths.append(self.depth)
                self.agreements.append(self.agreement)
                self.moods.append(self.mood)

    def number(self, entity: object) -> int:
        """The number of a participant; a new one gets the next."""
        return self._entities.setdefault(entity, len(self._entities))

    def mark(self) -> None:
        """The next word is the answer."""
        self.answer = len(self.words)

    def __len__(self) -> int:
        return len(self.words)
