"""A corpus as a stream of windows that can be left and taken up again at a cursor.

Texts, token ids or data-set rows come in; windows of at most ``context`` tokens go out, each with
the cursor behind it and the hash of everything read up to there. Whoever comes back with a cursor
and its hash is led to the same window or refused because the texts are others.
Read next: ``harvesting.py``.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.errors import InputError, StoreError, nearest
from interp.models.text import encode
from interp.stores.manifest import Shard
from interp.stores.texts import read_texts
from interp.tokens import Tokens

__all__ = ["Corpus", "Window", "documents", "source_name"]

READ_AHEAD = 64  # documents given to the tokenizer at once


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A run of tokens as the model sees it."""

    doc: int
    """Index of the document among all texts."""
    ids: np.ndarray
    """Token ids [pos], int64."""
    first: int
    """The first position to keep: 1 where a beginning-of-sequence token is left out, else 0."""
    cursor: tuple[int, int]
    """(document, window) to go on with behind this one."""
    digest: str
    """SHA-256 over every document read so far, this one included."""


def source_name(texts: Any) -> str:
    """A name for the texts that does not depend on where they lie."""
    return Path(texts).name if isinstance(texts, str | Path) else "an iterable"


def documents(texts: Any, *, column: str = "text") -> Iterator[str | np.ndarray]:
    """Each document of ``texts``: a string, or an int64 array of token ids [pos].

    Raises
    ------
    InputError
        If an item is neither text nor token ids, or a row lacks ``column``; says which.
    """
    if isinstance(texts, str | Path):
        if not Path(texts).is_file():
            raise InputError(f"no text file {str(texts)!r}; give a .jsonl or .txt file, or a list of texts")
        yield from read_texts(texts, field=column)
        return
    if isinstance(texts, Tokens):
        texts = (ids[mask] for ids, mask in zip(texts.ids, texts.mask, strict=True))
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping | bytes):
        raise InputError(
            f"texts must be an iterable of texts or of token ids, or a file; got {type(texts).__name__}"
        )
    for index, item in enumerate(texts):
        yield _document(item, index, column)


def _document(item: Any, index: int, column: str) -> str | np.ndarray:
    if isinstance(item, Mapping):
        if column not in item:
            columns = sorted(map(str, item))
            raise InputError(
                f"document {index}: no column {column!r} among {columns}{nearest(column, columns)}"
            )
        item = item[column]
    if isinstance(item, str):
        return item
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().numpy()
    try:
        ids = np.asarray(item)
    except (ValueError, TypeError) as error:
        raise InputError(f"document {index}: neither text nor token ids: {error}") from error
    if ids.size == 0 and ids.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InputError(
            f"document {index}: a {type(item).__name__} is neither text nor token ids, whole numbers [pos]; "
            f"got {ids.dtype} {list(ids.shape)}"
        )
    return ids.astype(np.int64)


class Corpus:
    """The windows of a stream of texts, from a cursor on; iterate it once.

    Parameters
    ----------
    model
        Whose tokenizer and vocabulary to use.
    texts
        What :func:`documents` takes.
    context
        The longest window in tokens. A longer document is cut into several, each beginning with the
        document's beginning-of-sequence token if it has one.
    column
        The data-set column or JSON field that holds the text or the token ids.
    include_bos
        Whether the position of a beginning-of-sequence token is kept.
    part
        ``(rank, world_size)``: only documents whose index leaves ``rank`` when divided are windowed;
        all are read.
    """

    def __init__(
        self,
        model: Any,
        texts: Any,
        *,
        context: int,
        column: str = "text",
        include_bos: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.model, self.context, self.include_bos, self.part = model, context, include_bos, part
        self.source = source_name(texts)
        tokenizer = getattr(model, "tokenizer", None)
        self.bos = getattr(tokenizer, "bos_token_id", None)
        if not include_bos and self.bos is None:
            raise InputError("include_bos=False needs a tokenizer that says which token begins a sequence")
        self.n_empty = 0
        self._items = documents(texts, column=column)
        self._hash = hashlib.sha256()
        self._next = 0  # the next document to hand out
        self._ahead: deque[tuple[int, str | np.ndarray, np.ndarray | None]] = deque()
        self._begun: tuple[np.ndarray, int] | None = None

    def sample(self) -> np.ndarray:
        """The first window of the first document that holds a token, whosever part it is.

        Raises
        ------
        InputError
            If the texts hold no token at all.
        """
        while True:
            start = len(self._ahead)
            if not self._read_ahead(everyone=True):
                raise InputError(f"there are no tokens in the texts ({self.source}): every one is empty")
            for _, _, ids in islice(self._ahead, start, None):
                if ids is not None and len(ids):
                    return ids[: self.context]

    def skip(self, before: Sequence[Shard], where: str) -> None:
        """Pass over what was harvested into ``before``, comparing the hash at the end of each shard.

        Raises
        ------
        StoreError
            If the texts are shorter than those, or differ from them.
        """
        for shard in before:
            n_read = shard.doc + (shard.window > 0)
            while self._next < n_read:
                try:
                    self._update(next(self._items))
                except StopIteration:
                    raise StoreError(
                        f"{self.source} ends after {self._next} documents, but {where} already holds {n_read} "
                        f"of {shard.source}: give the same texts (or more of them), or another folder"
                    ) from None
            if self._hash.hexdigest() != shard.texts_sha256:
                raise StoreError(
                    f"the texts of {self.source} are not those of {shard.source} harvested into {where}: they differ "
                    f"within the first {n_read} documents; give the same texts (or more of them), or another folder"
                )
        if before and before[-1].window:
            self._begun = self._encode([(before[-1].doc, self._last)])[0], before[-1].window

    def _update(self, item: str | np.ndarray) -> None:
        kind, data = (
            (b"t", item.encode("utf-8", "surrogatepass")) if isinstance(item, str) else (b"i", item.tobytes())
        )
        self._hash.update(kind + len(data).to_bytes(8, "little"))
        self._hash.update(data)
        self._last = item
        self._next += 1

    def __iter__(self) -> Iterator[Window]:
        rank, world_size = self.part
        if self._begun is not None:
            ids, start = self._begun
            yield from self._windows(self._next - 1, ids, start)
        while self._ahead or self._read_ahead():
            doc, item, ids = self._ahead.popleft()
            self._update(item)
            if doc % world_size == rank:
                assert ids is not None
                self.n_empty += not len(ids)
                yield from self._windows(doc, ids, 0)

    @property
    def end(self) -> tuple[tuple[int, int], str]:
        """Cursor and hash behind the last document read; of all texts once the iteration is over."""
        return (self._next, 0), self._hash.hexdigest()

    def _read_ahead(self, *, everyone: bool = False) -> bool:
        rank, world_size = self.part
        first = self._next + len(self._ahead)
        block = list(enumerate(islice(self._items, READ_AHEAD), start=first))
        mine = [(doc, item) for doc, item in block if everyone or doc % world_size == rank]
        encoded = dict(zip((doc for doc, _ in mine), self._encode(mine), strict=True))
        self._ahead.extend((doc, item, encoded.get(doc)) for doc, item in block)
        return bool(block)

    def _encode(self, block: Sequence[tuple[int, str | np.ndarray]]) -> list[np.ndarray]:
        texts = [item for _, item in block if isinstance(item, str) and item.strip()]
        encoded = iter(encode(self.model, texts) if texts else ())
        found = []
        for doc, item in block:
            if isinstance(item, str):
                item = np.asarray(next(encoded) if item.strip() else [], dtype=np.int64)
            self._check(doc, item)
            found.append(item)
        return found

    def _check(self, doc: int, ids: np.ndarray) -> None:
        d_vocab = getattr(self.model, "d_vocab", None)
        if len(ids) and (ids.min() < 0 or (d_vocab is not None and ids.max() >= d_vocab)):
            wrong = ids.min() if ids.min() < 0 else ids.max()
            span = f"0-{d_vocab - 1}" if d_vocab is not None else "not negative"
            raise InputError(f"document {doc}: token id {wrong} is outside the vocabulary ({span})")

    def _windows(self, doc: int, ids: np.ndarray, start: int) -> Iterator[Window]:
        digest = self._hash.hexdigest()
        pieces = self._cut(ids)
        for index in range(start, len(pieces)):
            last = index == len(pieces) - 1
            first = int(not self.include_bos and pieces[index][0] == self.bos)
            yield Window(doc, pieces[index], first, (doc + 1, 0) if last else (doc, index + 1), digest)

    def _cut(self, ids: np.ndarray) -> list[np.ndarray]:
        if len(ids) <= self.context:
            return [ids] if len(ids) else []
        if ids[0] != self.bos:
            return [ids[i : i + self.context] for i in range(0, len(ids), self.context)]
        body, step = ids[1:], self.context - 1
        return [np.concatenate([ids[:1], body[i : i + step]]) for i in range(0, len(body), step)]
