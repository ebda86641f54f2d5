"""Tasks in the labelled language: its own pairs of prompts, as token ids of its word-level tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from interp.errors import InputError, nearest
from interp.tasks.english.writers import different
from interp.tasks.pairs import Pair, Words

__all__ = ["corruption", "draw", "speaks"]


def speaks(words: Words) -> bool:
    """Whether the tokenizer's vocabulary is the language's."""
    from interp.toys import language

    vocabulary = language.vocabulary()
    return words.n_vocab == len(vocabulary) and _ids(words) == {word: i for i, word in enumerate(vocabulary)}


def corruption(task: str, asked: str | None) -> str:
    """The corruption asked for, or the language's first for the task."""
    from interp.toys import language

    known = language.CORRUPTIONS[task]
    if asked is not None and asked not in known:
        raise InputError(
            f"no corruption of {task} {asked!r}{nearest(asked, known)} (in the language there are: {', '.join(known)})"
        )
    return asked or known[0]


def draw(task: str, words: Words, *, n: int, split: str, seed: int, corruption: str) -> list[Pair]:
    """``n`` different pairs of the language.

    Raises
    ------
    InputError
        The tokenizer is not the language's, or there are no ``n`` different prompts.
    """
    from interp.toys import language

    ids = _ids(words)

    def coded(row: Iterable[str]) -> tuple[int, ...]:
        try:
            return tuple(ids[word] for word in row)
        except KeyError as error:
            raise InputError(
                f"the tokenizer does not know the language's word {error}: prompts of the language need its tokenizer"
            ) from None

    def drawn() -> Iterator[Pair]:
        done, size = 0, n
        while True:  # a longer list begins like a shorter one
            rows = language.prompt_pairs(task, n=size, split=split, seed=seed, corruption=corruption)
            for row in rows[done:]:
                yield Pair(
                    clean=words.prompt(coded(row.clean)),
                    corrupted=words.prompt(coded(row.corrupted)),
                    answers=coded(row.answers),
                    wrong=coded(row.wrong),
                    facts=dict(row.facts),
                    texts=(" ".join(row.clean), " ".join(row.corrupted)),
                )
            done, size = size, 2 * size

    return different(drawn(), n=n, task=task)


def _ids(words: Words) -> dict[str, int]:
    read = getattr(words.tokenizer, "get_vocab", None)
    return {} if read is None else dict(read())
