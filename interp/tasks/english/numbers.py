"""Tasks about numbers: a later year, and days and months counted on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random

from interp.errors import InputError
from interp.tasks.english.lexicon import COUNTS, DAYS, MONTHS, SPANS, part
from interp.tasks.pairs import Draft, Words

__all__ = ["calendar", "greater_than"]

CENTURIES = tuple(range(11, 20))
YEAR = "The {noun} lasted from the year {century}{year:02} to the year {century}"


def greater_than(words: Words, split: str, corruption: str, random: Random) -> Iterator[Draft]:
    """``The war lasted from the year 1732 to the year 17``: right are all two-digit tokens after 32, wrong the others.

    Corruption ``year01``: the first year ends in 01. Years of 02 to 98 that are two tokens, the century and two digits.
    Held out: nouns and (century, year) cells.

    References
    ----------
    Hanna et al. 2023, arXiv 2305.00586.
    """
    nouns = words.keep(part(SPANS, split), what="nouns", least=1)
    digits, cells = year_tokens(words)
    of_split = [
        (c, y)
        for c, y in sorted(cells)
        if 2 <= y <= 98 and (c, 1) in cells and held(c, y) == (split == "heldout")
    ]
    if not of_split:
        raise InputError("no year of this tokenizer is a century and two digits with all of 00-99 as endings")
    while True:
        noun, (century, year) = random.choice(nouns), random.choice(of_split)
        prompt = partial(YEAR.format, noun=noun, century=century)
        yield Draft(
            clean=prompt(year=year),
            corrupted=prompt(year=1),
            answers=digits[year + 1 :],
            wrong=digits[: year + 1],
            facts={"noun": noun, "century": century, "year": year, "template": 0},
        )


def year_tokens(words: Words) -> tuple[list[int], set[tuple[int, int]]]:
    """The tokens of the endings 00 to 99, and the (century, year) cells that are a century and such an ending.

    Raises
    ------
    InputError
        The tokenizer cuts years in another way (digit by digit, in threes, or leaves them whole).
    """
    if "years" not in words.memo:
        words.memo["years"] = _year_tokens(words)
    return words.memo["years"]


def _year_tokens(words: Words) -> tuple[list[int], set[tuple[int, int]]]:
    cells = [(c, y) for c in CENTURIES for y in range(100)]
    heads = words.ids([f"the year {c}" for c in CENTURIES])
    wholes = words.ids([f"the year {c}{y:02}" for c, y in cells])
    endings: dict[int, int] = {}
    good: set[tuple[int, int]] = set()
    for (century, year), ids in zip(cells, wholes, strict=True):
        head = heads[century - CENTURIES[0]]
        if ids[:-1] == head and ids[-1] not in words.special and endings.setdefault(year, ids[-1]) == ids[-1]:
            good.add((century, year))
    alone = [ids[0] if len(ids) == 1 else None for ids in words.ids([f"{y:02}" for y in range(100)])]
    if endings and all(alone[year] == token for year, token in endings.items()):
        # an ending that no century leaves apart, as 00
        endings |= {y: token for y, token in enumerate(alone) if token is not None and y not in endings}
    if len(set(endings.values())) < 100:
        raise InputError(
            f"greater_than needs years that are two tokens, a century and two digits; this tokenizer gives "
            f"{[words.show(i) for i in words.ids(['the year 1732'])[0][-4:]]} for '... year 1732', and only "
            f"{len(set(endings.values()))} of the 100 endings as one token"
        )
    return [endings[year] for year in range(100)], good


def held(row: int, column: int) -> bool:
    """Whether a cell is held out: one third of them, spread so that each row and column has cells on both sides."""
    return (row - column) % 3 == 0


UNITS = {
    "day": (
        DAYS,
        (
            "If today is {start}, then in {count} it will be",
            "The shop opens on {start} and closes {count} later, on",
            "We start on {start}, and the work takes {count}, so we finish on",
            "They left on {start} and came back {count} after that, on",
            "The parcel was sent on {start} and arrived {count} later, on",
            "It rained on {start}, and {count} later it rained again, on",
            "She called on {start} and will call again in {count}, on",
            "The trial began on {start} and ended {count} after that, on",
        ),
    ),
    "month": (
        MONTHS,
        (
            "It is {start} now, so in {count} it will be",
            "The course begins in {start} and ends {count} later, in",
            "She moved here in {start} and left after {count}, in",
            "The next meeting comes {count} after {start}, in",
            "They planted the tree in {start} and it flowered {count} later, in",
            "The bridge was closed in {start} and opened again {count} later, in",
            "He lost his job in {start} and found another {count} later, in",
            "The lease starts in {start} and runs for {count}, so it ends in",
        ),
    ),
}


def calendar(words: Words, split: str, corruption: str, random: Random) -> Iterator[Draft]:
    """A weekday or month counted on by one to six days or one to eleven months; wrong are all the other names.

    Corruptions: ``other_base`` another weekday or month, ``other_offset`` another number; both out of the same
    split's cells. Held out: (unit, start, offset) cells, a third of them, and templates.
    """
    for unit, (names, _) in UNITS.items():
        words.keep(names, what=f"names of a {unit}", least=len(names))
        words.keep(COUNTS[: len(names) - 1], what="number words", least=len(names) - 1)
    while True:
        unit = random.choice(tuple(UNITS))
        names, scenes = UNITS[unit]
        n = len(names)
        cells = [(s, o) for s in range(n) for o in range(1, n) if held(s, o) == (split == "heldout")]
        start, offset = random.choice(cells)
        template, scene = random.choice(part(list(enumerate(scenes)), split))
        fixed = 1 if corruption == "other_base" else 0  # which of (start, offset) stays
        foil = random.choice(
            [c for c in cells if c[fixed] == (start, offset)[fixed] and c != (start, offset)]
        )
        spelled = [
            scene.format(start=names[s], count=f"{COUNTS[o - 1]} {unit}{'s' if o > 1 else ''}")
            for s, o in ((start, offset), foil)
        ]
        answer = (start + offset) % n
        yield Draft(
            clean=spelled[0],
            corrupted=spelled[1],
            answers=(f" {names[answer]}",),
            wrong=tuple(f" {name}" for i, name in enumerate(names) if i != answer),
            facts={
                "unit": unit,
                "start": names[start],
                "offset": offset,
                "corrupted_start": names[foil[0]],
                "corrupted_offset": foil[1],
                "template": template,
            },
        )
