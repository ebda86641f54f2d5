"""Indirect objects (who gets it) and pronouns (she or he)."""

from __future__ import annotations

from interp.toys.language.construct import Construct, Facts, fill, fill_opening
from interp.toys.language.grammar import part, pronoun
from interp.toys.language.lexicon import Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = ["GENDER", "IOI"]


def _people(rest: int, *, held: bool) -> tuple[Word, ...]:
    words = lexicon()
    return part(words.women, rest, held=held) + part(words.men, rest, held=held)


OPENINGS = (
    "When {a} and {b} went to the {p} ,",
    "After {a} and {b} came to the {p} ,",
    "Then {a} and {b} met at the {p} .",
    "Yesterday {a} and {b} worked in the {p} .",
    "When {a} and {b} had left the {p} ,",
    "{a} and {b} lived near the {p} , and",
    "While {a} and {b} waited at the {p} ,",  # held out
)
GIVING = (
    "{s} gave the {o} to",
    "{s} handed a {o} to",
    "{s} decided to give the {o} to",
    "{s} brought a {o} to",
    "{s} wanted to sell the {o} to",
    "{s} offered the {o} to",  # held out
)


def _ioi_templates(held: bool) -> tuple[tuple[int, int], ...]:
    pairs = tuple((i, j) for i in range(len(OPENINGS)) for j in range(len(GIVING)))
    last = (len(OPENINGS) - 1, len(GIVING) - 1)
    return tuple(p for p in pairs if (p[0] == last[0] or p[1] == last[1] or sum(p) % 5 == 4) == held)


def _draw_ioi(dice: Dice, reason: str | None) -> Facts:
    words = lexicon()
    people = _people(0, held=reason == "names")
    a, b, c = dice.some(people, 3)
    # in training text a third person gives now and then, so that a prompt corrupted in this way is no stranger
    kind = dice.weighted(("BABA", "ABBA", "ABC"), (0.425, 0.425, 0.15) if reason is None else (0.5, 0.5, 0.0))
    if kind != "ABC":
        dice.unsaid(len(people) - 2)
    subject, indirect = {"ABBA": (b, a), "BABA": (a, b), "ABC": (c, None)}[kind]
    return {
        "kind": kind, "a": a, "b": b, "subject": subject,
        "indirect": dice.pick((a, b)) if indirect is None else indirect,
        "place": dice.pick(words.places), "object": dice.pick(words.things)[0],
        "template": dice.pick(_ioi_templates(reason == "templates")),
    }  # fmt: skip


def _write_ioi(page: Page, dice: Dice, facts: Facts) -> None:
    opening, giving = facts["template"]
    slots = {
        "a": facts["a"],
        "b": facts["b"],
        "s": facts["subject"],
        "p": facts["place"],
        "o": facts["object"],
    }
    fill_opening(page, OPENINGS[opening], slots)
    fill(page, GIVING[giving], slots)
    page.mark()
    page.say(facts["indirect"], ".")
    if dice.chance(0.3):
        page.say(facts["indirect"], "thanked")
        page.say(pronoun(facts["subject"], "object"), entity=facts["subject"])
        page.say(".")


IOI = Construct(
    draw=_draw_ioi,
    write=_write_ioi,
    right=lambda facts: (facts["indirect"],),
    wrong=lambda facts: (facts["subject"],),
    heldout=("names", "templates"),
)


GENDERED = (
    "{n} went to the {p} because",
    "{n} smiled when",
    "{n} said that/clause",
    "When {n} came home ,",
    "{n} lost the {o} , so",
    "After {n} left the {p} ,",
    "{n} took the {o} because",
    "{n} brought the {o} when",  # held out
    "Before {n} found the {o} ,",  # held out
)
DEEDS = (
    "wanted to sell the {o}",
    "stayed in the {p}",
    "took the {o}",
    "was very {j}",
    "found the {o}",
)


def _draw_gender(dice: Dice, reason: str | None) -> Facts:
    words = lexicon()
    last = len(GENDERED)
    facts = {
        "name": dice.pick(_people(1, held=reason == "names")),
        "template": dice.whole(last - 2, last - 1) if reason == "templates" else dice.whole(0, last - 3),
        "deed": dice.whole(0, len(DEEDS) - 1),
    }
    options = {
        "p": words.places, "o": tuple(pair[0] for pair in words.things), "j": (*words.positive, *words.negative)
    }  # fmt: skip
    # only what the text shows is drawn, so that the text's probability is that of its choices
    for key, text in (("before", GENDERED[facts["template"]]), ("after", DEEDS[facts["deed"]])):
        facts[key] = {slot: dice.pick(words) for slot, words in options.items() if f"{{{slot}}}" in text}
    return facts


def _write_gender(page: Page, dice: Dice, facts: Facts) -> None:
    name = facts["name"]
    page.number(name)
    opening = GENDERED[facts["template"]]
    fill_opening(page, opening, {"n": name, **facts["before"]})
    inside = not opening.endswith(",")  # "... because she": the pronoun is in the subordinate clause
    page.depth += inside
    page.mark()
    page.say(pronoun(name), entity=name)
    fill(page, DEEDS[facts["deed"]], facts["after"])
    page.depth -= inside
    page.say(".")


GENDER = Construct(
    draw=_draw_gender,
    write=_write_gender,
    right=lambda facts: (lexicon().fixed[pronoun(facts["name"])],),
    wrong=lambda facts: (lexicon().fixed[("she", "he")[1 - facts["name"].gender]],),
    heldout=("names", "templates"),
)
