"""Explanations of latents by a chat model the user brings, and how well they predict where a latent fires.

Examples for the explanation and for its scores come from different texts. Detection: does the judge, who sees only the
explanation, tell texts on which the latent fires from others? Fuzzing: does it tell the tokens on which the latent
fires from other tokens of the same texts?

References: Bills et al. 2023; Paulo et al. 2024 (Automatically interpreting millions of features), sections 3 and 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from interp.errors import CheckError, InputError
from interp.results import Result
from interp.showing import Shown
from sae.chat import Ask
from sae.codes import Codes
from sae.gallery.examples import Examples, Plan, choose

__all__ = ["Explanation", "detection_score", "explain", "fuzzing_score"]

PLAN = Plan(top=10, intervals=5, each=8, before=12, after=6)
ASKED = 5
"""Texts a question to the judge."""
_EXPLAIN = (
    "You study one unit of a neural network that reads text. Below are texts; the tokens on which the unit is active "
    "stand between << and >>, with the strength of the strongest in brackets. Say in one short phrase what the unit "
    "responds to. Answer with the phrase only."
)
_DETECT = (
    "A unit of a neural network is described as responding to: {text}\nFor each numbered text say whether the unit is "
    "active anywhere in it. Answer with a JSON list of {n} numbers, 1 for yes and 0 for no, and nothing else."
)
_FUZZ = (
    "A unit of a neural network is described as responding to: {text}\nIn each numbered text some tokens stand between "
    "<< and >>. Say whether these are the tokens on which the unit is active. Answer with a JSON list of {n} numbers, "
    "1 for yes and 0 for no, and nothing else."
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Explanation(Shown):
    """What a latent was said to respond to."""

    latent: int
    text: str
    scores: Mapping[str, float] = field(default_factory=dict)
    """``detection`` and ``fuzzing``: balanced accuracies, 0.5 by chance."""


@dataclass(frozen=True, slots=True)
class _Window:
    tokens: tuple[str, ...]
    on: tuple[bool, ...]
    strongest: float

    def plain(self) -> str:
        return _joined(self.tokens, (False,) * len(self.tokens))

    def marked(self, on: Sequence[bool] | None = None) -> str:
        return _joined(self.tokens, self.on if on is None else on)


def _joined(tokens: Sequence[str], on: Sequence[bool]) -> str:
    """Tokens as a text; << and >> around those that are on. What a text itself holds of them is blunted."""
    gap = "" if any(t[:1].isspace() for t in tokens) else " "
    clean = [t.replace("<<", "\u2039\u2039").replace(">>", "\u203a\u203a") for t in tokens]
    return gap.join(f"<<{t}>>" if yes else t for t, yes in zip(clean, on, strict=True)).replace("\n", " ")


def explain(
    codes: Codes,
    latents: Sequence[int],
    ask: Ask,
    *,
    judge: Ask | None = None,
    n_scored: int = 10,
    score: bool = True,
    seed: int = 0,
) -> dict[int, Explanation]:
    """Ask what each latent responds to, and score the answers.

    Parameters
    ----------
    codes
        From :func:`sae.encode`, with its texts.
    ask, judge
        Who explains, and who judges (the same unless given): :func:`sae.chat_endpoint`, :func:`sae.chat_model`, or any
        function from messages to text.
    n_scored
        Texts on which the latent fires, and as many others, for each score.
    score
        False asks for explanations only.

    Returns
    -------
    dict
        Latent -> :class:`Explanation`; hand it to :func:`sae.dashboard`. Questions: 1 + 4 n_scored / 5 a latent.

    Raises
    ------
    InputError
        A latent that fires on too few texts; the message says how many there are.
    CheckError
        No answer of the judge could be read.
    """
    found = {}
    for latent in latents:
        shown, held = _examples(codes, latent, n_scored if score else 0, seed)
        lines = [f"{i + 1}. [{w.strongest:.2g}] {w.marked()}" for i, w in enumerate(shown)]
        question = [{"role": "system", "content": _EXPLAIN}, {"role": "user", "content": "\n".join(lines)}]
        text = " ".join(ask(question).split())[:300]
        scores = {}
        if score:
            for name, measure in (("detection", _detection), ("fuzzing", _fuzzing)):
                result = measure(codes, latent, text, judge or ask, held[:n_scored], seed)
                scores[name] = float(result.value)
        found[latent] = Explanation(latent=latent, text=text, scores=scores)
    return found


def detection_score(
    codes: Codes, latent: int, text: str, judge: Ask, *, n_scored: int = 10, seed: int = 0
) -> Result:
    """Balanced accuracy with which a judge who knows ``text`` tells texts on which the latent fires from others."""
    return _detection(codes, latent, text, judge, _examples(codes, latent, n_scored, seed)[1], seed)


def fuzzing_score(
    codes: Codes, latent: int, text: str, judge: Ask, *, n_scored: int = 10, seed: int = 0
) -> Result:
    """The same, for the right tokens against other tokens of the same texts, both marked."""
    return _fuzzing(codes, latent, text, judge, _examples(codes, latent, n_scored, seed)[1], seed)


def _examples(codes: Codes, latent: int, n_scored: int, seed: int) -> tuple[list[_Window], list[_Window]]:
    """Windows to explain by (the strongest), and others from all strengths, of other texts."""
    one = codes.pick([codes.check(latent)])
    texts = len(np.unique(codes.where[one.rows, 0]))
    least = 4 + n_scored
    if texts < least:
        raise InputError(
            f"latent {latent} fires on {texts} texts of {len(codes.corpus)}; {least} are needed to explain and score "
            "it: bring more texts, or lower n_scored"
        )
    plan = Plan(
        top=min(PLAN.top, texts - n_scored), intervals=PLAN.intervals, each=max(PLAN.each, n_scored),
        before=PLAN.before, after=PLAN.after,
    )  # fmt: skip
    chosen = choose(one, plan, seed=seed)
    windows = [_window(one, chosen, i) for i in range(len(chosen.row))]
    shown = [w for w, g in zip(windows, chosen.group, strict=True) if g == 0]
    rest = [w for w, g in zip(windows, chosen.group, strict=True) if g > 0]
    order = np.random.default_rng([seed, latent]).permutation(len(rest))[:n_scored]
    return shown, [rest[i] for i in order]


def _window(codes: Codes, chosen: Examples, i: int) -> _Window:
    begin, length = chosen.row[i] - chosen.left[i], chosen.length[i]
    part = slice(chosen.starts[i], chosen.starts[i + 1])
    on = np.zeros(length, dtype=bool)
    on[chosen.offset[part]] = True
    show, where = codes.corpus.show, codes.where[begin : begin + length]
    ids = codes.corpus.ids[where[:, 0], where[:, 1]].tolist()
    return _Window(tuple(show(t) for t in ids), tuple(on.tolist()), float(np.abs(chosen.value[part]).max()))


def _silent(codes: Codes, latent: int, n: int, seed: int) -> list[_Window]:
    """Windows of random texts on which the latent does not fire at all."""
    rng = np.random.default_rng([seed, latent, 1])
    fires = np.unique(codes.where[codes.of(latent)[0], 0])
    rest = np.setdiff1d(np.unique(codes.where[:, 0]), fires)
    if len(rest) >= n:
        rows = np.array(
            [rng.choice(np.flatnonzero(codes.where[:, 0] == t)) for t in rng.permutation(rest)[:n]]
        )
    else:  # it fires in nearly every text: windows without it
        rows = rng.permutation(codes.n)
    on = np.zeros(codes.n, dtype=bool)
    on[codes.of(latent)[0]] = True
    found = []
    for row in rows:
        begin, end = max(0, row - PLAN.before), min(codes.n, row + PLAN.after + 1)
        inside = np.arange(begin, end)[codes.where[begin:end, 0] == codes.where[row, 0]]
        if on[inside].any():
            continue
        where = codes.where[inside]
        ids = codes.corpus.ids[where[:, 0], where[:, 1]].tolist()
        found.append(_Window(tuple(codes.corpus.show(t) for t in ids), (False,) * len(ids), 0.0))
        if len(found) == n:
            return found
    raise InputError(
        f"latent {latent} fires almost everywhere: {len(found)} of {n} windows without it were found"
    )


def _detection(codes: Codes, latent: int, text: str, judge: Ask, held: list[_Window], seed: int) -> Result:
    questions = [(w.plain(), True) for w in held]
    questions += [(w.plain(), False) for w in _silent(codes, latent, len(held), seed)]
    return _judged("detection", _DETECT, questions, text, judge, latent, seed)


def _fuzzing(codes: Codes, latent: int, text: str, judge: Ask, held: list[_Window], seed: int) -> Result:
    rng = np.random.default_rng([seed, latent, 2])
    questions = []
    for window in held:
        on = np.array(window.on)
        if on.all():
            continue  # every token is on: no other ones to mark
        wrong = np.zeros(len(on), dtype=bool)
        wrong[rng.permutation(np.flatnonzero(~on))[: on.sum()]] = True
        questions += [(window.marked(), True), (window.marked(wrong.tolist()), False)]
    if not questions:
        raise InputError(
            f"latent {latent} fires on every token of its texts: there are no other tokens to mark"
        )
    return _judged("fuzzing", _FUZZ, questions, text, judge, latent, seed)


def _judged(
    name: str, prompt: str, questions: list[tuple[str, bool]], text: str, judge: Ask, latent: int, seed: int
) -> Result:
    order = np.random.default_rng([seed, latent, 3]).permutation(len(questions))
    right: dict[bool, list[bool]] = {True: [], False: []}
    unread = ""
    lost = 0
    for start in range(0, len(order), ASKED):
        part = [questions[i] for i in order[start : start + ASKED]]
        lines = "\n".join(f"{i + 1}. {shown}" for i, (shown, _) in enumerate(part))
        head = prompt.format(text=text, n=len(part))
        answer = judge([{"role": "system", "content": head}, {"role": "user", "content": lines}])
        said = _list(answer, len(part))
        if said is None:
            unread, lost = answer, lost + len(part)
            continue
        for yes, (_, truth) in zip(said, part, strict=True):
            right[truth].append(yes == truth)
    if not right[True] or not right[False]:
        raise CheckError(
            f"the judge's answers cannot be read as lists of 0 and 1; the last was {unread[:120]!r}"
        )
    shares = [float(np.mean(right[truth])) for truth in (True, False)]
    spread = [s * (1 - s) / len(right[t]) for s, t in zip(shares, (True, False), strict=True)]
    return Result(
        name=name,
        value=sum(shares) / 2,
        stderr=sum(spread) ** 0.5 / 2,
        n=len(right[True]) + len(right[False]),
        convention="balanced accuracy on texts that the explanation was not made from",
        chance=0.5,
        provenance={
            "latent": latent,
            "explanation": text,
            "hits": shares[0],
            "rejections": shares[1],
            "unread": lost,
        },
    )


def _list(answer: str, n: int) -> list[bool] | None:
    """The first JSON list of n zeros and ones in the answer."""
    for found in re.finditer(r"\[[\s01,]*\]", answer):
        try:
            values = json.loads(found.group())
        except ValueError:
            continue
        if len(values) == n:
            return [v == 1 for v in values]
    return None
