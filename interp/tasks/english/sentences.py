"""Tasks about form: the verb that agrees with its subject, the argument a docstring names next, a repeated sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random

from interp.errors import InputError
from interp.tasks.english.lexicon import (
    ARGUMENTS,
    CLAUSE_VERBS,
    DESCRIPTIONS,
    FUNCTIONS,
    PEOPLE,
    PREPOSITIONS,
    THINGS,
    VERBS,
    part,
)
from interp.tasks.pairs import Draft, Pair, Words

__all__ = ["agreement", "docstring", "repeats"]

STRUCTURES = ("simple", "pp", "rc")
OPENINGS = (
    "The {subject}",
    "I think that the {subject}",
    "We all saw how the {subject}",
    "They said the {subject}",
)
NUMBERS = ("singular", "plural")


def agreement(words: Words, split: str, corruption: str, random: Random) -> Iterator[Draft]:
    """A subject and the place of its verb: bare, across a prepositional phrase, across a relative clause, in turn.

    The noun between subject and verb (the attractor) is of either number. Corruption ``other_number``: the subject
    in the other number, all else as it was; the wrong answer is then right. Held out: all nouns and the openings.
    """
    people = words.keep(part(PEOPLE, split), what="nouns for people, singular and plural,", least=2)
    things = words.keep(part(THINGS, split), what="nouns for things, singular and plural,", least=1)
    verbs = words.keep(VERBS, what="verbs, singular and plural,", least=1)
    inner = words.keep(CLAUSE_VERBS, what="verbs, singular and plural,", least=1)
    prepositions = words.keep(PREPOSITIONS, what="prepositions", least=1)
    openings = part(list(enumerate(OPENINGS)), split)
    for i in count():
        structure = STRUCTURES[i % 3]
        number, between = random.randrange(2), random.randrange(2)
        template, opening = random.choice(openings)
        subject, other = random.sample(people, 2)
        verb = random.choice(verbs)
        thing = random.choice(things)[between]
        tail = {
            "simple": "",
            "pp": f" {random.choice(prepositions)} the {thing}",
            "rc": f" that the {other[between]} {random.choice(inner)[between]}",
        }[structure]
        facts = {
            "structure": structure,
            "number": NUMBERS[number],
            "attractor": None if structure == "simple" else NUMBERS[between],
            "subject": subject[number],
            "corrupted_subject": subject[1 - number],
            "template": template,
        }
        yield Draft(
            clean=opening.format(subject=subject[number]) + tail,
            corrupted=opening.format(subject=subject[1 - number]) + tail,
            answers=(f" {verb[number]}",),
            wrong=(f" {verb[1 - number]}",),
            facts=facts,
        )


def docstring(words: Words, split: str, corruption: str, random: Random) -> Iterator[Draft]:
    """A Python function of six arguments whose docstring names two of the middle three; the third comes next.

    Wrong are the five other arguments. Corruptions: ``random_random`` puts other words in place of the three middle
    arguments in the signature and still others in the docstring; ``random_def`` and ``random_doc`` one of the two.
    Held out: argument names.

    References
    ----------
    Heimersheim & Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer".
    """
    arguments = words.keep(part(ARGUMENTS, split), what="argument names", least=11)
    plain = words.keep(DESCRIPTIONS, what="adjectives", least=7)
    functions = words.keep(part(FUNCTIONS, split), what="function names", least=1)
    while True:
        name, description = random.choice(functions), random.sample(plain, 7)
        drawn = random.sample(arguments, 11)
        around, middle, foil, foil_doc = drawn[:3], drawn[3:6], drawn[6:9], drawn[9:11]
        signature = foil if corruption != "random_doc" else middle
        documented = foil_doc if corruption != "random_def" else middle[:2]
        yield Draft(
            clean=_code(name, [*around[:2], *middle, around[2]], middle[:2], description),
            corrupted=_code(name, [*around[:2], *signature, around[2]], documented, description),
            answers=(f" {middle[2]}",),
            wrong=tuple(f" {argument}" for argument in (*around, *middle[:2])),
            facts={
                "function": name,
                "arguments": [*around[:2], *middle, around[2]],
                "answer_argument": middle[2],
                "corrupted_arguments": [*signature, *documented],
                "template": 0,
            },
        )


def _code(name: str, arguments: Sequence[str], documented: Sequence[str], words: Sequence[str]) -> str:
    head = f'def {name}(self, {", ".join(arguments)}):\n    """{" ".join(words[:3])}\n\n'
    lines = [f"    :param {a}: {' '.join(words[3 + 2 * i : 5 + 2 * i])}\n" for i, a in enumerate(documented)]
    return head + "".join(lines) + "    :param"


LENGTH = 10
"""Tokens of a sequence that is repeated."""


def repeats(
    vocabulary: Sequence[int],
    split: str,
    corruption: str,
    random: Random,
    *,
    words: Words | None,
    longest: int | None,
) -> Iterator[Pair]:
    """Random tokens, all different, and the beginning of the same again; the answer is what followed the first time.

    Corruptions: ``broken`` puts other random tokens in the first copy, so that nothing repeats; ``answer`` only in
    the answer's first place. The wrong answer is the token that stands there then. Held out: every fourth token id.
    """
    pool = part(vocabulary, split)
    room = (longest or 2 * LENGTH) - (len(words.start) if words else 0)
    length = min(LENGTH, (room + 1) // 2, len(pool) // 2)
    if length < 3:
        raise InputError(
            f"induction needs sequences of at least 3 tokens, 5 with their repetition, out of 6 different ones; "
            f"there is room for {room} tokens and there are {len(pool)} ids in the split"
        )
    while True:
        drawn = random.sample(pool, 2 * length)
        first, other = drawn[:length], drawn[length:]
        asked = random.randrange(
            2 if length > 3 else 1, length
        )  # at least one token before the last is repeated too
        foil = list(other) if corruption == "broken" else [*first[:asked], other[asked], *first[asked + 1 :]]
        clean, corrupted = ([*start, *first[:asked]] for start in (first, foil))
        yield Pair(
            clean=words.prompt(clean) if words else tuple(clean),
            corrupted=words.prompt(corrupted) if words else tuple(corrupted),
            answers=(first[asked],),
            wrong=(foil[asked],),
            facts={"length": length, "asked": asked},
            texts=(_shown(words, clean), _shown(words, corrupted)),
        )


def _shown(words: Words | None, ids: Sequence[int]) -> str:
    return "".join(map(words.show, ids)) if words else " ".join(map(str, ids))
