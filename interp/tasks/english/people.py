"""Tasks about named people: indirect object identification and gendered pronouns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random

from interp.tasks.english.lexicon import FEMALE, MALE, OBJECTS, PLACES, part
from interp.tasks.pairs import Draft, Words

__all__ = ["gender", "indirect_object"]

SCENES = (
    "Then {a} and {b} walked to the {place}, and {s} gave a {object} to",
    "After {a} and {b} met at the {place}, {s} handed a {object} to",
    "While {a} and {b} were waiting at the {place}, {s} showed a {object} to",
    "On the way to the {place}, {a} and {b} stopped. There {s} sold a {object} to",
    "Because {a} and {b} both worked near the {place}, {s} brought a {object} to",
    "Last week {a} and {b} visited the {place}. Before leaving, {s} passed a {object} to",
    "Soon after {a} and {b} came back from the {place}, {s} offered a {object} to",
    "Yesterday {a} and {b} had lunch by the {place}, where {s} lent a {object} to",
    "At the {place}, {a} and {b} found a {object}. In the end {s} gave it to",
    "When {a} and {b} left the {place}, {s} wanted to give a {object} to",
    "Although {a} and {b} had argued at the {place}, {s} sent a {object} to",
    "Once {a} and {b} had cleaned the {place}, {s} threw a {object} to",
)
"""Both names come first, then the subject again; the indirect object is asked for."""


def indirect_object(words: Words, split: str, corruption: str, random: Random) -> Iterator[Draft]:
    """Prompts in which one of two named people acts again and the other one is the answer.

    Clean prompts are ABBA (the answer is named first) and BABA in turn. Corruptions: ``abc`` puts three other names
    in the three places; ``swap`` names the indirect object where the subject acts again; ``random_s2`` a third person.
    Held out: names, templates, places and objects.

    References
    ----------
    Wang et al. 2022, arXiv 2211.00593.
    """
    names = words.keep(part((*FEMALE, *MALE), split), what="names", least=5)
    places = words.keep(part(PLACES, split), what="places", least=1)
    objects = words.keep(part(OBJECTS, split), what="objects", least=1)
    scenes = part(list(enumerate(SCENES)), split)
    for i in count():
        template, scene = random.choice(scenes)
        io, s, *others = random.sample(names, 5)
        order = ("ABBA", "BABA")[i % 2]
        first, second = (io, s) if order == "ABBA" else (s, io)
        place, thing = random.choice(places), random.choice(objects)
        a, b, s2 = {
            "abc": tuple(others),
            "swap": (first, second, io),
            "random_s2": (first, second, others[0]),
        }[corruption]
        yield Draft(
            clean=scene.format(a=first, b=second, s=s, place=place, object=thing),
            corrupted=scene.format(a=a, b=b, s=s2, place=place, object=thing),
            answers=(f" {io}",),
            wrong=(f" {s}",),
            facts={
                "order": order,
                "io": io,
                "s": s,
                "corrupted_names": [a, b, s2],
                "place": place,
                "object": thing,
                "template": template,
            },
        )


REASONS = (
    "My friend {name} stayed at home because",
    "The others waited for {name} until",
    "We all know {name} well, and",
    "Everyone trusts {name} because",
    "I wrote to {name} last week, but",
    "People ask {name} for help when",
    "The committee chose {name} because",
    "They thanked {name} after",
    "The neighbors called {name} when",
    "Nobody had seen {name} since",
    "Our team won with {name}, although",
    "The manager promoted {name} because",
    "The children like {name} because",
    "The class laughed with {name} when",
    "A letter came for {name} while",
    "The train left without {name} because",
)


def gender(words: Words, split: str, corruption: str, random: Random) -> Iterator[Draft]:
    """Prompts that name one person and break off where a pronoun follows: `` he`` or `` she``.

    Clean names are female and male in turn. Corruption ``other_gender``: a name of the other gender. Held out: names
    and templates.
    """
    pools = {
        "female": words.keep(part(FEMALE, split), what="female names", least=2),
        "male": words.keep(part(MALE, split), what="male names", least=2),
    }
    words.keep(("he", "she"), what="pronouns", least=2)
    pronouns = {"female": " she", "male": " he"}
    reasons = part(list(enumerate(REASONS)), split)
    for i in count():
        template, reason = random.choice(reasons)
        this, other = ("female", "male") if i % 2 == 0 else ("male", "female")
        name, foil = random.choice(pools[this]), random.choice(pools[other])
        yield Draft(
            clean=reason.format(name=name),
            corrupted=reason.format(name=foil),
            answers=(pronouns[this],),
            wrong=(pronouns[other],),
            facts={"gender": this, "name": name, "corrupted_name": foil, "template": template},
        )
