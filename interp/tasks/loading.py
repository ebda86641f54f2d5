"""``interp.tasks.load``: a task by name, written for a tokenizer or taken from the embedded language."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from interp.errors import InputError, ModelError, nearest
from interp.tasks.english.sentences import repeats
from interp.tasks.english.writers import WRITERS, different, write
from interp.tasks.pairs import Pair, Words
from interp.tasks.published import Reference, published, reference
from interp.tasks.task import Task

__all__ = ["CORRUPTIONS", "MEASURE_OF", "NAMES", "load"]

MEASURE_OF = {
    "ioi": "logit_difference",
    "greater_than": "probability_difference",
    "docstring": "logit_difference",
    "gender": "logit_difference",
    "sva": "logit_difference",
    "induction": "log_probability",
    "calendar": "logit_difference",
}
NAMES = tuple(MEASURE_OF)
"""The tasks that :func:`load` knows."""
CORRUPTIONS = {name: writer.corruptions for name, writer in WRITERS.items()} | {
    "induction": ("broken", "answer")
}
"""The corruptions of each task in English, the default first."""
SPLITS = ("train", "heldout")
SOURCES = ("auto", "english", "language")


def load(  # one parameter over seven: they are what a set of prompts is made of
    name: str,
    *,
    model: Any = None,
    tokenizer: Any = None,
    split: str = "train",
    n: int = 64,
    seed: int = 0,
    corruption: str | None = None,
    source: str = "auto",
    prepend_bos: bool | None = None,
) -> Task:
    """A task: ``n`` different pairs of clean and corrupted prompts that line up token by token.

    Parameters
    ----------
    name
        ``"ioi"``, ``"greater_than"``, ``"docstring"``, ``"gender"``, ``"sva"``, ``"induction"`` or ``"calendar"``.
    model, tokenizer
        A model of the toolkit (its tokenizer is used, and prompts must fit its context), or a tokenizer.
        ``"induction"`` also takes a model without one.
    split
        ``"heldout"`` shares no names, nouns, templates or cells with ``"train"`` where the task has them: each
        task's docstring in ``interp.tasks.english`` says which. In the embedded language each held-out prompt is new
        in one respect that training never had, which ``facts["heldout"]`` names; the rest of it may be familiar.
    n, seed
        How many pairs, and which; a smaller ``n`` gives the beginning of a larger one.
    corruption
        One of :data:`CORRUPTIONS` of the task; its first by default. The embedded language has its own.
    source
        ``"english"``; ``"language"``, the labelled language that the embedded ``mini`` was trained on; ``"auto"``: the
        latter when the tokenizer's vocabulary is the language's.
    prepend_bos
        Whether prompts begin with the beginning-of-sequence token; None: where the tokenizer has one.

    Returns
    -------
    Task
        Its ``measure``: logit difference, but probability difference for ``greater_than`` and log-probability for
        ``induction``. ``reference`` is set for English prompts of a task with a published circuit.

    Raises
    ------
    InputError
        An unknown name, split, corruption or source; no tokenizer; too few words that are one token for it; fewer
        than ``n`` different prompts; prompts longer than the model's context.
    ModelError
        The model does not predict the next token.
    """
    _one_of(name, NAMES, "task")
    _one_of(split, SPLITS, "split")
    _one_of(source, SOURCES, "source")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"n must be a whole number of at least 1, got {n!r}")
    words = words_of(model, tokenizer, prepend_bos, required=name != "induction")
    from interp.tasks import language_pairs

    if source == "language" or (source == "auto" and words is not None and language_pairs.speaks(words)):
        if words is None:
            raise InputError("source='language' needs the language's tokenizer")
        chosen = language_pairs.corruption(name, corruption)
        pairs = language_pairs.draw(name, words, n=n, split=split, seed=seed, corruption=chosen)
        origin, known = "language", None
    else:
        chosen = _one_of(corruption or CORRUPTIONS[name][0], CORRUPTIONS[name], f"corruption of {name}")
        random = Random(f"{name} {split} {chosen} {seed}")
        pairs = (
            _repeats(words, model, n, split, chosen, random)
            if name == "induction" or words is None
            else write(name, words, n=n, split=split, corruption=chosen, random=random)
        )
        origin, known = "english", _known(name, model)
    provenance = {"source": origin, "split": split, "seed": seed, "corruption": chosen}
    return made(pairs, name, MEASURE_OF[name], words, model, known=known, provenance=provenance)


def made(
    pairs: Sequence[Pair],
    name: str,
    measure: str,
    words: Words | None,
    model: Any,
    *,
    known: Reference | None,
    provenance: dict[str, Any],
) -> Task:
    """The task of these pairs, checked against the model's context and vocabulary."""
    tokenizer = None if words is None else {"class": type(words.tokenizer).__name__, "n_vocab": words.n_vocab}
    task = Task.of(
        pairs,
        name=name,
        measure=measure,
        show=words.show if words else str,
        pad=words.pad if words else 0,
        reference=known,
        provenance=provenance | {"tokenizer": tokenizer, "bos": bool(words and words.start)},
    )
    if model is not None:
        from interp.models.ids import check_ids, explain_ids

        for tokens in (task.clean, task.corrupted):
            check_ids(model, tokens.ids)
            explain_ids(model, tokens.ids)
    return task


def words_of(model: Any, tokenizer: Any, prepend_bos: bool | None, *, required: bool = True) -> Words | None:
    """The tokenizer given, or the model's; None where there is none and none is required."""
    if model is not None and not getattr(model, "causal", True):
        raise ModelError(f"{model.name} does not predict the next token: tasks need a causal model")
    tokenizer = tokenizer if tokenizer is not None else getattr(model, "tokenizer", None)
    if tokenizer is not None:
        return Words(tokenizer, prepend_bos=prepend_bos)
    if required or model is None or model.d_vocab is None:
        raise InputError("prompts are written for a tokenizer: give tokenizer=, or a model= that has one")
    return None


def _repeats(
    words: Words | None, model: Any, n: int, split: str, corruption: str, random: Random
) -> list[Pair]:
    sizes = [size for size in (words and words.n_vocab, model and model.d_vocab) if size]
    special = words.special if words else frozenset()
    vocabulary = [i for i in range(min(sizes)) if i not in special]
    longest = None if model is None else model.n_ctx
    drawn = repeats(vocabulary, split, corruption, random, words=words, longest=longest)
    return different(drawn, n=n, task="induction")


def _known(name: str, model: Any) -> Reference | None:
    """The published circuit; with a model at hand only where the model has its layers and heads."""
    if name not in published():
        return None
    found = reference(name)
    shape = (found.n_layers, found.n_heads)
    return found if model is None or (model.n_layers, model.n_heads) == shape else None


def _one_of(value: str, valid: Sequence[str], what: str) -> str:
    if value not in valid:
        raise InputError(f"no {what} {value!r}{nearest(str(value), valid)} (there are: {', '.join(valid)})")
    return value
