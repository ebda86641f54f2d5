"""Texts to tokens, with the tokenizer a model came with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.errors import InputError, ModelError
from interp.models.ids import check_ids, explain_ids
from interp.models.network import Network
from interp.tokens import Tokens

__all__ = ["encode", "shower", "texts_to_tokens"]


def texts_to_tokens(
    model: Network,
    texts: Any,
    *,
    prepend_bos: bool | None = None,
    truncate: bool = False,
    padding_side: str = "right",
) -> Tokens:
    """See :meth:`interp.models.base.Model.tokens`."""
    items: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    if items and all(isinstance(item, int) for item in items):
        items = [items]
    if not items:
        raise InputError("there is no text")
    if all(isinstance(item, str) for item in items):
        sequences = encode(model, items, prepend_bos)
    else:
        sequences = [_ids(item, row) for row, item in enumerate(items)]
    if truncate and model.n_ctx is not None:
        sequences = [s[: model.n_ctx] for s in sequences]
    pad = getattr(model.tokenizer, "pad_token_id", None) or 0
    tokens = Tokens.of(sequences, pad=pad, side=padding_side, show=shower(model.tokenizer))
    check_ids(model, tokens.ids)
    explain_ids(model, tokens.ids)
    return tokens


def _ids(item: Any, row: int) -> list[int]:
    if isinstance(item, str):
        raise InputError(f"row {row} is a text among token ids: give either texts or ids")
    ids = item.tolist() if hasattr(item, "tolist") else list(item)
    if not ids or not all(isinstance(i, int) for i in ids):
        raise InputError(f"row {row} is not a list of token ids: {str(item)[:60]!r}")
    return ids


def encode(model: Network, texts: Sequence[str], prepend_bos: bool | None = None) -> list[list[int]]:
    """Token ids of each text, of any length, begun and ended as :meth:`Model.tokens` does."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ModelError(f"{model.name} came without a tokenizer: give token ids, or load it with tokenizer=")
    for row, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {row} is empty")
    causal = model.causal
    sequences: list[list[int]] = tokenizer(list(texts), add_special_tokens=not causal, verbose=False)[
        "input_ids"
    ]
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise ModelError(f"{model.name}'s tokenizer has no beginning-of-sequence token to prepend")
    if bos is not None and (prepend_bos or (prepend_bos is None and causal)):
        sequences = [s if s[:1] == [bos] else [bos, *s] for s in sequences]
    for row, sequence in enumerate(sequences):
        if not sequence:
            raise InputError(f"text {row} has no tokens: {texts[row][:40]!r}")
    return sequences


def shower(tokenizer: Any) -> Callable[[int], str]:
    """One token id to the text to show for it; the id itself where there is no tokenizer."""
    if tokenizer is None:
        return str
    known: dict[int, str] = {}

    def show(token: int) -> str:
        if token not in known:
            known[token] = _piece(tokenizer, token)
        return known[token]

    return show


def _piece(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token])
    raw = tokenizer.convert_ids_to_tokens(token)
    # decoding one piece drops the space that belongs to it
    if isinstance(raw, str) and raw.startswith("▁") and not text.startswith(" "):
        return " " + text
    return text
