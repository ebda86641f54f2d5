"""What a model is studied on: windows of given texts, an embedded network's own inputs, or random token ids.

Whichever it is, the reader is told: :attr:`Material.notes` go to the top of the report.
Read next: ``analysis.py``, the job that uses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError
from interp.stores.documents import Corpus
from interp.tasks.task import Task
from interp.tokens import Tokens
from interp.toys.collection import Embedded

__all__ = ["Material", "gather"]

N_PROMPTS = 256
"""Prompts drawn of a network's own task; a station takes as many as it can pay for."""
SEQ_LEN = 512
"""Tokens in a window, where the model's context allows it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """Tokens with their labels, and how they came to be."""

    tokens: Tokens
    source: str
    """One phrase for the report: ``"32768 tokens of stories.jsonl"``."""
    sha256: str
    """Of the texts read, or of the token ids where there were no texts."""
    labels: Mapping[str, Int64[Tensor, "batch pos"]] = field(default_factory=dict)
    task: Task | None = None
    """What the model was made to do, if that is known."""
    notes: tuple[str, ...] = ()
    natural: bool = True
    """Whether the model was made for such inputs, so that its loss on them means something."""


def gather(
    model: Any,
    *,
    texts: Any = None,
    tokens: Tokens | Tensor | None = None,
    embedded: Embedded | None = None,
    seed: int = 0,
    max_tokens: int,
    seq_len: int | None = None,
) -> Material:
    """The material for a study: what was given, else the embedded network's inputs, else random token ids.

    Parameters
    ----------
    model
        The model whose tokenizer, vocabulary and context are used.
    texts
        A .jsonl or .txt file, or texts, or data-set rows. Documents longer than ``seq_len`` tokens are read in
        several windows; nothing is dropped but what lies beyond ``max_tokens``.
    tokens
        Token ids to use as they are, instead of texts.
    embedded
        The shipped network that ``model`` is, if it is one.
    seed
        For the order of the embedded network's inputs, or the random ids.
    max_tokens
        At most about so many tokens.
    seq_len
        Tokens in a window; by default 512 or the model's context, if that is smaller.

    Raises
    ------
    InputError
        Both texts and tokens are given; a number is out of range; the model has no tokenizer for the texts, or
        takes no token ids although nothing else was given.
    """
    if texts is not None and tokens is not None:
        raise InputError("give texts or tokens, not both")
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, got {max_tokens}")
    if tokens is not None:
        return _given(tokens)
    length = _window_length(model, seq_len)
    if texts is not None:
        return _windows(model, texts, max_tokens=max_tokens, length=length)
    if embedded is not None:
        if seq_len is not None:
            raise InputError(
                f"{model.name}'s own inputs come in rows of their own length: windows of {seq_len} tokens are for texts"
            )
        return _own(embedded, seed=seed, max_tokens=max_tokens)
    return _random(model, seed=seed, max_tokens=max_tokens, length=length)


def _window_length(model: Any, seq_len: int | None) -> int:
    n_ctx = getattr(model, "n_ctx", None)
    if seq_len is None:
        return min(SEQ_LEN, n_ctx or SEQ_LEN)
    if seq_len < 2 or (n_ctx is not None and seq_len > n_ctx):
        limit = "at least 2" if n_ctx is None else f"2 to {n_ctx}, the model's context"
        raise InputError(f"windows of {seq_len} tokens were asked for; they may hold {limit}")
    return seq_len


def _hash(ids: Tensor) -> str:
    return hashlib.sha256(ids.cpu().contiguous().numpy().tobytes()).hexdigest()


def _given(tokens: Tokens | Tensor) -> Material:
    tokens = tokens if isinstance(tokens, Tokens) else Tokens.full(tokens)
    return Material(tokens=tokens, source=f"{int(tokens.mask.sum())} given tokens", sha256=_hash(tokens.ids))


def _windows(model: Any, texts: Any, *, max_tokens: int, length: int) -> Material:
    if getattr(model, "tokenizer", None) is None:
        raise InputError(
            f"{model.name} has no tokenizer, so it cannot read texts; leave them out, or give tokens"
        )
    if isinstance(texts, list | tuple) and not any(isinstance(text, str) and text.strip() for text in texts):
        raise InputError("the texts are empty" if texts else "there are no texts")
    corpus = Corpus(model, texts, context=length)
    rows, n_tokens, last, digest, cut = [], 0, -1, "", set()
    for window in corpus:
        room = max_tokens - n_tokens
        ids = window.ids[:room].tolist()
        rows.append(ids)
        n_tokens += len(ids)
        if window.doc == last:
            cut.add(window.doc)
        last, digest = window.doc, window.digest
        if n_tokens >= max_tokens:
            break
    if n_tokens < 2:
        raise InputError(f"{corpus.source} holds {n_tokens} tokens; a study needs at least 2")
    notes = []
    if cut:
        notes.append(
            f"{len(cut)} of {last + 1} documents are longer than {length} tokens and were read in several windows; "
            "the model sees no further back than its window."
        )
    source = f"{n_tokens} tokens of {corpus.source}"
    return Material(tokens=model.tokens(rows), source=source, sha256=digest, notes=tuple(notes))


def _own(embedded: Embedded, *, seed: int, max_tokens: int) -> Material:
    sample = embedded.sample(max_tokens, seed=seed)
    return Material(
        tokens=sample.tokens,
        labels=sample.labels,
        task=embedded.task(N_PROMPTS, seed=seed),
        source=sample.source,
        sha256=_hash(sample.tokens.ids),
        notes=embedded.notes,
    )


def _random(model: Any, *, seed: int, max_tokens: int, length: int) -> Material:
    d_vocab = getattr(model, "d_vocab", None)
    if d_vocab is None:
        raise InputError(f"{model.name} takes no token ids that are known here; give its inputs as tokens=")
    ids = torch.randint(
        d_vocab, (max(1, max_tokens // length), length), generator=torch.Generator().manual_seed(seed)
    )
    why = (
        "the model has no tokenizer and no texts" if getattr(model, "tokenizer", None) is None else "no texts"
    )
    note = (
        f"Everything here was measured on RANDOM INPUTS: {why} were given, so the tokens are drawn uniformly from the "
        f"vocabulary of {d_vocab}, seed {seed}. Such inputs are unlike those the model was trained on; read the "
        "findings as a check that the tools run, not as facts about the model at work."
    )
    return Material(
        tokens=model.tokens(ids.tolist()),
        source=f"{ids.numel()} uniformly random token ids",
        sha256=_hash(ids),
        notes=(note,),
        natural=False,
    )
