"""The words: each with its part of speech, number, gender, sentiment, tense and value.

A *word* is an entry of the lexicon; two entries may share one token (``walk`` is a verb and a noun), so a token's
part of speech can depend on its context. Everything here is fixed: the order of the words is the order of the ids.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError, nearest

__all__ = ["IGNORE", "LABELS", "SPECIAL", "Verb", "Word", "encode", "lexicon", "vocabulary"]

IGNORE = -100
"""The label of a token that has none (what torch's cross entropy leaves out)."""
SPECIAL = ("<bos>", "<pad>", "<unk>")

POS = (
    "noun", "name", "verb", "auxiliary", "adjective", "adverb", "pronoun", "determiner", "preposition",
    "conjunction", "number", "calendar", "punctuation", "identifier", "keyword", "special",
)  # fmt: skip
LABELS: dict[str, tuple[str, ...] | None] = {
    "pos": POS,
    "number": ("singular", "plural"),
    "gender": ("feminine", "masculine"),
    "sentiment": ("negative", "positive"),
    "tense": ("present", "past"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    ),
    "quantity": None,  # the value of a number word or of two digits
    "entity": None,  # which participant of the document a word refers to, counted from 0
    "depth": None,  # how many clauses or brackets are open around the token
    "agreement": ("singular", "plural"),  # number of the subject that still waits for its verb (plain, sva, events)
    "mood": ("negative", "positive"),  # how the story has been going so far
    "task": None,  # index of the construct in `corpus.MIXTURE`
}  # fmt: skip
"""Every label and what its values mean (None: a plain number)."""
STATIC = ("pos", "number", "gender", "sentiment", "tense", "day", "month", "quantity")


@dataclass(frozen=True, slots=True)
class Word:
    """An entry of the lexicon."""

    index: int
    token: int
    text: str
    pos: str
    number: int = IGNORE
    gender: int = IGNORE
    sentiment: int = IGNORE
    tense: int = IGNORE
    day: int = IGNORE
    month: int = IGNORE
    quantity: int = IGNORE


@dataclass(frozen=True, slots=True)
class Verb:
    """The forms of a verb: ``walk``, ``walks``, ``walked``."""

    plural: Word
    singular: Word
    past: Word

    def present(self, number: int) -> Word:
        """The form that agrees with a subject of that number (0 singular, 1 plural)."""
        return self.plural if number else self.singular


WOMEN = (
    "Alice Anna Beth Carla Clara Diana Ella Emma Eva Fiona Grace Hannah Helen Ida Irene Jane Julia Karen Kate Laura "
    "Lily Lucy Maria Mary Nina Nora Olivia Paula Rosa Ruth Sarah Sofia Susan Tina Vera Wendy Zoe Amber Molly Stella"
)
MEN = (
    "Adam Alan Albert Ben Bob Carl Charles Daniel David Edward Eric Felix Frank George Henry Hugo Ian Jack James "
    "John Kevin Leo Luke Martin Max Nathan Noah Oscar Paul Peter Ralph Robert Samuel Simon Steven Thomas Tom Victor "
    "Walter William"
)
PERSONS = (
    "teacher doctor farmer singer baker sailor painter driver lawyer nurse neighbor cousin friend guest student "
    "manager"
)
ANIMALS = "dog cat horse bird rabbit fox lion bear duck goat"
THINGS = (
    "ball book key lamp cup ring hat basket letter picture coat bottle box knife chair table clock flower plum coin "
    "necklace drum pen shirt cake stone wheel rope mirror blanket"
)
PLACES = (
    "garden school market park river house station church library office kitchen beach forest museum hospital "
    "restaurant village bridge farm harbor castle theater"
)
EVENTS = "war trip siege strike project contract voyage festival journey reign trial storm meeting show search game"
SAME = "walk dance talk"  # nouns that share their token with a verb
IDENTIFIERS = (
    "size shape state option index value count width color label level limit offset path mode name scale format line "
    "node query result source target model input output buffer cache token"
)
FUNCTIONS = "load save parse read write merge sort find update build run check"
INTRANSITIVE = "walk/walked sleep/slept dance/danced talk/talked wait/waited work/worked sing/sang run/ran"
TRANSITIVE = (
    "see/saw like/liked know/knew help/helped follow/followed watch/watched visit/visited remember/remembered"
)
POSITIVE = "happy kind great lovely wonderful bright brave gentle calm proud"
NEGATIVE = "sad cruel dreadful nasty terrible gloomy fearful furious lazy broken"
NEUTRAL = "red blue green black white brown young new small large tall long short round quiet heavy"
DIGITS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
FIXED = {  # closed classes: (part of speech, labels): words; a slash makes a second entry of the same token
    ("pronoun", (("number", 0), ("gender", 0))): "She she her/object",
    ("pronoun", (("number", 0), ("gender", 1))): "He he him",
    ("determiner", (("number", 0), ("gender", 0))): "her",
    ("determiner", (("number", 0), ("gender", 1))): "his",
    ("pronoun", (("number", 0),)): "it",
    ("pronoun", (("number", 1),)): "They",
    ("pronoun", ()): "Who that today Yesterday",
    ("determiner", ()): "The the",
    ("determiner", (("number", 0),)): "A a Every",
    ("determiner", (("number", 1),)): "Some Many",
    ("auxiliary", (("number", 0), ("tense", 0))): "is Is has Does",
    ("auxiliary", (("number", 1), ("tense", 0))): "are Are have Do",
    ("auxiliary", (("number", 0), ("tense", 1))): "was",
    ("auxiliary", (("number", 1), ("tense", 1))): "were",
    ("auxiliary", ()): "will be",
    (
        "verb",
        (("tense", 1),),
    ): "went came left met had gave handed offered brought decided wanted said lasted "
    "continued stayed lost found took thanked lived started ended",
    ("verb", (("tense", 1), ("sentiment", 1))): "smiled laughed",
    ("verb", (("tense", 1), ("sentiment", 0))): "cried complained",
    ("verb", ()): "give sell",
    ("preposition", ()): "to at from in near behind beside with under on",
    ("adverb", ()): "very then Then home ago",
    ("conjunction", ()): "and but because so when When While After Before after before If that/clause",
    ("punctuation", ()): '. , ? : " ( ) [ ]',
    ("keyword", ()): "def self param",
    ("calendar", (("number", 0),)): "day month year",
    ("calendar", (("number", 1),)): "days months",
}


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All words, by class."""

    words: tuple[Word, ...]
    tokens: tuple[str, ...]
    fixed: dict[str, Word]
    """Closed classes and the past tenses, by the text they are written with in templates."""
    women: tuple[Word, ...]
    men: tuple[Word, ...]
    persons: tuple[tuple[Word, Word], ...]
    animals: tuple[tuple[Word, Word], ...]
    things: tuple[tuple[Word, Word], ...]
    events: tuple[tuple[Word, Word], ...]
    places: tuple[Word, ...]
    intransitive: tuple[Verb, ...]
    transitive: tuple[Verb, ...]
    infinitives: tuple[Word, ...]
    """Of the intransitive verbs, in their order; each shares its token with the plural form."""
    positive: tuple[Word, ...]
    negative: tuple[Word, ...]
    neutral: tuple[Word, ...]
    identifiers: tuple[Word, ...]
    functions: tuple[Word, ...]
    counts: tuple[Word, ...]
    digits: tuple[Word, ...]
    days: tuple[Word, ...]
    months: tuple[Word, ...]

    @property
    def names(self) -> tuple[Word, ...]:
        """All names, women's and men's in turn."""
        return tuple(name for pair in zip(self.women, self.men, strict=True) for name in pair)

    @property
    def nouns(self) -> tuple[tuple[Word, Word], ...]:
        """Countable nouns, each as singular and plural."""
        return (*self.persons, *self.animals, *self.things)


class _Builder:
    def __init__(self) -> None:
        self.words: list[Word] = []
        self.tokens: dict[str, int] = {}
        for text in SPECIAL:
            self.add(text, "special")

    def add(self, text: str, pos: str, **labels: int) -> Word:
        token = self.tokens.setdefault(text, len(self.tokens))
        word = Word(len(self.words), token, text, pos, **labels)
        self.words.append(word)
        return word

    def many(self, texts: str | Iterable[str], pos: str, **labels: int) -> tuple[Word, ...]:
        return tuple(
            self.add(text, pos, **labels) for text in (texts.split() if isinstance(texts, str) else texts)
        )

    def nouns(self, texts: str) -> tuple[tuple[Word, Word], ...]:
        pairs = []
        for text in texts.split():
            plural = {"knife": "knives"}.get(text) or text + (
                "es" if text.endswith(("x", "s", "ch", "sh")) else "s"
            )
            pairs.append((self.add(text, "noun", number=0), self.add(plural, "noun", number=1)))
        return tuple(pairs)

    def verbs(self, texts: str) -> tuple[Verb, ...]:
        found = []
        for text in texts.split():
            base, past = text.split("/")
            third = base + ("es" if base.endswith(("ch", "sh")) else "s")
            found.append(
                Verb(
                    self.add(base, "verb", number=1, tense=0),
                    self.add(third, "verb", number=0, tense=0),
                    self.add(past, "verb", tense=1),
                )
            )
        return tuple(found)


def _fixed(make: _Builder) -> dict[str, Word]:
    found: dict[str, Word] = {}
    for (pos, labels), texts in FIXED.items():
        for text in texts.split():
            found[text] = make.add(text.partition("/")[0] or text, pos, **dict(labels))
    return found


@functools.cache
def lexicon() -> Lexicon:
    """The lexicon: made once."""
    make = _Builder()
    fixed = _fixed(make)
    parts: dict[str, Any] = {
        "women": make.many(WOMEN, "name", number=0, gender=0),
        "men": make.many(MEN, "name", number=0, gender=1),
        "persons": make.nouns(PERSONS),
        "animals": make.nouns(ANIMALS),
        "things": make.nouns(THINGS),
        "events": make.nouns(EVENTS) + make.nouns(SAME),
        "places": make.many(PLACES, "noun", number=0),
        "intransitive": make.verbs(INTRANSITIVE),
        "transitive": make.verbs(TRANSITIVE),
        "positive": make.many(POSITIVE, "adjective", sentiment=1),
        "negative": make.many(NEGATIVE, "adjective", sentiment=0),
        "neutral": make.many(NEUTRAL, "adjective"),
        "identifiers": make.many(IDENTIFIERS, "identifier"),
        "functions": make.many(FUNCTIONS, "identifier"),
        "counts": tuple(
            make.add(text, "number", quantity=value + 1, number=int(value > 0))
            for value, text in enumerate(DIGITS.split())
        ),
        "digits": tuple(make.add(f"{value:02d}", "number", quantity=value) for value in range(100)),
        "days": tuple(
            make.add(text, "calendar", day=value) for value, text in enumerate(LABELS["day"] or ())
        ),
        "months": tuple(
            make.add(text, "calendar", month=value) for value, text in enumerate(LABELS["month"] or ())
        ),
    }
    for verb in (*parts["intransitive"], *parts["transitive"]):
        fixed.setdefault(verb.past.text, verb.past)
    # last, so that no index moves
    parts["infinitives"] = make.many((verb.plural.text for verb in parts["intransitive"]), "verb")
    return Lexicon(words=tuple(make.words), tokens=tuple(make.tokens), fixed=fixed, **parts)


def vocabulary() -> tuple[str, ...]:
    """The token strings in the order of their ids, ``<bos>``, ``<pad>`` and ``<unk>`` first."""
    return lexicon().tokens


@functools.cache
def _ids() -> dict[str, int]:
    return {text: i for i, text in enumerate(vocabulary())}


def encode(words: Sequence[str]) -> list[int]:
    """Token ids of words of the language.

    Raises
    ------
    InputError
        A word is not in the vocabulary; the message says the nearest.
    """
    ids = _ids()
    for word in words:
        if word not in ids:
            raise InputError(f"{word!r} is no word of the language{nearest(str(word), ids)}")
    return [ids[word] for word in words]
