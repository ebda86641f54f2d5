"""One index over the layers: what every station found at each, with links; and which of their vectors point alike.

Stations hand over :class:`~interp.study.findings.Finding` and :class:`~interp.study.findings.Bearings`; nothing here
knows what a probe, a latent or a head is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.sites import Site
from interp.study.findings import Bearings

__all__ = ["alike", "joined", "place_of"]

SHOWN = 4
"""Findings of one kind listed at one layer; the others are counted."""
PARTNERS = 3
"""Vectors listed beside one."""
DRAWS = 400
"""Directions drawn for the chance level."""
WHOLE = "whole model"


def joined(
    sections: Sequence[Mapping[str, Any]],
    bearings: Sequence[Bearings],
    sites: Sequence[Any],
    *,
    store: Any = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The index as JSON values: ``columns``, ``rows`` (``place``, ``cells``), ``links``; None where nothing was found.

    A cell is a list of ``{"text", "href", "clear"}``; a link is a table whose cells are such, too.

    Parameters
    ----------
    sections
        As :func:`interp.report.content.outcome` returns them.
    bearings
        Of all sections.
    sites
        The study's layer sites, each of which gets a row.
    store
        Where the activations behind the chance level are; without it directions are drawn isotropically.
    """
    found = [
        {**f, "column": section["title"]}
        for section in sections
        for f in section.get("findings", ())
        if f["shown"]
    ]
    if not found:
        return None
    columns = list(dict.fromkeys(f["column"] for f in found))
    places: dict[str, tuple[Any, ...]] = {}
    for name in [*(str(site) for site in sites), *(f["site"] for f in found)]:
        place = place_of(name)
        places[place] = min(places.get(place, _order(name)), _order(name))
    rows = [
        {"place": place, "cells": [_cell(found, column, place) for column in columns]}
        for place in sorted(places, key=lambda place: places[place])
    ]
    rows = [row for row in rows if any(row["cells"])]
    return {"columns": columns, "rows": rows, "links": _links(bearings, store, seed)}


def place_of(site: str) -> str:
    """The row that a site belongs to: the input of the first block, a block, a module, or the whole model."""
    if not site:
        return WHOLE
    parsed = Site.parse(site)
    if parsed.path is not None:
        return parsed.path
    if parsed.layer is None:
        return "before the blocks" if parsed.kind in ("embed", "pos_embed") else "after the blocks"
    return (
        "before the blocks" if parsed.kind == "resid_pre" and parsed.layer == 0 else f"block {parsed.layer}"
    )


def _order(site: str) -> tuple[Any, ...]:
    return (0,) if not site else (1, Site.parse(site))


def _cell(found: Sequence[Mapping[str, Any]], column: str, place: str) -> list[dict[str, Any]]:
    here = [f for f in found if f["column"] == column and place_of(f["site"]) == place]
    cells = []
    for kind in dict.fromkeys(f["kind"] for f in here):
        mine = [f for f in here if f["kind"] == kind]
        cells += [{"text": _said(f), "href": f["href"], "clear": f["clear"]} for f in mine[:SHOWN]]
        if mine[SHOWN:]:
            names = ", ".join(dict.fromkeys(f["name"] or f["measure"] for f in mine[SHOWN:]))
            cells.append({"text": f"also {names}", "href": mine[SHOWN]["href"], "clear": True})
    return cells


def _said(finding: Mapping[str, Any]) -> str:
    value, low, high = finding["value"], finding["low"], finding["high"]
    remark = f", {finding['remark']}" if finding["remark"] else ""
    if value is None:
        return f"{finding['name']} {finding['measure']} not measured".strip() + remark
    figure = f"{value:.3g}" if low is None or high is None else f"{value:.3g} ± {(high - low) / 2:.1g}"
    name, measure = finding["name"], finding["measure"]
    parts = (name, figure, measure) if name or measure.startswith("of ") else (measure, figure)
    return " ".join(parts).strip() + remark


def _links(bearings: Sequence[Bearings], store: Any, seed: int) -> list[dict[str, Any]]:
    """A table for every two kinds of vectors that can be compared."""
    tables: dict[tuple[str, str], list[list[Any]]] = {}
    natural: dict[str, tuple[Tensor, str]] = {}
    asked: dict[tuple[str, str], int] = {}
    for few, many in _meetings(bearings):
        if many.site not in natural:
            natural[many.site] = _directions(many, store, seed)
        cosine, level = alike(few.vectors, many.vectors, natural[many.site][0])
        rows = tables.setdefault((few.kind, many.kind), [])
        asked[few.kind, many.kind] = asked.get((few.kind, many.kind), 0) + len(few.names)
        for i, name in enumerate(few.names):
            best = np.argsort(-np.abs(cosine[i]))[:PARTNERS].tolist()
            for j in best:
                clear = bool(abs(cosine[i, j]) > level)
                if not clear and j != best[0]:
                    continue  # of those at chance the nearest alone is listed, in grey
                ends = (
                    _link(name, few.hrefs, i, clear),
                    few.site,
                    _link(many.names[j], many.hrefs, j, clear),
                    many.site,
                )
                rows.append([*ends, round(float(cosine[i, j]), 4), round(level, 4)])
    kind_of_chance = "; ".join(sorted({how for _, how in natural.values()}))
    return [
        {
            "title": f"Which {few} directions point along which {many} directions",
            "columns": [few, "found at", many, "found at", "cosine", "chance"],
            "rows": rows,
            "caption": (
                f"The {few} directions ({asked[few, many]}) with the {many} direction nearest to each, and others that "
                f"pass chance: the size that the largest |cosine| over all candidates has in 5% of {DRAWS} random "
                f"directions ({kind_of_chance}). Grey: not above it."
            ),
        }
        for (few, many), rows in tables.items()
    ]


def _link(name: str, hrefs: Sequence[str], i: int, clear: bool) -> dict[str, Any]:
    return {"text": name, "href": hrefs[i] if hrefs else "", "clear": clear}


def _meetings(bearings: Sequence[Bearings]) -> list[tuple[Bearings, Bearings]]:
    """Pairs of different kinds in one space, the one with fewer vectors first.

    What a part writes meets each other kind at the next site behind it; all else meets at its own site, or where there
    is only one site of either.
    """
    pairs = []
    for one in bearings:
        for kind in dict.fromkeys(b.kind for b in bearings):
            if kind == one.kind:
                continue
            able = [
                b
                for b in bearings
                if b.kind == kind and b.space == one.space and b.vectors.shape[1] == one.vectors.shape[1]
            ]
            other = _meeting(one, able, {b.site for b in bearings if b.kind == one.kind})
            if other is not None and not any({id(one), id(other)} == {id(a), id(b)} for a, b in pairs):
                pairs.append(tuple(sorted((one, other), key=lambda b: (not b.written, len(b.names), b.kind))))
    return pairs


def _meeting(one: Bearings, able: Sequence[Bearings], mine: set[str]) -> Bearings | None:
    """``mine``: the sites where vectors of one's kind were found; those at the other's own site meet it, not this."""
    place = Site.parse(one.site)
    if one.written:
        behind = [b for b in able if not b.written and place < Site.parse(b.site)]
        return min(behind, key=lambda b: Site.parse(b.site), default=None)
    able = [b for b in able if not b.written]  # what parts write has met this one from their side
    here = [b for b in able if b.site == one.site]
    return here[0] if here else (able[0] if len(able) == 1 and able[0].site not in mine else None)


def _directions(many: Bearings, store: Any, seed: int) -> tuple[Float[Tensor, "draw d"], str]:
    """Differences between activations of random tokens at the site; isotropic where they are not kept."""
    generator = torch.Generator().manual_seed(seed)
    d = many.vectors.shape[1]
    if store is not None and many.site in {str(site) for site in store.sites}:
        n = min(DRAWS, store.n_rows // 2)
        index = torch.randperm(store.n_rows, generator=generator)[: 2 * n].sort().values
        rows = store.rows(Site.parse(many.site), index).flatten(1).double()
        if rows.shape[1] == d and n > 1:
            mixed = rows[torch.randperm(2 * n, generator=generator)]
            drawn = mixed[:n] - mixed[n:]
            return drawn[drawn.norm(dim=1) > 0], "differences between activations of two random tokens there"
    return torch.randn(DRAWS, d, generator=generator, dtype=torch.float64), "isotropic"


def alike(
    few: Float[Tensor, "direction d"], many: Float[Tensor, "candidate d"], drawn: Float[Tensor, "draw d"]
) -> tuple[Float64[np.ndarray, "direction candidate"], float]:
    """Cosines, and the size that the largest |cosine| over all candidates has in 5% of the drawn directions."""
    a, b, c = (
        x / x.norm(dim=1, keepdim=True).clamp_min(1e-30)
        for x in (few.double(), many.double(), drawn.double())
    )
    level = float((c @ b.T).abs().amax(1).quantile(0.95)) if len(c) else 1.0
    return (a @ b.T).numpy(), level
