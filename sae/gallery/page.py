"""The page as one file: style, script and data inside, and a policy that lets nothing else run.

Blocks (see ``interp/pages/packing.py``): ``index``, what the list and the map need of every latent; ``corpus``, the
tokens that any example shows, once; and for each :data:`CHUNK` latents one with all the rest, unpacked when one of
them is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.escaping import shown, visible
from interp.pages import document
from interp.pages.packing import packed, smallest

if TYPE_CHECKING:
    from sae.gallery.gathering import Features
    from sae.gallery.relations import Partners

__all__ = ["CHUNK", "blocks", "render", "write"]

CHUNK = 128
"""Latents a block."""


def write(found: Features, path: Path, *, facts: Mapping[str, Any]) -> int:
    """Write the page whole or not at all; its size in bytes."""
    page = render(blocks(found, facts), title=f"{facts['model']} {facts['site']}")
    return document.write(path, page).stat().st_size


def render(data: Mapping[str, str], *, title: str) -> str:
    """The page around its blocks."""
    return document.render(
        "sae.gallery",
        "gallery.html.j2",
        styles=("gallery.css",),
        scripts=("gallery.js",),
        blocks=data,
        title=title,
    )


def blocks(found: Features, facts: Mapping[str, Any]) -> dict[str, str]:
    """Name -> packed block."""
    words = _Words(found)
    kept, place = _kept(found)
    chunks = {
        f"c{number}": packed(_chunk(found, start, min(start + CHUNK, found.codes.d_sae), words, place))
        for number, start in enumerate(range(0, found.codes.d_sae, CHUNK))
    }
    corpus = packed({"ids": smallest(words.index(found.codes.ids[kept]))})
    index = packed(
        _index(found, words), shown(_extra(found, facts, words))
    )  # last: it carries every word met
    return {"index": index, "corpus": corpus, **chunks}


class _Words:
    """The tokens that the page shows, numbered as they are met."""

    def __init__(self, found: Features) -> None:
        self.show = found.codes.corpus.show
        held = [found.codes.ids, found.top_tokens[found.top_tokens >= 0]]
        if not isinstance(found.effects, str):
            held += [found.effects.top.ravel(), found.effects.bottom.ravel()]
        for card in found.causal.values():
            held.append(np.array([t for t, _ in (*card.up, *card.down)]))
        self.ids = np.unique(np.concatenate(held))

    def index(self, ids: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ids, ids)

    def strings(self) -> list[str]:
        return [visible(self.show(int(i))) for i in self.ids]


def _kept(found: Features) -> tuple[np.ndarray, np.ndarray]:
    """The rows that some example shows, and where each example's window begins among them."""
    examples = found.examples
    begin = examples.row - examples.left
    change = np.zeros(found.codes.n + 1, dtype=np.int64)
    np.add.at(change, begin, 1)
    np.add.at(change, begin + examples.length, -1)
    used = np.cumsum(change[:-1]) > 0
    number = np.cumsum(used) - 1
    return np.flatnonzero(used), number[begin]


def _chunk(found: Features, start: int, end: int, words: _Words, place: np.ndarray) -> dict[str, np.ndarray]:
    examples = found.examples
    first, last = np.searchsorted(examples.latent, [start, end])
    part = slice(first, last)
    n_groups = 1 + examples.plan.intervals
    key = (examples.latent[part] - start) * n_groups + examples.group[part]
    inside = slice(examples.starts[first], examples.starts[last])
    owner = np.repeat(examples.latent[part], np.diff(examples.starts[first : last + 1]))
    columns = {
        "groups": smallest(np.bincount(key, minlength=(end - start) * n_groups).reshape(-1, n_groups)),
        "at": smallest(place[part]),
        "left": smallest(examples.left[part]),
        "length": smallest(examples.length[part]),
        "count": smallest(np.diff(examples.starts[first : last + 1])),
        "offset": smallest(examples.offset[inside]),
        "value": _levels(examples.value[inside], found.span[owner]),
        "share": np.round(found.examples.share[start:end] * 65535).astype(np.uint16),
        "histogram": smallest(found.histogram[start:end]),
    }
    for name in ("correlated", "coordinates", "alignment", "neighbours"):
        columns |= _pairs(name, getattr(found, name), start, end)
    return columns | _logits(found, start, end, words)


def _levels(value: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Codes as 256 levels of their latent's span."""
    width = np.maximum(span[:, 1] - span[:, 0], 1e-30)
    return np.clip(np.round((value - span[:, 0]) / width * 255), 0, 255).astype(np.uint8)


def _pairs(name: str, partners: Partners, start: int, end: int) -> dict[str, np.ndarray]:
    index = smallest(partners.index[start:end] + 1)
    return {name: index, f"{name}_value": np.round(partners.value[start:end] * 127).astype(np.int8)}


def _logits(found: Features, start: int, end: int, words: _Words) -> dict[str, np.ndarray]:
    effects = found.effects
    if isinstance(effects, str):
        return {}
    part = slice(start, end)
    edges = effects.edges[part].astype(np.float32)
    made = {"logit_edges": edges, "logit_counts": smallest(effects.counts[part])}
    for name in ("top", "bottom"):
        made[name] = smallest(words.index(getattr(effects, name)[part]))
        value = getattr(effects, f"{name}_value")[part]
        wide = np.repeat(effects.edges[part], value.shape[1], axis=0)
        made[f"{name}_value"] = _levels(value.ravel(), wide).reshape(value.shape)
    return made


def _index(found: Features, words: _Words) -> dict[str, np.ndarray]:
    codes = found.codes
    top = np.where(found.top_tokens >= 0, words.index(np.maximum(found.top_tokens, 0)) + 1, 0)
    columns = {
        "density": codes.density.astype(np.float32),
        "span": found.span.astype(np.float32),
        "aligned": np.round(np.abs(found.alignment.value[:, 0]) * 255).astype(np.uint8),
        "texts": smallest(found.texts),
        "place": np.round(found.place * 65535).astype(np.uint16),
        "tokens": smallest(top),
    }
    if found.labels is not None:
        columns["concept"] = smallest(found.labels.concept + 1)
        for name in ("auroc", "precision", "recall"):
            columns[name] = np.round(getattr(found.labels, f"concept_{name}") * 255).astype(np.uint8)
    return columns


def _extra(found: Features, facts: Mapping[str, Any], words: _Words) -> dict[str, Any]:
    strings = words.strings()
    plan = found.examples.plan
    return {
        "facts": dict(facts),
        "words": strings,
        "spaced": any(s[:1].isspace() for s in strings),
        "chunk": CHUNK,
        "intervals": plan.intervals,
        "concepts": [] if found.labels is None else list(found.labels.concepts),
        "explanations": {str(i): _said(e) for i, e in found.explanations.items()},
        "causal": {str(i): _card(card, words) for i, card in found.causal.items()},
    }


def _said(explanation: Any) -> dict[str, Any]:
    return {
        "text": explanation.text,
        "scores": {k: round(float(v), 4) for k, v in explanation.scores.items()},
    }


def _card(card: Any, words: _Words) -> dict[str, Any]:
    def pairs(given: tuple[tuple[int, float], ...]) -> list[list[float]]:
        index = words.index(np.array([t for t, _ in given]))
        return [[int(i), round(v, 5)] for i, (_, v) in zip(index, given, strict=True)]

    held = {n: [float(f"{v:.5g}") for v in getattr(card, n)] for n in ("amounts", "effect", "low", "high")}
    other = None if np.isnan(card.ablated_random) else float(f"{card.ablated_random:.4g}")
    ablated = [float(f"{card.ablated:.4g}"), other]
    texts = {"plain": card.plain, "steered": card.steered}
    return held | texts | {"up": pairs(card.up), "down": pairs(card.down), "ablated": ablated}
