"""Endless labelled text: the document number ``i`` of a seed is always the same, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from interp.errors import InputError
from interp.toys.language import passages
from interp.toys.language.lexicon import IGNORE, LABELS, STATIC, lexicon
from interp.toys.language.tasks import CONSTRUCTS
from interp.toys.language.writing import Dice, Page, whole

__all__ = ["BOS", "MIXTURE", "PAD", "Corpus", "Document", "document"]

BOS, PAD = 0, 1
SPAN = 40
"""Bits of a document's number: above them stands the seed, so that no two documents are drawn alike."""


def _task(name: str) -> Callable[[Page, Dice], None]:
    construct = CONSTRUCTS[name]

    def write(page: Page, dice: Dice) -> None:
        construct.write(page, dice, construct.draw(dice, None))

    return write


MIXTURE: dict[str, tuple[float, Callable[[Page, Dice], None]]] = {
    "ioi": (0.14, _task("ioi")),
    "greater_than": (0.09, _task("greater_than")),
    "docstring": (0.06, _task("docstring")),
    "gender": (0.07, _task("gender")),
    "sva": (0.10, _task("sva")),
    "induction": (0.10, _task("induction")),
    "calendar": (0.20, _task("calendar")),
    "plain": (0.09, passages.plain),
    "story": (0.06, passages.story),
    "opinion": (0.03, passages.opinion),
    "events": (0.02, passages.events),
    "brackets": (0.02, passages.brackets),
    "sequence": (0.02, passages.sequence),
}
"""What a document is: share of documents, and how it is written. The label ``task`` is the index in this order."""
_NAMES, _SHARES = tuple(MIXTURE), tuple(share for share, _ in MIXTURE.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One document and all that is known about it.

    Attributes
    ----------
    ids
        Token ids [token], without ``<bos>``.
    labels
        For every name of ``LABELS`` an integer a token, ``IGNORE`` (-100) where it has none.
    nats
        Minus the log-probability of the choices that made it: an upper bound of the text's, equal to it where
        the choices can be read off the text.
    """

    ids: np.ndarray
    task: str
    nats: float
    page: Page

    @property
    def words(self) -> tuple[str, ...]:
        """The token strings."""
        return tuple(word.text for word in self.page.words)

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(self.words)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        return labels_of(self.page, self.task)


_TABLES: dict[str, np.ndarray] = {}


def _tables() -> dict[str, np.ndarray]:
    """Token ids and fixed labels by word index."""
    if not _TABLES:
        words, pos = lexicon().words, LABELS["pos"] or ()
        _TABLES["token"] = np.array([word.token for word in words])
        for name in STATIC:
            _TABLES[name] = np.array(
                [pos.index(word.pos) if name == "pos" else getattr(word, name) for word in words]
            )
    return _TABLES


def labels_of(page: Page, task: str) -> dict[str, np.ndarray]:
    """The labels of a page's words, by name."""
    index = [word.index for word in page.words]
    known = {name: _tables()[name][index] for name in STATIC}
    return {
        **known,
        "entity": np.array(page.entities),
        "depth": np.array(page.depths),
        "agreement": np.array(page.agreements),
        "mood": np.array(page.moods),
        "task": np.full(len(page), _NAMES.index(task) if task in MIXTURE else IGNORE),
    }


def document(seed: int, number: int) -> Document:
    """Document ``number`` of the text with that seed.

    Raises
    ------
    InputError
        One of them is no whole number from 0 on, or the number is not below 2^40.
    """
    whole("seed", seed)
    whole("number", number, below=1 << SPAN)
    dice = Dice((seed << SPAN) + number)
    task = dice.weighted(_NAMES, _SHARES)
    page = Page()
    MIXTURE[task][1](page, dice)
    tokens = _tables()["token"]
    return Document(ids=tokens[[word.index for word in page.words]], task=task, nats=dice.nats, page=page)


class Corpus:
    """Rows of documents, each ``<bos>`` first, for training and for study.

    Parameters
    ----------
    seed
        Which text; every seed is a different one. The shipped model was trained on seeds below 1000.
    length
        Tokens in a row. A row begins with a document; the last one is cut off at its end, and continues nowhere.

    Attributes
    ----------
    position
        Number of the next document: the whole state of the stream.

    Raises
    ------
    InputError
        The length leaves no room for a token behind ``<bos>``.
    """

    def __init__(self, seed: int = 0, *, length: int = 64, position: int = 0) -> None:
        if length < 2:
            raise InputError(f"a row needs at least 2 tokens, got length {length}")
        whole("seed", seed)
        whole("position", position)
        self.seed, self.length, self.position = seed, length, position

    def documents(self) -> Iterator[Document]:
        """Documents from the present position on."""
        while True:
            self.position += 1
            yield document(self.seed, self.position - 1)

    def rows(self, n: int) -> np.ndarray:
        """The next ``n`` rows of ids [row, length]."""
        return self._pack(n, labelled=False)[0]

    def labelled(self, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The next ``n`` rows of ids, and for every label an array of the same shape."""
        return self._pack(n, labelled=True)

    def _pack(self, n: int, *, labelled: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        whole("n", n)
        ids = np.full((n, self.length), PAD)
        labels = {name: np.full_like(ids, IGNORE) for name in LABELS} if labelled else {}
        for row in range(n):
            start = 0
            while start < self.length:
                one = document(self.seed, self.position)
                self.position += 1
                ids[row, start] = BOS
                start += 1
                stop = min(start + len(one.ids), self.length)
                ids[row, start:stop] = one.ids[: stop - start]
                for name, values in one.labels.items() if labelled else ():
                    labels[name][row, start:stop] = values[: stop - start]
                start = stop
        return ids, labels
