"""Everything the feature page shows, gathered in one pass over the texts; and the page itself.

Read next: ``page.py`` for what is written, ``examples.py`` for which texts are chosen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from interp.errors import InputError
from interp.sites import Site
from sae.codes import Codes, encode
from sae.gallery.causal import CausalCard, causal_cards
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

__all__ = ["Dashboard", "Features", "dashboard", "gather"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """The written page."""

    html: Path
    json: Path | None
    """Its twin in Neuronpedia's schema, a feature a line, gzipped."""
    n_latents: int
    n_tokens: int
    n_bytes: int
    seconds: float

    def __repr__(self) -> str:
        return (
            f"Dashboard({self.html}: {self.n_latents} latents over {self.n_tokens} tokens, "
            f"{self.n_bytes / 1e6:.1f} MB, {self.seconds:.0f} s)"
        )


def dashboard(
    coder: Any,
    model: Any,
    texts: Any,
    site: str | Site,
    *,
    out: str | os.PathLike[str] = "features.html",
    plan: Plan | None = None,
    labels: Mapping[str, Any] | None = None,
    names: Mapping[str, Sequence[str] | None] | None = None,
    explanations: Mapping[int, Any] | None = None,
    causal: Sequence[int] = (),
    json: bool = True,
    seed: int = 0,
) -> Dashboard:
    """Write a page that shows what every latent does: one file, no network, no server.

    Parameters
    ----------
    coder, model, site
        An autoencoder of that site.
    texts
        What it is read on: texts, Tokens or ids.
    out
        The page; the JSON twin lies beside it.
    plan
        How many examples of how much text.
    labels, names
        Labels of every token and the names of their values (:func:`sae.label_latents`): each latent is shown with
        the label it is the best sign of.
    explanations
        Latent -> :class:`sae.Explanation`.
    causal
        Latents that are also steered along and ablated, with random latents of equal length beside them.
    json
        Write the twin.
    seed
        Of examples that are drawn, and of random latents.

    Returns
    -------
    Dashboard

    Raises
    ------
    InputError
        A coder of another width than the site, texts on which nothing fires, or labels that do not fit.
    ModelError
        The model has no unembedding that is known.

    Notes
    -----
    Cost: one forward pass over the texts (up to the site) and one dense product; then sorting of the codes.
    """
    from sae.gallery import neuronpedia, page

    began = time.perf_counter()
    wiring = getattr(coder, "wiring", "sae")
    if wiring not in ("sae", "transcoder", "skip"):
        raise InputError(f"the page shows coders that read and write one site; this is a {wiring}")
    if causal and wiring != "sae":
        raise InputError(
            f"latents of a {wiring} write to another site than {site}: causal= is for autoencoders"
        )
    with torch.no_grad():
        found = gather(coder, model, texts, site, plan=plan, labels=labels, names=names, seed=seed)
        cards = causal_cards(coder, model, found.codes, site, causal, seed=seed)
    found = _with(found, explanations or {}, cards)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = page.write(found, path, facts=_facts(coder, model, found, site, seed))
    twin = None
    if json:
        twin = neuronpedia.write(found, path.with_suffix(".jsonl.gz"))
    return Dashboard(
        html=path,
        json=twin,
        n_latents=coder.d_sae,
        n_tokens=found.codes.n,
        n_bytes=n_bytes,
        seconds=time.perf_counter() - began,
    )


def _with(found: Features, explanations: Mapping[int, Any], cards: Mapping[int, CausalCard]) -> Features:
    for latent in explanations:
        found.codes.check(latent)
    return replace(found, explanations=dict(explanations), causal=dict(cards))


def _facts(coder: Any, model: Any, found: Features, site: Any, seed: int) -> dict[str, Any]:
    codes, plan = found.codes, found.examples.plan
    few = int(((found.texts > 0) & (found.texts < plan.top)).sum())
    return {
        "model": model.name,
        "site": str(site),
        "coder": f"{getattr(coder, 'kind', type(coder).__name__)}, k = {getattr(coder, 'k', '?')}",
        "latents": coder.d_sae,
        "dead": int((codes.counts == 0).sum()),
        "few texts": few,
        "tokens": codes.n,
        "texts": len(codes.corpus),
        "l0": round(codes.l0, 3),
        "weights": model.fingerprint(),
        "seed": seed,
        "correlations over": found.correlated_over,
        "no logits": found.effects if isinstance(found.effects, str) else "",
    }
