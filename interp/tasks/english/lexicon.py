"""The words that English prompts are made of, and how they are shared out between the splits.

Every fourth entry of a list is held out. Words that a tokenizer cuts into pieces are dropped where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def part(items: Sequence[T], split: str) -> list[T]:
    """The entries of a list that belong to ``split``: every fourth to "heldout", the others to "train"."""
    return [item for i, item in enumerate(items) if (i % 4 == 3) == (split == "heldout")]


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


FEMALE = listed(
    """
    Mary Sarah Emily Anna Laura Emma Alice Jane Lisa Karen Susan Linda Rachel Rebecca Jessica Jennifer Amanda
    Michelle Nancy Helen Ruth Julia Kate Claire Maria Diana Margaret Elizabeth Victoria Katherine Melissa Nicole
    Angela Amy Andrea Christina Stephanie Heather Lauren Hannah Charlotte Sophie Lucy Martha Catherine Caroline
    Samantha Natalie
    """
)
MALE = listed(
    """
    John James David Michael Robert William Richard Thomas Charles Daniel Matthew Mark Paul Steven Andrew Kevin
    Brian George Edward Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon
    Benjamin Frank Gregory Samuel Patrick Alexander Jack Henry Peter Adam Nathan Simon Martin Arthur Oliver Philip
    """
)
PLACES = listed(
    """
    park market library museum school station office hospital church garden beach theatre hotel kitchen farm airport
    factory restaurant bank forest village harbor stadium gym
    """
)
OBJECTS = listed(
    """
    book letter drink ring basket picture ticket key flower coin map phone camera ball guitar hammer shirt watch pen
    card box rope knife bottle
    """
)
SPANS = listed(  # what lasts from one year to another
    """war siege strike trial study journey project campaign festival drought debate conflict treaty reign expedition
    recession investigation marriage partnership voyage occupation revolt experiment training dispute tour contract boom
    crisis boycott struggle famine epidemic rebellion protest alliance"""
)
PEOPLE = tuple(  # (singular, plural)
    zip(
        listed(
            """
            teacher doctor lawyer farmer student author artist driver singer writer manager officer soldier player
            brother sister father mother child neighbor pilot guard judge friend girl boy king queen actor nurse
            banker poet priest chef scientist engineer senator guest minister
            """
        ),
        listed(
            """
            teachers doctors lawyers farmers students authors artists drivers singers writers managers officers
            soldiers players brothers sisters fathers mothers children neighbors pilots guards judges friends girls
            boys kings queens actors nurses bankers poets priests chefs scientists engineers senators guests
            ministers
            """
        ),
        strict=True,
    )
)
THINGS = tuple(
    zip(
        listed(
            "table desk car house tree river bridge window door road wall tower garden lake chair truck boat train"
        ),
        listed(
            """
            tables desks cars houses trees rivers bridges windows doors roads walls towers gardens lakes chairs
            trucks boats trains
            """
        ),
        strict=True,
    )
)
PREPOSITIONS = ("near", "behind", "beside", "with", "above", "under", "by", "opposite")
VERBS = (("is", "are"), ("has", "have"), ("was", "were"), ("does", "do"))  # (singular, plural)
CLAUSE_VERBS = tuple(
    zip(
        listed("likes knows sees helps wants follows loves hates trusts meets calls visits"),
        listed("like know see help want follow love hate trust meet call visit"),
        strict=True,
    )
)
ARGUMENTS = listed(
    """
    file port name size index value node path user count text image list date color width height level model state
    group order field token label score page table event frame batch line key source target limit offset mode format
    query result type class point shape scale weight angle speed time test code data cell graph tree root parent
    child message reason status account server client host version number title author string buffer input output
    option view window button theme style font layer mask region unit rate price amount total filter column row
    element item entry block chunk stream channel signal volume sample grid vector matrix length depth step
    """
)
DESCRIPTIONS = listed(
    """
    new old main first last small large public common given whole current simple full final local basic single short
    great open active actual early famous fine free general happy heavy human long major modern natural normal
    official original other physical popular possible private recent regular strong usual valid young
    """
)
FUNCTIONS = listed(
    """
    load send build check parse update remove create fetch find merge split reset store write convert move clean
    open close start stop apply select
    """
)
COUNTS = listed("one two three four five six seven eight nine ten eleven")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("January February March April May June July August September October November December")
