"""Prompts of the tasks: a clean and a corrupted one of the same length, the right and the wrong answers.

The corrupted prompt is the same facts with one thing changed, the thing that decides the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError, nearest
from interp.toys.language.construct import Construct, Facts
from interp.toys.language.copies import content
from interp.toys.language.lexicon import Word, lexicon
from interp.toys.language.quantities import circle
from interp.toys.language.tasks import CONSTRUCTS
from interp.toys.language.writing import Dice, Page, whole

__all__ = ["CORRUPTIONS", "TASKS", "PromptPair", "prompt_pairs"]

TASKS = tuple(CONSTRUCTS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptPair:
    """Two prompts of the same length, as words; the answer follows the last."""

    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    answers: tuple[str, ...]
    """Right after the clean prompt: one of them."""
    wrong: tuple[str, ...]
    facts: Mapping[str, Any]
    """What was drawn: names, template, number ...; ``heldout`` is the kind of held-out combination ("": trained)."""


def _names_but(dice: Dice, facts: Facts, n: int) -> list[Word]:
    used = (facts["a"], facts["b"], facts["subject"])
    return dice.some([name for name in lexicon().names if name not in used], n)


def _abc(dice: Dice, facts: Facts) -> Facts:
    a, b, c = _names_but(dice, facts, 3)
    return {**facts, "a": a, "b": b, "subject": c}


def _swap(dice: Dice, facts: Facts) -> Facts:
    return {**facts, "subject": facts["indirect"], "indirect": facts["subject"]}


def _random_s2(dice: Dice, facts: Facts) -> Facts:
    return {**facts, "subject": _names_but(dice, facts, 1)[0]}


def _year(dice: Dice, facts: Facts) -> Facts:
    return {**facts, "year": 1}


def _random_definition(dice: Dice, facts: Facts) -> Facts:
    asked, rest = facts["asked"], lexicon().identifiers
    other = dice.pick([word for word in rest if word not in facts["arguments"]])
    return {**facts, "arguments": [*facts["arguments"][:asked], other, *facts["arguments"][asked + 1 :]]}


def _other_gender(dice: Dice, facts: Facts) -> Facts:
    words = lexicon()
    return {**facts, "name": dice.pick(words.men if facts["name"].gender == 0 else words.women)}


def _other_number(dice: Dice, facts: Facts) -> Facts:
    return {**facts, "number": 1 - facts["number"]}


def _broken(dice: Dice, facts: Facts) -> Facts:
    used = set(facts["sequence"])
    return {**facts, "first": dice.some([word for word in content() if word not in used], len(used))}


def _other_base(dice: Dice, facts: Facts) -> Facts:
    bases = [i for i in range(len(circle(facts["unit"]))) if i != facts["base"]]
    return {**facts, "base": dice.pick(bases)}


_CORRUPT: dict[str, dict[str, Callable[[Dice, Facts], Facts]]] = {
    "ioi": {"abc": _abc, "swap": _swap, "random_s2": _random_s2},
    "greater_than": {"year01": _year},
    "docstring": {"random_definition": _random_definition},
    "gender": {"other_gender": _other_gender},
    "sva": {"other_number": _other_number},
    "induction": {"broken": _broken},
    "calendar": {"other_base": _other_base},
}
CORRUPTIONS: dict[str, tuple[str, ...]] = {task: tuple(kinds) for task, kinds in _CORRUPT.items()}
"""The ways to corrupt a task's prompts; the first is the default."""


def _plain(value: Any) -> Any:
    if isinstance(value, Word):
        return value.text
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _prompt(construct: Construct, facts: Facts) -> tuple[str, ...]:
    page = Page()
    construct.write(page, Dice(0), facts)
    return tuple(word.text for word in page.words[: page.answer])


def prompt_pairs(
    task: str, *, n: int, split: str = "heldout", seed: int = 0, corruption: str | None = None
) -> list[PromptPair]:
    """``n`` prompts of a task with their corrupted twins.

    Parameters
    ----------
    task
        One of ``TASKS``.
    split
        ``"train"``: combinations that the training text holds; ``"heldout"``: only such as it never holds (the
        construct's kinds of them in turn; each pair's ``facts["heldout"]`` names its kind).
    seed
        The same seed gives the same prompts, whatever ``n``.
    corruption
        One of ``CORRUPTIONS[task]``; the first by default.

    Raises
    ------
    InputError
        An unknown task, split or corruption, or n below 1.
    """
    if task not in CONSTRUCTS:
        raise InputError(
            f"no task {task!r} in the language{nearest(str(task), TASKS)} (tasks: {', '.join(TASKS)})"
        )
    if split not in ("train", "heldout"):
        raise InputError(f"no split {split!r}: give 'train' or 'heldout'")
    corruption = CORRUPTIONS[task][0] if corruption is None else corruption
    if corruption not in _CORRUPT[task]:
        known = CORRUPTIONS[task]
        raise InputError(
            f"{task} has no corruption {corruption!r}{nearest(str(corruption), known)} ({', '.join(known)})"
        )
    whole("n", n, least=1)
    whole("seed", seed)
    construct, pairs = CONSTRUCTS[task], []
    for i in range(n):
        dice = Dice((((seed << 1) + (split == "heldout")) << 40) + (TASKS.index(task) << 32) + i)
        reason = construct.heldout[i % len(construct.heldout)] if split == "heldout" else None
        facts = construct.draw(dice, reason)
        while facts.get("kind") == "ABC":  # a third person gives: there is no right answer
            facts = construct.draw(dice, reason)
        other = _CORRUPT[task][corruption](dice, facts)
        shown = {key: _plain(value) for key, value in facts.items() if not hasattr(value, "present")}
        pairs.append(
            PromptPair(
                clean=_prompt(construct, facts),
                corrupted=_prompt(construct, other),
                answers=tuple(word.text for word in construct.right(facts)),
                wrong=tuple(word.text for word in construct.wrong(facts)),
                facts={**shown, "heldout": reason or ""},
            )
        )
    return pairs
