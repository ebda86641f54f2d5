"""Plain sentences: noun phrases with modifiers and relative clauses, verb phrases that agree, questions."""

from __future__ import annotations

import functools

from interp.toys.language.lexicon import IGNORE, Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = [
    "NEAR", "agreement_heads", "copula", "evaluation", "noun_phrase", "part", "predicate", "pronoun", "sentence",
]  # fmt: skip

NEAR = ("near", "behind", "with", "under")


def part(options: tuple, rest: int, *, held: bool) -> tuple:
    """Every fifth option is held out of a construct: which fifth, differs from construct to construct."""
    return tuple(option for i, option in enumerate(options) if (i % 5 == rest) == held)


@functools.cache
def agreement_heads(*, held: bool) -> tuple[tuple[Word, Word], ...]:
    """Nouns that stand before an attractor in training text (or, ``held``, never do)."""
    return part(lexicon().nouns, 3, held=held)


def pronoun(name: Word, form: str = "subject") -> str:
    """The pronoun for a named person: ``subject``, ``capital``, ``object`` or ``possessive``."""
    forms = {
        "subject": ("she", "he"),
        "capital": ("She", "He"),
        "object": ("her/object", "him"),
        "possessive": ("her", "his"),
    }
    return forms[form][name.gender]


def copula(number: int, *, past: bool = False) -> str:
    """``is``, ``are``, ``was`` or ``were``."""
    return (("is", "are"), ("was", "were"))[past][number]


def evaluation(dice: Dice, sentiment: int) -> Word:
    """An adjective of that sentiment."""
    return dice.pick(lexicon().positive if sentiment else lexicon().negative)


def noun_phrase(
    page: Page, dice: Dice, *, initial: bool = False, deep: bool = True, waits: bool = True
) -> int:
    """Write a noun phrase and return its number.

    A name, or a noun with its article, at times with an adjective, a prepositional phrase (an attractor) or a clause.
    A subject's head ``waits`` for its verb: the page's ``agreement`` is its number from the head noun on.
    """
    words = lexicon()
    kind = dice.weighted(("noun", "name"), (3, 1))
    if kind == "name":
        page.agreement = 0 if waits else IGNORE
        page.say(dice.pick(words.names))
        return 0
    number = dice.pick((0, 1))
    pair = dice.pick(words.nouns)
    starts = (("The", "A", "Every"), ("The", "Some", "Many")) if initial else (("the", "a"), ("the",))
    page.agreement = IGNORE
    page.say(dice.pick(starts[number]))
    if dice.chance(0.3):
        page.say(dice.pick(words.neutral))
    page.agreement = number if waits else IGNORE
    page.say(pair[number], entity=pair)
    if deep and pair in agreement_heads(held=False) and dice.chance(0.3):
        _modifier(page, dice, number)
    return number


def _modifier(page: Page, dice: Dice, number: int) -> None:
    words = lexicon()
    if dice.chance(0.5):
        page.say(dice.pick(NEAR), "the")
        other = dice.pick(words.nouns)
        page.say(other[dice.pick((0, 1))], entity=("other", other))
        return
    page.depth += 1
    page.say("that")
    if dice.chance(0.5):
        verb = _transitive(dice, noun_phrase(page, dice, deep=False))
        page.agreement = number
        page.say(verb)
    else:
        page.say(_transitive(dice, number))
        other = dice.pick(words.nouns)
        page.say("the", other[dice.pick((0, 1))], entity=other)
    page.depth -= 1


def _transitive(dice: Dice, number: int) -> Word:
    verb = dice.pick(lexicon().transitive)
    return verb.past if dice.chance(0.3) else verb.present(number)


def predicate(page: Page, dice: Dice, number: int) -> None:
    """Write a verb phrase for a subject of that number."""
    words = lexicon()
    kind = dice.pick(("copula", "intransitive", "transitive", "have", "future"))
    past = kind != "future" and dice.chance(0.3)
    if kind == "copula":
        _verb(page, copula(number, past=past))
        if dice.chance(0.3):
            page.say("very")
        page.say(dice.pick((*words.positive, *words.negative, *words.neutral)))
    elif kind == "have":
        _verb(page, "had" if past else ("has", "have")[number])
        page.say(dice.pick(words.counts[1:]), dice.pick(words.things)[1])
    elif kind == "future":
        _verb(page, "will")
        page.say(dice.pick(words.infinitives))
    else:
        verb = dice.pick(words.intransitive if kind == "intransitive" else words.transitive)
        _verb(page, verb.past if past else verb.present(number))
        if kind == "transitive":
            noun_phrase(page, dice, deep=False, waits=False)
        elif dice.chance(0.5):
            _where(page, dice)


def _where(page: Page, dice: Dice) -> None:
    if dice.chance(0.5):
        page.say("in the", dice.pick(lexicon().places))
        return
    other = dice.pick(lexicon().nouns)
    page.say("beside the", other[dice.pick((0, 1))], entity=other)


def _verb(page: Page, verb: str | Word) -> None:
    page.agreement = IGNORE
    page.say(verb)


def _statement(page: Page, dice: Dice) -> None:
    if dice.chance(0.15):
        _opening(page, dice)
        predicate(page, dice, noun_phrase(page, dice))
        page.say(".")
        return
    predicate(page, dice, noun_phrase(page, dice, initial=True))
    if dice.chance(0.2):
        page.say(dice.pick(("and", "but", "because", "when")))
        page.depth += 1
        predicate(page, dice, noun_phrase(page, dice))
        page.depth -= 1
    page.say(".")


def _opening(page: Page, dice: Dice) -> None:
    """``While the dogs waited ,``"""
    page.say(dice.pick(("When", "While", "After", "Before")))
    page.depth += 1
    number = noun_phrase(page, dice, deep=False)
    verb = dice.pick(lexicon().intransitive)
    _verb(page, verb.past if dice.chance(0.5) else verb.present(number))
    page.depth -= 1
    page.say(",")


def _question(page: Page, dice: Dice) -> None:
    """The verb that agrees comes first, so no subject waits for one."""
    words = lexicon()
    number = dice.pick((0, 1))
    if dice.chance(0.5):
        page.say(("Does", "Do")[number])
        _subject(page, dice, number)
        page.say(dice.pick(words.infinitives))
    else:
        page.say(("Is", "Are")[number])
        _subject(page, dice, number)
        page.say(dice.pick((*words.positive, *words.negative, *words.neutral)))
    page.say("?")


def _subject(page: Page, dice: Dice, number: int) -> None:
    pair = dice.pick(lexicon().nouns)
    page.say("the", pair[number], entity=pair)


def sentence(page: Page, dice: Dice) -> None:
    """Write one plain sentence: a statement or a question."""
    if dice.chance(0.8):
        _statement(page, dice)
    else:
        _question(page, dice)
