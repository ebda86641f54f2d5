"""Task: clean and corrupted prompts that line up, their answers, and the metric that goes with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError, InterpError, StoreError, nearest
from interp.escaping import encodable
from interp.runs.provenance import digest
from interp.showing import Shown, brief
from interp.tasks import scoring
from interp.tasks.published import Reference
from interp.tasks.scoring import MEASURES, NONE
from interp.tasks.storage import parts_of, read_lines, write_lines
from interp.tokens import Tokens

if TYPE_CHECKING:
    import pandas as pd

    from interp.tasks.pairs import Pair

__all__ = ["Task"]

Logits = Float[Tensor, "batch *pos d_vocab"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task(Shown):
    """Pairs of prompts with answers. Rows of everything belong together; prompts of a pair have one length.

    Raises
    ------
    InputError
        When made from parts that do not fit: other shapes, misaligned pairs, a row without an answer, an answer
        that is also wrong, an unknown measure.
    """

    name: str
    clean: Tokens
    corrupted: Tokens
    answers: Int[Tensor, "batch answer"]
    """The right token ids of each row, -1 where a row has fewer than the longest."""
    wrong: Int[Tensor, "batch wrong"]
    """The wrong ones that the answer competes with, padded likewise; the width may be 0."""
    measure: str
    """What :meth:`metric` computes: ``logit_difference``, ``probability_difference`` or ``log_probability``."""
    facts: tuple[Mapping[str, Any], ...] = field(repr=False)
    """What is known about each row: names, template, order, number ..., JSON values."""
    texts: tuple[tuple[str, str], ...] = field(repr=False)
    """The clean and the corrupted prompt of each row as text."""
    reference: Reference | None = field(default=None, repr=False)
    """The published circuit of this task, which says the model it belongs to; None where there is none."""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Source, split, seed, corruption and what was skipped: JSON values."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(
                f"measure={self.measure!r}; it is one of {list(MEASURES)}{nearest(self.measure, MEASURES)}"
            )
        shapes = {tuple(t.ids.shape) for t in (self.clean, self.corrupted)}
        sizes = {len(x) for x in (self.clean, self.answers, self.wrong, self.facts, self.texts)}
        if len(shapes) != 1 or len(sizes) != 1:
            raise InputError(
                f"clean {list(self.clean.ids.shape)}, corrupted {list(self.corrupted.ids.shape)}, answers "
                f"{list(self.answers.shape)}, wrong {list(self.wrong.shape)}, {len(self.facts)} facts and "
                f"{len(self.texts)} texts do not belong together: one row of each per pair"
            )
        if (uneven := self._first((self.clean.mask != self.corrupted.mask).any(1))) is not None:
            raise InputError(f"pair {uneven} is not aligned: its prompts have different lengths")
        if (bare := self._first((self.answers == NONE).all(1))) is not None:
            raise InputError(f"pair {bare} has no answer")
        needs_wrong = MEASURES[self.measure].among == "wrong"
        if needs_wrong and (bare := self._first((self.wrong == NONE).all(1))) is not None:
            raise InputError(f"pair {bare} has no wrong answer, which the {self.measure} needs")
        tied = (self.answers[:, :, None] == self.wrong[:, None, :]) & (self.answers != NONE)[:, :, None]
        if (both := self._first(tied.flatten(1).any(1))) is not None:
            raise InputError(f"pair {both} has an answer that is also a wrong one")

    @staticmethod
    def _first(rows: Bool[Tensor, "batch"]) -> int | None:
        found = rows.nonzero()
        return int(found[0]) if len(found) else None

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        *,
        name: str,
        measure: str,
        show: Callable[[int], str] = str,
        pad: int = 0,
        side: str = "right",
        reference: Reference | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Task:
        """A task from pairs of token ids, padded with ``pad`` on ``side``."""
        if not pairs:
            raise InputError(f"task {name!r} has no pairs")
        prompts = [[pair.clean for pair in pairs], [pair.corrupted for pair in pairs]]
        clean, corrupted = (Tokens.of(rows, pad=pad, side=side, show=show) for rows in prompts)
        return cls(
            name=name,
            clean=clean,
            corrupted=corrupted,
            answers=_sets([pair.answers for pair in pairs]),
            wrong=_sets([pair.wrong for pair in pairs]),
            measure=measure,
            facts=tuple(dict(pair.facts) for pair in pairs),
            texts=tuple(pair.texts for pair in pairs),
            reference=reference,
            provenance=dict(provenance or {}),
        )

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def position(self) -> Int[Tensor, "batch"]:
        """Where the answer is read: the last real token of each row."""
        return self.clean.last

    @property
    def convention(self) -> str:
        """What :meth:`metric` computes, in words, with its unit."""
        measure = MEASURES[self.measure]
        return f"{measure.convention} ({measure.unit})"

    @property
    def chance(self) -> float | None:
        """Expected :meth:`accuracy` of a guess among right and wrong answers; None where it counts among all tokens."""
        if MEASURES[self.measure].among != "wrong":
            return None
        right, wrong = ((ids != NONE).sum(1).double() for ids in (self.answers, self.wrong))
        return float((right / (right + wrong)).mean())

    # -- numbers ----------------------------------------------------------------------------------

    def metric(self, logits: Logits, *, rows: Any = None) -> Float[Tensor, "batch"]:
        """One number per example, in float64, differentiable: :attr:`convention` says which.

        Parameters
        ----------
        logits
            [batch, pos, d_vocab] of the clean or the corrupted prompts, or [batch, d_vocab] at the answer's place.
        rows
            Which rows of the task the logits are of (a slice or indices); all of them by default.

        Raises
        ------
        InputError
            The logits have another number of rows or positions, or too few tokens.
        """
        return MEASURES[self.measure].score(*self._read(logits, rows))

    def correct(self, logits: Logits, *, rows: Any = None, among: str | None = None) -> Bool[Tensor, "batch"]:
        """Whether an answer beats all its competitors by logit; a tie is a miss.

        ``among`` the wrong answers or the whole vocabulary; by default the wrong ones, and the vocabulary for a
        log-probability.
        """
        among = among or MEASURES[self.measure].among
        if among not in ("wrong", "vocabulary"):
            raise InputError(f"among={among!r}; it is 'wrong' or 'vocabulary'")
        final, answers, wrong = self._read(logits, rows)
        if among == "wrong" and (bare := self._first((wrong == NONE).all(1))) is not None:
            raise InputError(f"row {bare} has no wrong answers: count among='vocabulary'")
        return scoring.right(final, answers, wrong if among == "wrong" else None)

    def accuracy(self, logits: Logits, *, rows: Any = None, among: str | None = None) -> float:
        """The fraction of rows that are :meth:`correct`."""
        return float(self.correct(logits, rows=rows, among=among).double().mean())

    def mass(self, logits: Logits, *, rows: Any = None) -> Float[Tensor, "batch"]:
        """The probability of each row's right answers together."""
        final, answers, _ = self._read(logits, rows)
        return scoring.mass(final, answers)

    def _read(self, logits: Tensor, rows: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the answer's place, answers and wrong ones, for the rows."""
        part = [x if rows is None else x[rows] for x in (self.position, self.answers, self.wrong)]
        position, answers, wrong = (x.to(logits.device) for x in part)
        if logits.ndim not in (2, 3) or len(logits) != len(answers):
            hint = "" if rows is not None else "; for a part of the task say which rows=, or select them"
            raise InputError(
                f"logits have shape {list(logits.shape)}; expected {len(answers)} rows [batch, pos, d_vocab]{hint}"
            )
        highest = int(max(answers.max(), wrong.max() if wrong.numel() else NONE))
        if highest >= logits.shape[-1]:
            raise InputError(
                f"the answers go up to token {highest}, the logits have {logits.shape[-1]} "
                "(was the task written for another tokenizer?)"
            )
        if logits.ndim == 2:
            return logits, answers, wrong
        if logits.shape[1] != self.clean.ids.shape[1]:
            raise InputError(
                f"logits have {logits.shape[1]} positions; the prompts have {self.clean.ids.shape[1]}"
            )
        return logits[torch.arange(len(logits), device=logits.device), position], answers, wrong

    # -- parts ------------------------------------------------------------------------------------

    def select(self, rows: slice | Sequence[int] | Tensor | Callable[[Mapping[str, Any]], bool]) -> Task:
        """The task of some rows: a slice, indices, a mask, or a condition on a row's facts."""
        if callable(rows):
            rows = [i for i, fact in enumerate(self.facts) if rows(fact)]
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        every = torch.arange(len(self))
        index = every[:0] if isinstance(chosen, Tensor) and chosen.numel() == 0 else every[chosen]
        if len(index) == 0:
            raise InputError(f"no row of task {self.name!r} is selected; it has {len(self)}")
        kept = index.tolist()
        return replace(
            self,
            clean=self.clean.select(index),
            corrupted=self.corrupted.select(index),
            answers=self.answers[index],
            wrong=self.wrong[index],
            facts=tuple(self.facts[i] for i in kept),
            texts=tuple(self.texts[i] for i in kept),
        )

    def batches(self, size: int) -> Iterator[tuple[Tokens, Tokens, Int[Tensor, "batch answer"]]]:
        """``(clean, corrupted, answers)`` of ``size`` rows at a time, in order."""
        parts = zip(self.clean.batches(size), self.corrupted.batches(size), strict=True)
        return ((a, b, c) for (a, b), c in zip(parts, self.answers.split(size), strict=True))

    def to(self, device: torch.device | str) -> Task:
        """The same task on ``device``."""
        moved = {key: getattr(self, key).to(device) for key in ("clean", "corrupted", "answers", "wrong")}
        return replace(self, **moved)

    # -- records ----------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Where it comes from, for provenance: JSON-able, with a SHA-256 of prompts and answers."""
        digest = hashlib.sha256()
        for tensor in (self.clean.ids, self.clean.mask, self.corrupted.ids, self.answers, self.wrong):
            digest.update(f"{list(tensor.shape)}".encode())
            digest.update(tensor.cpu().to(torch.int64).contiguous().numpy().tobytes())
        return {
            "task": self.name,
            "n": len(self),
            "measure": self.measure,
            "convention": self.convention,
            "chance": self.chance,
            "reference": None if self.reference is None else self.reference.describe(),
            "prompts_sha256": digest.hexdigest(),
            **self.provenance,
        }

    def to_frame(self) -> pd.DataFrame:
        """A row per example: clean, corrupted, answer and wrong as text, then the facts."""
        import pandas as pd

        show = self.clean.show
        columns = {
            "clean": [encodable(clean) for clean, _ in self.texts],
            "corrupted": [encodable(corrupted) for _, corrupted in self.texts],
            "answer": [[show(i) for i in row if i != NONE] for row in self.answers.tolist()],
            "wrong": [[show(i) for i in row if i != NONE] for row in self.wrong.tolist()],
        }
        known = dict.fromkeys(key for fact in self.facts for key in fact)
        facts = {f"{k}_fact" if k in columns else k: [fact.get(k) for fact in self.facts] for k in known}
        return pd.DataFrame({**columns, **facts})

    def save(self, path: str | Path) -> Path:
        """Write it as JSON lines: a header, then a row per pair. See :mod:`interp.tasks.storage`."""
        return write_lines(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Task:
        """Read what :meth:`save` wrote.

        Raises
        ------
        StoreError
            The file is missing, torn, foreign, changed, or of a later schema.
        """
        return cls.from_lines(read_lines(path), source=path)

    @classmethod
    def from_lines(cls, lines: list[dict[str, Any]], *, source: str | Path) -> Task:
        """The task of the lines that :meth:`save` writes; ``source`` is what errors call them.

        Raises
        ------
        StoreError
            They are foreign, changed, or of a later schema.
        """
        try:
            pairs, options, named = parts_of(lines, source=source)
            task = cls.of(pairs, **options)
        except StoreError:
            raise
        except (InterpError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(f"{source} cannot be read as a task: {type(error).__name__}: {error}") from error
        if task.describe()["prompts_sha256"] != named:
            raise StoreError(
                f"{source} is damaged or was edited: its prompts and answers do not have the hash it names"
            )
        return task

    def _facts(self) -> dict[str, Any]:
        said = {
            "name": self.name,
            "pairs": len(self),
            "tokens": self.clean.ids.shape[1],
            "measure": self.measure,
        }
        known = {
            key: self.provenance[key] for key in ("source", "split", "corruption") if key in self.provenance
        }
        return said | known | {"published circuit": self.reference, "provenance": digest(self.provenance)}

    def _listing(self) -> pd.DataFrame:
        return self.select(slice(0, 20)).to_frame() if hasattr(self, "select") else self.to_frame()

    def __repr__(self) -> str:
        said = [f"{key}={self.provenance[key]}" for key in ("split", "corruption") if key in self.provenance]
        size = f"{len(self)} pairs of up to {self.clean.ids.shape[1]} tokens"
        return f"Task({', '.join([repr(brief(self.name)), size, self.measure, *map(brief, said)])})"


def _sets(rows: Sequence[Sequence[int]]) -> Int[Tensor, "batch answer"]:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[NONE] * (width - len(row))] for row in rows], dtype=torch.int64).view(
        len(rows), width
    )
