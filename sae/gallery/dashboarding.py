"""The feature page from beginning to end: gather, add what was asked for, write."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from interp.errors import InputError
from interp.pages import document
from interp.showing import Shown, brief
from interp.sites import Site
from sae.gallery import neuronpedia, page
from sae.gallery.causal import CausalCard, causal_cards
from sae.gallery.examples import Plan
from sae.gallery.gathering import Features, gather

__all__ = ["Dashboard", "dashboard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard(Shown):
    """The written page."""

    html: Path
    json: Path | None
    """Its twin in Neuronpedia's schema, a feature a line, gzipped."""
    n_latents: int
    n_tokens: int
    n_bytes: int
    seconds: float

    def _repr_html_(self) -> str:
        return document.frame_file(self.html, height=900, title="latents") or Shown._repr_html_(self)

    def __repr__(self) -> str:
        return (
            f"Dashboard({brief(self.html)}: {self.n_latents} latents over {self.n_tokens} tokens, "
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
