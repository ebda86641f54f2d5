"""Where each head looks: attention patterns of several layers, heads and prompts as one view.

``attention_patterns(model.capture(tokens, "blocks.*.attn.hook_pattern"), tokens)``. The page draws every head small;
the chosen one large; and the tokens themselves, tinted by how much the chosen token attends to each, or is attended
by it. Read next: ``attention.js``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.escaping import encodable, visible
from interp.pages import document
from interp.pages.packing import packed
from interp.sites import Site
from interp.views.view import View, array_of, prompts_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AttentionView", "attention_patterns"]

MOST = 8_000_000
"""Numbers that a page takes at most: 32 MB before they are packed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AttentionView(View):
    """Attention patterns beside the tokens they run between."""

    prompts: tuple[tuple[str, ...], ...]
    """The texts of each prompt's tokens."""
    layers: tuple[str, ...]
    """A name for each layer, in forward order."""
    patterns: tuple[tuple[np.ndarray, ...], ...]
    """By prompt, then layer: [head, query, key] float32."""
    causal: bool
    """No query looks at a later key."""
    title: str = ""

    @property
    def height(self) -> int:
        rows = [1 + len(layer) // 16 for layer in self.patterns[0]]
        shown = sum(rows) if sum(map(len, self.patterns[0])) <= 256 else max(rows)
        n = max(map(len, self.prompts))
        return min(1150, 260 + 60 * shown + n * max(2, min(22, 420 // n)) + 80)

    def __repr__(self) -> str:
        heads = sum(len(layer) for layer in self.patterns[0])
        longest = max(map(len, self.prompts))
        size = f"{len(self.prompts)} prompts of up to {longest} tokens"
        return f"AttentionView({size}, {len(self.layers)} layers, {heads} heads)"

    def to_frame(self) -> pd.DataFrame:
        """A row per prompt, layer, head, query and key (keys up to the query where causal): both tokens, the value."""
        import pandas as pd

        parts = []
        for i, (tokens, held) in enumerate(zip(self.prompts, self.patterns, strict=True)):
            words = np.array([encodable(token) for token in tokens], dtype=object)
            for name, layer in zip(self.layers, held, strict=True):
                n = len(words)
                kept = np.tri(n, dtype=bool) if self.causal else np.ones((n, n), dtype=bool)
                head, query, key = np.nonzero(np.broadcast_to(kept, layer.shape))
                parts.append(pd.DataFrame({
                    "prompt": i, "layer": name, "head": head, "query": query, "key": key,
                    "query_token": words[query], "key_token": words[key], "value": layer[head, query, key],
                }))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def page(self) -> str:
        columns = {
            f"p{i}l{j}": layer.reshape(-1)
            for i, held in enumerate(self.patterns)
            for j, layer in enumerate(held)
        }
        extra = {
            "prompts": [[visible(token) for token in row] for row in self.prompts],
            "layers": [visible(name) for name in self.layers],
            "heads": [len(layer) for layer in self.patterns[0]],
            "causal": self.causal,
            "spaced": any(token[:1].isspace() for row in self.prompts for token in row),
        }
        return document.render(
            "interp.views", "view.html.j2", styles=("views.css",), scripts=("attention.js",),
            title=self.title, kind="attention", data=packed(columns, extra), tables=_largest(self),
        )  # fmt: skip


def attention_patterns(
    patterns: Any, tokens: Any, *, causal: bool | None = None, title: str = ""
) -> AttentionView:
    """Look at attention patterns.

    Parameters
    ----------
    patterns
        What ``model.capture(tokens, "blocks.*.attn.hook_pattern")`` gave; or a mapping from a layer's name to
        [batch, head, query, key] or [head, query, key]; or one such array, or one head's [query, key].
    tokens
        The :class:`interp.Tokens` that were read (padding is left out), a list of texts, or one such list per prompt.
    causal
        Whether the upper triangle is no part of the pattern; found out where it is not said.
    title
        Stands above the view.

    Raises
    ------
    InputError
        No pattern, shapes that do not fit each other or the tokens, or more than 8 million numbers.

    Examples
    --------
    >>> tokens = model.tokens("When Mary and John went to the store, John gave a drink to")
    >>> view = interp.views.attention_patterns(model.capture(tokens, "blocks.*.attn.hook_pattern"), tokens)
    >>> view.save("attention.html")
    """
    words, kept = prompts_of(tokens)
    named = _named(patterns)
    if sum(layer.size for layer in named.values()) > MOST:
        raise InputError(
            f"more than {MOST:,} numbers are more than a page takes: choose layers, heads or prompts"
        )
    held: list[list[np.ndarray]] = [[] for _ in words]
    for name, layer in named.items():
        for i, square in enumerate(_split(name, layer, words, kept)):
            held[i].append(square)
    if any(len(layer) != len(other) for row in held[1:] for layer, other in zip(row, held[0], strict=True)):
        raise InputError("a layer has as many heads in every prompt")
    seen = not any(np.triu(square, 1).any() for row in held for square in row)
    if causal and not seen:
        raise InputError("causal=True, but a query looks at a later key")
    return AttentionView(
        prompts=tuple(map(tuple, words)), layers=tuple(named), patterns=tuple(map(tuple, held)),
        causal=seen if causal is None else causal, title=title,
    )  # fmt: skip


def _named(patterns: Any) -> dict[str, np.ndarray]:
    if not isinstance(patterns, Mapping):
        return {"": array_of(patterns, "patterns")}
    found = {}
    for name, values in patterns.items():
        site = name if isinstance(name, Site) else None
        if site is not None and site.kind != "pattern":
            continue  # of a wider capture only the patterns are looked at
        found[str(site.layer) if site is not None else str(name)] = array_of(values, f"the pattern {name}")
    if not found:
        names = ", ".join(map(str, list(patterns)[:4]))
        raise InputError(
            f"no attention pattern among {names or 'nothing'}: capture 'blocks.*.attn.hook_pattern'"
        )
    return found


def _split(
    name: str, layer: np.ndarray, words: list[list[str]], kept: list[np.ndarray] | None
) -> list[np.ndarray]:
    """The layer's [head, query, key] of each prompt, without padding."""
    if layer.ndim == 2:
        layer = layer[None]
    if layer.ndim == 3:
        layer = layer[None]
    if layer.ndim != 4 or len(layer) != len(words) or layer.shape[2] != layer.shape[3]:
        raise InputError(
            f"layer {name!r} has shape {list(layer.shape)}; expected [batch, head, query, key] for {len(words)} prompts"
            " (all positions: a capture with positions= holds no square)"
        )
    rows = []
    for i, square in enumerate(layer):
        where = np.arange(len(words[i])) if kept is None else kept[i]
        if kept is None and len(where) != square.shape[1] or len(where) and where[-1] >= square.shape[1]:
            raise InputError(
                f"layer {name!r} has {square.shape[1]} positions; prompt {i} has {len(words[i])} tokens"
            )
        rows.append(np.ascontiguousarray(square[:, where[:, None], where]))
    return rows


def _largest(view: AttentionView) -> list[dict[str, Any]]:
    """What the page says without JavaScript: of each head, the pairs that attend most, the first token aside."""
    rows = []
    tokens = view.prompts[0]
    for name, layer in zip(view.layers, view.patterns[0], strict=True):
        for head, square in enumerate(layer[:, :, 1:] if len(tokens) > 1 else layer):
            query, key = np.unravel_index(int(square.argmax()), square.shape)
            off = int(len(tokens) > 1)
            rows.append([
                f"{name}.{head}" if name else str(head), f"{query} {tokens[query]}", f"{key + off} {tokens[key + off]}",
                f"{square[query, key]:.4g}",
            ])  # fmt: skip
    return [
        {"columns": ["head", "query", "key it attends to most, the first aside", "attention"], "rows": rows}
    ]
