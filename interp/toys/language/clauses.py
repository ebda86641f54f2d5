"""Agreement across an attractor: the verb goes with its subject, not with the noun beside it."""

from __future__ import annotations

from interp.toys.language.construct import Construct, Facts
from interp.toys.language.grammar import NEAR, agreement_heads, copula
from interp.toys.language.lexicon import IGNORE, Word, lexicon
from interp.toys.language.writing import Dice, Page

__all__ = ["SVA"]

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
        page.say(facts["other"][facts["attractor"]], entity=("other", facts["other"]))
    else:
        page.depth += 1
        page.agreement = IGNORE
        page.say("that", "the")
        page.agreement = facts["attractor"]
        page.say(facts["other"][facts["attractor"]], entity=("other", facts["other"]))
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


SVA = Construct(
    draw=_draw_sva,
    write=_write_sva,
    right=lambda facts: _forms(facts["number"]),
    wrong=lambda facts: _forms(1 - facts["number"]),
    heldout=("nouns", "templates"),
)
