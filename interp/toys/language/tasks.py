"""The constructs with a right answer: what each draws, how it is written, what the answer is.

A construct is three functions of one set of *facts*: ``draw`` rolls them, ``write`` puts them on a page (and marks
where the answer stands), ``right`` and ``wrong`` name the answers. Prompts are the same facts written up to the answer.

What is held out, in each construct: some combinations that training text never holds, though every word of them
occurs elsewhere. ``draw`` of the split ``train`` leaves them out, of ``heldout`` makes only them, each row by one of
the construct's reasons (``facts["heldout"]`` says which).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interp.toys.language.grammar import NEAR, agreement_heads, copula, part, pronoun
from interp.toys.language.lexicon import IGNORE, Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = ["CONSTRUCTS", "Construct", "Facts", "circle", "content"]

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


def _people(rest: int, *, held: bool) -> tuple[Word, ...]:
    words = lexicon()
    return part(words.women, rest, held=held) + part(words.men, rest, held=held)


# -- indirect objects ------------------------------------------------------------------------------------------

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
    a, b, c = dice.some(_people(0, held=reason == "names"), 3)
    # in training text a third person gives now and then, so that a prompt corrupted in this way is no stranger
    kind = dice.weighted(("BABA", "ABBA", "ABC"), (0.425, 0.425, 0.15) if reason is None else (0.5, 0.5, 0.0))
    subject, indirect = {"ABBA": (b, a), "BABA": (a, b), "ABC": (c, None)}[kind]
    return {
        "kind": kind, "a": a, "b": b, "subject": subject,
        "indirect": dice.pick((a, b)) if indirect is None else indirect,
        "place": dice.pick(words.places), "object": dice.pick(words.things)[0],
        "template": dice.pick(_ioi_templates(reason == "templates")),
    }  # fmt: skip


def _fill(page: Page, text: str, slots: Mapping[str, Word]) -> None:
    for piece in text.split():
        page.say(slots[piece[1:-1]] if piece.startswith("{") else piece)


def _write_ioi(page: Page, dice: Dice, facts: Facts) -> None:
    opening, giving = facts["template"]
    slots = {
        "a": facts["a"],
        "b": facts["b"],
        "s": facts["subject"],
        "p": facts["place"],
        "o": facts["object"],
    }
    _fill(page, f"{OPENINGS[opening]} {GIVING[giving]}", slots)
    page.mark()
    page.say(facts["indirect"], ".")
    if dice.chance(0.3):
        page.say(facts["indirect"], "thanked", pronoun(facts["subject"], "object"), ".")


# -- greater than ----------------------------------------------------------------------------------------------

SPANS = (
    "The {e} lasted from the year {c} {y} to the year {c}",
    "The {e} went on from the year {c} {y} to the year {c}",
    "The {e} started in {c} {y} and ended in {c}",
    "The {e} continued from the year {c} {y} to the year {c}",  # held out
)


def _century_cells(held: bool) -> tuple[tuple[int, int], ...]:
    return tuple((c, y) for c in range(11, 21) for y in range(2, 99) if ((7 * c + 3 * y) % 10 == 0) == held)


def _draw_greater(dice: Dice, reason: str | None) -> Facts:
    words = lexicon()
    century, year = dice.pick(_CELLS[reason == "years"])
    events = part(words.events, 2, held=reason == "nouns")
    template = len(SPANS) - 1 if reason == "templates" else dice.whole(0, len(SPANS) - 2)
    return {
        "event": dice.pick(events)[0], "century": century, "year": year, "template": template,
        "end": dice.whole(year + 1, 99),
    }  # fmt: skip


_CELLS = (_century_cells(False), _century_cells(True))


def _write_greater(page: Page, dice: Dice, facts: Facts) -> None:
    digits = lexicon().digits
    slots = {"e": facts["event"], "c": digits[facts["century"]], "y": digits[facts["year"]]}
    _fill(page, SPANS[facts["template"]], slots)
    page.mark()
    page.say(digits[facts["end"]], ".")


# -- gender ----------------------------------------------------------------------------------------------------

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
    "wanted to sell the {o} .",
    "stayed in the {p} .",
    "took the {o} .",
    "was very {j} .",
    "found the {o} .",
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
    _fill(page, GENDERED[facts["template"]], {"n": name, **facts["before"]})
    page.depth += 1
    page.mark()
    page.say(pronoun(name), entity=name)
    _fill(page, DEEDS[facts["deed"]], facts["after"])
    page.depth -= 1


# -- agreement across an attractor -----------------------------------------------------------------------------

BETWEEN = (*NEAR, "beside")  # the last never stands between a subject and its verb in training text


def _draw_sva(dice: Dice, reason: str | None) -> Facts:
    words = lexicon()
    heads = agreement_heads(held=reason == "nouns")
    head, other = dice.pick(heads), dice.pick(words.nouns)
    number, attractor = dice.pick((0, 1)), dice.pick((0, 1))
    if reason is not None:
        attractor = 1 - number
    structure = "preposition" if reason == "templates" else dice.pick(("preposition", "clause"))
    form = dice.weighted(("present", "past", "have", "verb"), (4, 2, 2, 2))
    facts: Facts = {
        "head": head, "number": number, "other": other, "attractor": attractor, "structure": structure, "form": form,
    }  # fmt: skip
    if structure == "clause":
        facts["verb"] = dice.pick(words.transitive)
    else:
        facts["link"] = BETWEEN[-1] if reason == "templates" else dice.pick(BETWEEN[:-1])
    if form == "verb":
        facts["action"] = dice.pick(words.intransitive)
    elif form == "have":
        facts["rest"] = (dice.pick(words.counts[1:]), dice.pick(words.things)[1])
    else:
        facts["rest"] = (dice.pick(words.neutral),)
    return facts


def _write_sva(page: Page, dice: Dice, facts: Facts) -> None:
    number = facts["number"]
    page.say("The")
    page.agreement = number
    page.say(facts["head"][number], entity=facts["head"])
    if facts["structure"] == "preposition":
        page.say(facts["link"], "the")
        page.say(facts["other"][facts["attractor"]], entity=facts["other"])
    else:
        page.depth += 1
        page.agreement = IGNORE
        page.say("that", "the")
        page.agreement = facts["attractor"]
        page.say(facts["other"][facts["attractor"]], entity=facts["other"])
        page.agreement = number
        page.say(facts["verb"].present(facts["attractor"]))
        page.depth -= 1
    page.mark()
    page.agreement = IGNORE
    if facts["form"] == "verb":
        page.say(facts["action"].present(number))
    else:
        past = facts["form"] == "past"
        page.say(("has", "have")[number] if facts["form"] == "have" else copula(number, past=past))
    page.say(*facts.get("rest", ()), ".")


def _forms(number: int) -> tuple[Word, ...]:
    fixed = lexicon().fixed
    present = tuple(verb.present(number) for verb in lexicon().intransitive)
    return (*(fixed[text] for text in (("is", "was", "has"), ("are", "were", "have"))[number]), *present)


# -- docstrings ------------------------------------------------------------------------------------------------


def _draw_docstring(dice: Dice, reason: str | None) -> Facts:
    words = lexicon()
    n = dice.whole(3, 4)
    return {
        "function": dice.pick(words.functions),
        "arguments": dice.some(part(words.identifiers, 1, held=reason == "names"), n),
        "about": [dice.some([pair[0] for pair in words.things], 1 + int(dice.chance(0.5))) for _ in range(n + 1)],
        "asked": n - 1,
    }  # fmt: skip


def _write_docstring(page: Page, dice: Dice, facts: Facts) -> None:
    page.say("def", facts["function"])
    page.say("(")
    page.depth += 1
    page.say("self")
    for argument in facts["arguments"]:
        page.say(",")
        page.say(argument, entity=argument)
    page.depth -= 1
    page.say(")", ":", '"', *facts["about"][0], ".")
    page.depth += 1
    for i, argument in enumerate(facts["arguments"]):
        page.say(": param")
        if i == facts["asked"]:
            page.mark()
        page.say(argument, entity=argument)
        page.say(":", *facts["about"][i + 1], ".")
    page.depth -= 1
    page.say('"')


# -- calendar --------------------------------------------------------------------------------------------------

SHIFTS = (
    "{n} {u} after {d} is",
    "If today is {d} , then in {n} {u} it will be",
    "{n} {u} before {d} is",
    "If today is {d} , then {n} {u} ago it was",
)
FORWARD = (1, 1, -1, -1)


def _shift_cells(held: bool) -> tuple[tuple[str, int, int, int], ...]:
    """(unit, base, offset, direction): of each offset and direction about one cell in seven is held out."""
    cells = []
    for unit, size in (("day", 7), ("month", 12)):
        for base in range(size):
            for offset in range(1, 13):
                for sign in (1, -1):
                    mark = (5 * base + 3 * offset + (sign > 0)) % 7 == 2
                    if mark == held:
                        cells.append((unit, base, offset, sign))
    return tuple(cells)


_SHIFTS = (_shift_cells(False), _shift_cells(True))


def _draw_calendar(dice: Dice, reason: str | None) -> Facts:
    unit, base, offset, sign = dice.pick(_SHIFTS[reason == "cells"])
    templates = [i for i, forward in enumerate(FORWARD) if forward == sign]
    return {"unit": unit, "base": base, "offset": offset, "sign": sign, "template": dice.pick(templates)}


def circle(unit: str) -> tuple[Word, ...]:
    return lexicon().days if unit == "day" else lexicon().months


def _calendar_answer(facts: Facts) -> Word:
    names = circle(facts["unit"])
    return names[(facts["base"] + facts["sign"] * facts["offset"]) % len(names)]


def _write_calendar(page: Page, dice: Dice, facts: Facts) -> None:
    words, unit = lexicon(), facts["unit"]
    slots = {
        "n": words.counts[facts["offset"] - 1],
        "u": words.fixed[unit + "s" * (facts["offset"] > 1)],
        "d": circle(unit)[facts["base"]],
    }
    _fill(page, SHIFTS[facts["template"]], slots)
    page.mark()
    page.say(_calendar_answer(facts), ".")


# -- repeats ---------------------------------------------------------------------------------------------------


def _draw_induction(dice: Dice, reason: str | None) -> Facts:
    """A sequence of different tokens, said twice or more; ``again`` tokens of the last copy are said."""
    length = dice.whole(4, 28)
    copies = 1 if reason is not None else dice.whole(1, min(5, 56 // length - 1))
    return {"sequence": dice.some(content(), length), "copies": copies, "again": dice.whole(2, length)}


@functools.cache
def content() -> tuple[Word, ...]:
    closed = ("special", "punctuation", "determiner", "conjunction", "auxiliary", "preposition")
    seen: dict[int, Word] = {}
    for word in lexicon().words:
        if word.pos not in closed:
            seen.setdefault(word.token, word)
    return tuple(seen.values())


def _write_induction(page: Page, dice: Dice, facts: Facts) -> None:
    page.say(
        *facts.get("first", facts["sequence"]) * facts["copies"], *facts["sequence"][: facts["again"] - 1]
    )
    page.mark()
    page.say(facts["sequence"][facts["again"] - 1])


def _others(words: tuple[Word, ...], but: Word) -> tuple[Word, ...]:
    return tuple(word for word in words if word is not but)


CONSTRUCTS: dict[str, Construct] = {
    "ioi": Construct(
        draw=_draw_ioi,
        write=_write_ioi,
        right=lambda facts: (facts["indirect"],),
        wrong=lambda facts: (facts["subject"],),
        heldout=("names", "templates"),
    ),
    "greater_than": Construct(
        draw=_draw_greater,
        write=_write_greater,
        right=lambda facts: lexicon().digits[facts["year"] + 1 :],
        wrong=lambda facts: lexicon().digits[: facts["year"] + 1],
        heldout=("nouns", "years", "templates"),
    ),
    "docstring": Construct(
        draw=_draw_docstring,
        write=_write_docstring,
        right=lambda facts: (facts["arguments"][facts["asked"]],),
        wrong=lambda facts: _others(tuple(facts["arguments"]), facts["arguments"][facts["asked"]]),
        heldout=("names",),
    ),
    "gender": Construct(
        draw=_draw_gender,
        write=_write_gender,
        right=lambda facts: (lexicon().fixed[pronoun(facts["name"])],),
        wrong=lambda facts: (lexicon().fixed[("she", "he")[1 - facts["name"].gender]],),
        heldout=("names", "templates"),
    ),
    "sva": Construct(
        draw=_draw_sva,
        write=_write_sva,
        right=lambda facts: _forms(facts["number"]),
        wrong=lambda facts: _forms(1 - facts["number"]),
        heldout=("nouns", "templates"),
    ),
    "induction": Construct(
        draw=_draw_induction,
        write=_write_induction,
        right=lambda facts: (facts["sequence"][facts["again"] - 1],),
        wrong=lambda facts: _others(tuple(facts["sequence"]), facts["sequence"][facts["again"] - 1]),
        heldout=("sequences",),
    ),
    "calendar": Construct(
        draw=_draw_calendar,
        write=_write_calendar,
        right=lambda facts: (_calendar_answer(facts),),
        wrong=lambda facts: _others(circle(facts["unit"]), _calendar_answer(facts)),
        heldout=("cells",),
    ),
}
