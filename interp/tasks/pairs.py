"""Pairs: a clean and a corrupted prompt that line up token by token, and the one-token answers behind them.

Prompts are written as text (:class:`Draft`) and asked of the tokenizer as a whole, so a pair is judged by the tokens
that the model will see and not by what its words are on their own. Read next: `task.py`, where pairs become tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from interp.errors import InputError

__all__ = ["Draft", "Pair", "Words", "fit"]

W = TypeVar("W", str, tuple[str, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A pair as text. An answer is the text that follows the prompt (with its space), or a token id."""

    clean: str
    corrupted: str
    answers: Sequence[str | int]
    wrong: Sequence[str | int] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pair as token ids; both prompts have the same length, and what follows the last token is the answer."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answers: tuple[int, ...]
    wrong: tuple[int, ...]
    facts: Mapping[str, Any]
    texts: tuple[str, str]


class Words:
    """A tokenizer, asked about words: which are one token, and what follows what.

    Parameters
    ----------
    tokenizer
        Called as ``tokenizer(texts, add_special_tokens=False)["input_ids"]``, with ``decode`` and
        ``convert_ids_to_tokens``, as every Hugging Face tokenizer is.
    prepend_bos
        Whether prompts begin with the beginning-of-sequence token; None: where the tokenizer has one.
    """

    ANCHOR = "a"

    def __init__(self, tokenizer: Any, *, prepend_bos: bool | None = None) -> None:
        from interp.models.text import shower

        if not callable(tokenizer):
            raise InputError(
                f"a {type(tokenizer).__name__} is no tokenizer: it must be called with texts and give 'input_ids'"
            )
        self.tokenizer: Any = tokenizer
        bos = getattr(tokenizer, "bos_token_id", None)
        if prepend_bos and bos is None:
            raise InputError("prepend_bos=True, but the tokenizer has no beginning-of-sequence token")
        self.start: tuple[int, ...] = () if bos is None or prepend_bos is False else (bos,)
        self.pad = getattr(tokenizer, "pad_token_id", None) or 0
        self.unknown = getattr(tokenizer, "unk_token_id", None)
        self.special = frozenset(getattr(tokenizer, "all_special_ids", None) or ())
        self.show = shower(tokenizer)
        self._anchor = self.ids([self.ANCHOR])[0]
        self.memo: dict[str, Any] = {}
        """What has been worked out about this tokenizer once and for all."""
        self._known: dict[str, tuple[int, ...] | None] = {}

    @property
    def n_vocab(self) -> int:
        """How many token ids the tokenizer has."""
        try:
            return len(self.tokenizer)
        except TypeError:
            return int(self.tokenizer.vocab_size)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without special tokens."""
        return [list(row) for row in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def prompt(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Ids with the beginning-of-sequence token in front, once."""
        start = () if tuple(ids[: len(self.start)]) == self.start else self.start
        return (*start, *ids)

    def single(self, words: Iterable[str]) -> dict[str, bool]:
        """Whether each word, behind a space, is one token that the tokenizer knows."""
        words = list(words)
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if new:
            n = len(self._anchor)
            for word, ids in zip(new, self.ids([f"{self.ANCHOR} {word}" for word in new]), strict=True):
                self._known[word] = tuple(ids[n:]) if ids[:n] == self._anchor else None
        return {word: self._one(self._known[word]) for word in words}

    def _one(self, ids: tuple[int, ...] | None) -> bool:
        return ids is not None and len(ids) == 1 and ids[0] not in self.special

    def keep(self, words: Sequence[W], *, what: str, least: int) -> list[W]:
        """The words (or tuples of forms) whose every form is one token.

        Raises
        ------
        InputError
            Fewer than ``least`` are left: says which were dropped.
        """
        forms = [(word,) if isinstance(word, str) else word for word in words]
        single = self.single(form for group in forms for form in group)
        kept = [word for word, group in zip(words, forms, strict=True) if all(single[f] for f in group)]
        if len(kept) < least:
            dropped = [form for group in forms for form in group if not single[form]]
            raise InputError(
                f"only {len(kept)} of {len(words)} {what} are one token for this tokenizer, and {least} are needed; "
                f"dropped: {', '.join(map(repr, dropped[:8]))}{' ...' if len(dropped) > 8 else ''}. "
                "Write prompts for it yourself and read them with interp.tasks.read"
            )
        return kept


def fit(words: Words, drafts: Sequence[Draft]) -> list[Pair | str]:
    """Each draft as a pair, or the reason why it is none. One call of the tokenizer."""
    texts: list[str] = []
    for draft in drafts:
        texts += [draft.clean, draft.corrupted]
        texts += [draft.clean + a for a in (*draft.answers, *draft.wrong) if isinstance(a, str)]
    encoded = iter(words.ids(texts)) if texts else iter(())
    return [_fit(words, draft, encoded) for draft in drafts]


def _fit(words: Words, draft: Draft, encoded: Any) -> Pair | str:
    clean, corrupted = next(encoded), next(encoded)
    found: list[int | str] = [
        _answer(words, clean, answer, next(encoded)) if isinstance(answer, str) else answer
        for answer in (*draft.answers, *draft.wrong)
    ]
    problems = [item for item in found if isinstance(item, str)]
    if not clean or len(clean) != len(corrupted):
        problems.insert(0, _uneven(words, clean, corrupted))
    elif clean == corrupted:
        problems.insert(0, "clean and corrupted are the same")
    elif words.unknown in clean or words.unknown in corrupted:
        problems.insert(0, "the prompts hold words outside the vocabulary")
    ids = [item for item in found if isinstance(item, int)]
    n = len(draft.answers)
    if not problems and n == 0:
        problems.append("there is no answer")
    if not problems and (tied := set(ids[:n]) & set(ids[n:])):
        problems.append(f"answer {words.show(min(tied))!r} is also a wrong one")
    if problems:
        return "; ".join(problems)
    return Pair(
        clean=words.prompt(clean),
        corrupted=words.prompt(corrupted),
        answers=tuple(dict.fromkeys(ids[:n])),
        wrong=tuple(dict.fromkeys(ids[n:])),
        facts=draft.facts,
        texts=(draft.clean, draft.corrupted),
    )


def _uneven(words: Words, clean: list[int], corrupted: list[int]) -> str:
    """How the prompts differ in length, with the tokens between their common beginning and end."""
    n = min(len(clean), len(corrupted))
    first = next((i for i in range(n) if clean[i] != corrupted[i]), n)
    behind = next((i for i in range(n - first) if clean[-1 - i] != corrupted[-1 - i]), n - first)
    parts = [[words.show(i) for i in ids[first : len(ids) - behind][:6]] for ids in (clean, corrupted)]
    return f"clean has {len(clean)} tokens and corrupted {len(corrupted)}: {parts[0]} against {parts[1]}"


def _answer(words: Words, prompt: list[int], answer: str, whole: list[int]) -> int | str:
    """The one id by which ``answer`` continues the prompt, or what is wrong with it."""
    if whole[: len(prompt)] != prompt:
        return (
            f"answer {answer!r} changes the tokens of the prompt it follows (does the prompt end in a space?)"
        )
    rest = whole[len(prompt) :]
    if len(rest) != 1:
        return f"answer {answer!r} is {len(rest)} tokens ({', '.join(repr(words.show(i)) for i in rest)})"
    if rest[0] in words.special:
        return f"answer {answer!r} is not in the vocabulary"
    return rest[0]
