"""``interp.load("mini")``: the embedded language model, its tokenizer, and labelled text of its language.

See ``language/`` for what it reads, ``train_mini.py`` for how it came to be, ``exam.py`` for what it can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import CheckError, InputError, InterpError
from interp.runs.files import read_json
from interp.tokens import Tokens
from interp.toys.collection import WEIGHTS, Embedded, Sample
from interp.toys.language.corpus import Corpus
from interp.toys.language.lexicon import vocabulary

if TYPE_CHECKING:
    from interp.tasks.task import Task

__all__ = ["STUDY_SEED", "Mini", "make", "names"]

HOME = WEIGHTS / "mini"
STUDY_SEED = 2000
"""Text of this seed and those after it belongs to studies; training and exams have others."""
FIRST = ("agreement", "mood", "depth")
"""The labels that come first: what a study of a few labels looks at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mini(Embedded):
    """The embedded language model."""

    @property
    def strings(self) -> tuple[str, ...]:
        """The words of the language."""
        return vocabulary()

    @property
    def notes(self) -> tuple[str, ...]:
        """What it was trained on, and how well it does."""
        tasks, fluency = self.card["exam"]["tasks"], self.card["exam"]["fluency"]
        scores = ", ".join(f"{task} {row['score']:.3f}" for task, row in tasks.items())
        return (
            f"The model was trained on {self.card['n_tokens'] / 1e6:.1f} million tokens of the labelled language "
            f"(seed {self.card['seed']}); on fresh text it needs {fluency['loss_nats']:.3f} nats a token, where the "
            f"generator's own choices have {fluency['generator_nats']:.3f} (n = {fluency['n_tokens']}).",
            f"Scores on held-out combinations (n = {tasks['ioi']['n']} prompts a task): {scores}.",
        )

    def inputs(self, n: int, *, seed: int = 0) -> Int64[Tensor, "batch pos"]:
        """``n`` rows of 64 tokens of fresh text: documents, each behind its ``<bos>``."""
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        return torch.from_numpy(Corpus(STUDY_SEED + seed).rows(n))

    def sample(self, n_tokens: int, *, seed: int = 0) -> Sample:
        """Rows of fresh text of about ``n_tokens`` tokens, with every label of the language."""
        corpus = Corpus(STUDY_SEED + seed)
        ids, labels = corpus.labelled(max(1, n_tokens // corpus.length))
        order = (*FIRST, *(name for name in labels if name not in FIRST))
        words = self.strings
        return Sample(
            tokens=Tokens.full(torch.from_numpy(ids), show=lambda token: words[token]),
            labels={name: torch.from_numpy(labels[name]) for name in order},
            source=f"{len(ids)} rows of {corpus.length} tokens of its language, fresh text (seed {STUDY_SEED + seed})",
        )

    def task(self, n: int = 64, *, seed: int = 0) -> Task:
        """Indirect objects, with names and templates held out of training; ``interp.tasks.load`` has the others."""
        from interp.tasks.loading import load

        return load("ioi", tokenizer=self.tokenizer, split="heldout", n=n, seed=seed, source="language")


def names() -> tuple[str, ...]:
    """The one name of this family."""
    return ("mini",)


def make(name: str) -> Mini:
    """The embedded language model, in float32.

    Raises
    ------
    CheckError
        The shipped files do not fit together (a damaged installation).
    """
    from interp.models import hf

    if name not in names():
        raise InputError(f"this family holds {names()}, not {name!r}")
    try:
        card = read_json(HOME / "card.json")
        module = hf.load_module(str(HOME), dtype=torch.float32, device=None)
        tokenizer = hf.load_tokenizer(HOME)
    except InterpError as error:
        raise CheckError(f"the files of {name!r} are damaged: {error}; reinstall the toolkit") from error
    return Mini(name=name, module=module, card=card, tokenizer=tokenizer)
