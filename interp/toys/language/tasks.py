"""The constructs with a right answer: what each draws, how it is written, what the answer is.

A construct is three functions of one set of *facts*: ``draw`` rolls them, ``write`` puts them on a page (and marks
where the answer stands), ``right`` and ``wrong`` name the answers. Prompts are the same facts written up to the answer.

What is held out, in each construct: some combinations that training text never holds, though every word of them
occurs elsewhere. ``draw`` of the split ``train`` leaves them out, of ``heldout`` makes only them, each row by one of
the construct's reasons (``facts["heldout"]`` says which).
"""

from __future__ import annotations

from interp.toys.language.clauses import SVA
from interp.toys.language.construct import Construct
from interp.toys.language.copies import DOCSTRING, INDUCTION
from interp.toys.language.people import GENDER, IOI
from interp.toys.language.quantities import CALENDAR, GREATER_THAN

__all__ = ["CONSTRUCTS"]

CONSTRUCTS: dict[str, Construct] = {
    "ioi": IOI,
    "greater_than": GREATER_THAN,
    "docstring": DOCSTRING,
    "gender": GENDER,
    "sva": SVA,
    "induction": INDUCTION,
    "calendar": CALENDAR,
}
