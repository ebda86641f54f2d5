"""Everything the feature page shows, gathered in one pass over the texts; and the page itself.

Read next: ``page.py`` for what is written, ``examples.py`` for which texts are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from interp.errors import InputError
from interp.sites import Site
from sae.codes import Codes, encode
from sae.gallery.causal import CausalCard
from sae.gallery.effects import LogitEffects, logit_effects
from sae.gallery.examples import Examples, Plan, choose
from sae.gallery.relations import (
    CoordinateSums,
    Partners,
    correlated_latents,
    decoder_neighbours,
    layout,
    leading_coordinates,
)
from sae.labels import LabelTable, label_latents

__all__ = ["Features", "gather"]

BINS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What is known about every latent."""

    codes: Codes
    examples: Examples
    effects: LogitEffects | str
    """Direct effects on logits, or why there are none."""
    histogram: np.ndarray
    """[latent, bin] codes by size, from the lower end of ``span`` to the upper."""
    span: np.ndarray
    """[latent, 2] smallest (or 0) and largest code."""
    top_tokens: np.ndarray
    """[latent, 3] token ids with the largest sums of |code|, -1 for none."""
    correlated: Partners
    correlated_over: int
    """Tokens behind the correlations."""
    coordinates: Partners
    """Coordinates of the site whose values go with the code."""
    alignment: Partners
    """Coordinates in which the direction is largest, as shares of its length."""
    neighbours: Partners
    place: np.ndarray
    """[latent, 2] on the map."""
    labels: LabelTable | None = None
    explanations: Mapping[int, Any] = field(default_factory=dict)
    """Latent -> :class:`sae.Explanation`."""
    causal: Mapping[int, CausalCard] = field(default_factory=dict)

    @property
    def texts(self) -> np.ndarray:
        """[latent] texts it fires on."""
        codes = self.codes
        key = np.repeat(np.arange(codes.d_sae, dtype=np.int64), codes.counts) * len(codes.corpus)
        new = np.diff(key + codes.where[codes.rows, 0], prepend=-1) != 0
        return np.bincount(key[new] // len(codes.corpus), minlength=codes.d_sae)


def gather(
    coder: Any,
    model: Any,
    texts: Any,
    site: str | Site,
    *,
    plan: Plan | None = None,
    labels: Mapping[str, Any] | None = None,
    names: Mapping[str, Sequence[str] | None] | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> Features:
    """One pass over the texts, and what follows from it; see :func:`dashboard`."""
    (place,) = model.find(site)
    directions = coder.W_dec.detach().float().cpu()
    effects = logit_effects(model, place, coder.W_dec.detach())
    sums = CoordinateSums(coder.d_sae, coder.d_in)
    codes = encode(coder, model, texts, site, batch_size=batch_size, watch=sums)
    if not len(codes.rows):
        raise InputError(
            f"no latent fires on any of {codes.n} tokens: there is nothing to show (another site?)"
        )
    alive = codes.counts > 0
    shown, ring = decoder_neighbours(directions)
    correlated, over = correlated_latents(codes)
    histogram, span = _histograms(codes)
    return Features(
        codes=codes,
        examples=choose(codes, plan or Plan(), seed=seed),
        effects=effects,
        histogram=histogram,
        span=span,
        top_tokens=_top_tokens(codes),
        correlated=correlated,
        correlated_over=over,
        coordinates=sums.partners(),
        alignment=leading_coordinates(directions),
        neighbours=shown,
        place=layout(directions, ring, alive, seed=seed),
        labels=None if labels is None else label_latents(codes, labels, names=names),
    )


def _histograms(codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    span = np.zeros((codes.d_sae, 2))
    some = codes.counts > 0
    starts = codes.starts[:-1][some]
    span[some, 0] = np.minimum(np.minimum.reduceat(codes.values, starts), 0)
    span[some, 1] = np.maximum(np.maximum.reduceat(codes.values, starts), 0)
    latent = np.repeat(np.arange(codes.d_sae, dtype=np.int64), codes.counts)
    width = np.maximum(span[:, 1] - span[:, 0], 1e-30)[latent]
    place = np.minimum(((codes.values - span[latent, 0]) / width * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(latent * BINS + place, minlength=codes.d_sae * BINS)
    return counts.reshape(codes.d_sae, BINS), span


def _top_tokens(codes: Codes, n_shown: int = 3) -> np.ndarray:
    ids = codes.ids[codes.rows]
    latent = np.repeat(np.arange(codes.d_sae), codes.counts)
    shape = (codes.d_sae, int(ids.max()) + 1)
    table = sp.coo_array((np.abs(codes.values), (latent, ids)), shape=shape).tocsr()
    table.sum_duplicates()
    row = np.repeat(np.arange(codes.d_sae), np.diff(table.indptr))
    order = np.lexsort((-table.data, row))
    rank = np.arange(len(row)) - table.indptr[row[order]]
    kept = rank < n_shown
    found = np.full((codes.d_sae, n_shown), -1)
    found[row[order][kept], rank[kept]] = table.indices[order][kept]
    return found
