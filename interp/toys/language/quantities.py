"""Years that come later, and days and months that follow each other."""

from __future__ import annotations

import random

from interp.toys.language.construct import Construct, Facts, fill, others
from interp.toys.language.grammar import part
from interp.toys.language.lexicon import Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = ["CALENDAR", "GREATER_THAN", "circle"]

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
    fill(page, SPANS[facts["template"]], slots)
    page.mark()
    page.say(digits[facts["end"]], ".")


GREATER_THAN = Construct(
    draw=_draw_greater,
    write=_write_greater,
    right=lambda facts: lexicon().digits[facts["year"] + 1 :],
    wrong=lambda facts: lexicon().digits[: facts["year"] + 1],
    heldout=("nouns", "years", "templates"),
)


SHIFTS = (
    "{n} {u} after {d} is",
    "If today is {d} , then in {n} {u} it will be",
    "{n} {u} before {d} is",
    "If today is {d} , then {n} {u} ago it was",
)
FORWARD = (1, 1, -1, -1)


Cell = tuple[str, int, int, int]


def _shift_cells() -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """(unit, base, offset, direction): seven cells in eight for training, the others, drawn by lot, held out.

    By lot: a regular pattern could hold out a day's every way to another day, and teach that they never meet.
    """
    cells = [
        (unit, base, offset, sign)
        for unit, size in (("day", 7), ("month", 12))
        for base in range(size)
        for offset in range(1, 21)
        for sign in (1, -1)
    ]
    held = set(random.Random(0).sample(cells, len(cells) // 8))
    return tuple(cell for cell in cells if cell not in held), tuple(cell for cell in cells if cell in held)


_TRAINED, _HELD = _shift_cells()
_WEIGHTS = tuple(offset**-0.5 for _, _, offset, _ in _TRAINED)  # small steps are said more often


def _draw_calendar(dice: Dice, reason: str | None) -> Facts:
    unit, base, offset, sign = dice.weighted(_TRAINED, _WEIGHTS) if reason is None else dice.pick(_HELD)
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
    fill(page, SHIFTS[facts["template"]], slots)
    page.mark()
    page.say(_calendar_answer(facts), ".")


CALENDAR = Construct(
    draw=_draw_calendar,
    write=_write_calendar,
    right=lambda facts: (_calendar_answer(facts),),
    wrong=lambda facts: others(circle(facts["unit"]), _calendar_answer(facts)),
    heldout=("cells",),
)
