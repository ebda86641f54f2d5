"""What was said is said again: arguments in a docstring, repeated random sequences."""

from __future__ import annotations

import functools

from interp.toys.language.construct import Construct, Facts, others
from interp.toys.language.grammar import part
from interp.toys.language.lexicon import Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = ["DOCSTRING", "INDUCTION", "content"]


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


DOCSTRING = Construct(
    draw=_draw_docstring,
    write=_write_docstring,
    right=lambda facts: (facts["arguments"][facts["asked"]],),
    wrong=lambda facts: others(tuple(facts["arguments"]), facts["arguments"][facts["asked"]]),
    heldout=("names",),
)


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


INDUCTION = Construct(
    draw=_draw_induction,
    write=_write_induction,
    right=lambda facts: (facts["sequence"][facts["again"] - 1],),
    wrong=lambda facts: others(tuple(facts["sequence"]), facts["sequence"][facts["again"] - 1]),
    heldout=("sequences",),
)
