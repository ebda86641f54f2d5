"""The rest of the text: stories with people, things and moods, opinions, events, nested lists, sequences."""

from __future__ import annotations

from interp.toys.language.grammar import evaluation, pronoun, sentence
from interp.toys.language.lexicon import IGNORE, Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = ["brackets", "events", "opinion", "plain", "sequence", "story"]


def plain(page: Page, dice: Dice) -> None:
    """One to three plain sentences."""
    for _ in range(dice.whole(1, 3)):
        sentence(page, dice)


def story(page: Page, dice: Dice) -> None:
    """Two people, a thing that may change hands, a mood; at the end a question about who has it."""
    words = lexicon()
    a, b = dice.some(words.names, 2)
    mood = dice.pick((0, 1))
    thing, place = dice.pick(words.things)[0], dice.pick(words.places)
    page.say(a, "was a")
    page.mood = mood
    page.say(evaluation(dice, mood), dice.pick(words.persons)[0], ".")
    page.say(pronoun(a, "capital"), entity=a)
    page.say("lived", dice.pick(("near", "beside", "behind")), "the", place, ".")
    if dice.chance(0.5):
        page.say(pronoun(a, "capital"), entity=a)
        page.say("had a", dice.pick(words.neutral), dice.pick(words.animals)[0], ".")
    if dice.chance(0.5):
        page.say(pronoun(a, "capital"), entity=a)
        page.say("visited")
        page.say(pronoun(a, "possessive"), entity=a)
        page.say(dice.pick(words.persons)[0], b, ".")
    page.say(b, "found a")
    page.say(thing, entity=thing)
    page.say("and", *_feeling(dice, mood), ".")
    owner = b
    if dice.chance(0.5):
        owner = _transfer(page, dice, a, b, thing)
    if dice.chance(0.2):
        page.say("They were", evaluation(dice, mood), ".")
    else:
        page.say(pronoun(owner, "capital"), entity=owner)
        page.say("was", evaluation(dice, mood), ".")
    if dice.chance(0.6):
        page.say("Who has the")
        page.say(thing, entity=thing)
        page.say("?", owner, ".")


def _transfer(page: Page, dice: Dice, a: Word, b: Word, thing: Word) -> Word:
    if dice.chance(0.5):
        page.say(a, "took the")
        page.say(thing, entity=thing)
        page.say("from", b, ".")
    else:
        page.say(b, "offered", a, "the")
        page.say(thing, entity=thing)
        page.say(".")
    return a


def _feeling(dice: Dice, mood: int) -> tuple[str]:
    return (dice.pick((("cried", "complained"), ("smiled", "laughed"))[mood]),)


def opinion(page: Page, dice: Dice) -> None:
    """A judgement, and someone who feels accordingly."""
    words = lexicon()
    mood = dice.pick((0, 1))
    page.say("The", dice.pick(words.events)[0], "was")
    page.mood = mood
    page.say(evaluation(dice, mood))
    if dice.chance(0.5):
        page.say("and", evaluation(dice, mood))
    elif dice.chance(0.3):
        page.say("but the", dice.pick(words.things)[0], "was")
        mood = page.mood = 1 - mood
        page.say(evaluation(dice, mood))
    name = dice.pick(words.names)
    page.say(", so", name, *_feeling(dice, mood), ".")
    if dice.chance(0.5):
        page.say(pronoun(name, "capital"), entity=name)
        page.say("was", evaluation(dice, mood), ".")


def events(page: Page, dice: Dice) -> None:
    """Plain remarks about events, in which every event noun occurs."""
    words = lexicon()
    for _ in range(dice.whole(1, 2)):
        pair, number = dice.pick(words.events), dice.pick((0, 1))
        page.say("The")
        page.agreement = number
        page.say(pair[number], entity=pair)
        kind = dice.pick(("was", "continued", "started"))
        page.agreement = IGNORE
        page.say(("was", "were")[number] if kind == "was" else kind)
        if kind == "was":
            page.say(dice.pick(words.neutral), ".")
        else:
            page.say(dice.pick(("in", "near")), "the", dice.pick(words.places), ".")


def brackets(page: Page, dice: Dice) -> None:
    """A nested list with two kinds of brackets, at most four deep."""
    _bracket(page, dice, 1)


def _bracket(page: Page, dice: Dice, level: int) -> None:
    left, right = dice.pick((("(", ")"), ("[", "]")))
    page.say(left)
    page.depth += 1
    for i in range(dice.whole(1, 3)):
        if i:
            page.say(",")
        if level < 4 and dice.chance(0.35):
            _bracket(page, dice, level + 1)
        else:
            page.say(dice.pick(lexicon().things)[1])
    page.depth -= 1
    page.say(right)


def sequence(page: Page, dice: Dice) -> None:
    """Days, months or numbers in order."""
    words = lexicon()
    circle = dice.pick((words.days, words.months, words.digits, words.counts))
    length = dice.whole(3, 8)
    start = dice.whole(0, len(circle) - 1)
    for i in range(length):
        if i:
            page.say(",")
        page.say(circle[(start + i) % len(circle)])
    page.say(".")
