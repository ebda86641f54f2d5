"""Profiles: spectrum and geometry of a model, layer by layer, in one pass, beside a baseline.

Everything second-order comes from one :class:`interp.Moments`; what needs the order of tokens is averaged sequence by
sequence as they stream by. Nothing else is kept. Read next: ``training.py``, the same over checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Shaped
from torch import Tensor

from interp.activations import Activations
from interp.errors import InputError, nearest
from interp.metrics.baselines import Baseline, baselined, beside
from interp.metrics.collapse import class_distance_variance, scatter_ratio
from interp.metrics.declared import NOT_ASKED, outcome
from interp.metrics.entropies import von_neumann_entropy
from interp.metrics.geometry import mean_cosine
from interp.metrics.sequences import ORDERED, SequenceValues, along_sites, by_length
from interp.metrics.similarity import cka_matrix
from interp.metrics.spectral import (
    entropy_rank,
    participation_ratio,
    power_law,
    square_norms,
    stable,
    unbiased_participation,
)
from interp.metrics.spectrum import Spectrum, spectra_of_moments
from interp.metrics.stored import StoredRuns
from interp.models.inputs import as_tokens
from interp.moments.accumulator import SiteMoments
from interp.moments.moments import Moments
from interp.results import Result
from interp.sites import Site
from interp.stores.store import ActivationStore
from interp.tokens import Tokens

__all__ = ["COLLAPSE", "QUANTITIES", "layer_profile", "layer_similarity", "profile_sites"]


class _Site:
    """One site's moments, and the spectra that the quantities asked for share."""

    def __init__(self, moments: SiteMoments, names: Sequence[str]) -> None:
        self.moments = moments
        self.centers = [center for center, users in _SPECTRA.items() if users & set(names)]

    @cached_property
    def spectra(self) -> dict[bool, Spectrum]:
        return spectra_of_moments(self.moments, self.centers)

    def participation(self) -> Result:
        if True not in self.centers or (spectrum := self.spectra[True]).whole is None:
            return participation_ratio(self.moments, unbiased=True)
        x, sums = self.moments, [self.moments.moments.sums, *self.moments.moments.left_out()]
        whole, *left = [
            (s.n, float(eig.sum()), float(eig.square().sum()), square_norms(s, x.site))
            for s, eig in zip(sums, (spectrum.whole, *spectrum.left_out), strict=True)
        ]
        return unbiased_participation(whole, left, n=x.n, d=x.d)


_SPECTRA = {True: {"effective rank", "stable rank", "alpha-ReQ"}, False: {"RankMe"}}
_MOMENTS: Mapping[str, Callable[[_Site], Result]] = {
    "effective rank": lambda s: entropy_rank(s.spectra[True], on="eigen"),
    "RankMe": lambda s: entropy_rank(s.spectra[False], on="singular"),
    "participation ratio": lambda s: s.participation(),
    "stable rank": lambda s: stable(s.spectra[True]),
    "alpha-ReQ": lambda s: power_law(s.spectra[True]),
    "von Neumann entropy": lambda s: von_neumann_entropy(s.moments),
    "mean cosine": lambda s: mean_cosine(s.moments),
    "NC1 ratio": lambda s: scatter_ratio(s.moments),
    "CDNV": lambda s: class_distance_variance(s.moments, least=LEAST),
}
LEAST = 8
"""Rows below which a class does not count in the CDNV of a profile: labels of text have long tails."""
COLLAPSE = ("NC1 ratio", "CDNV")
"""What a profile can hold besides, where tokens have labels."""
QUANTITIES = (*(name for name in _MOMENTS if name not in COLLAPSE), *ORDERED)
"""What a profile holds."""


def _rows(acts: Activations, site: Site) -> Shaped[Tensor, "row ..."]:
    """The site's rows, without a copy where there is no padding."""
    value, mask = acts[site], acts.mask
    return (
        value.flatten(0, 1) if value.ndim == 3 and mask is not None and bool(mask.all()) else acts.rows(site)
    )


def layer_profile(
    model: Any,
    tokens: Any = None,
    sites: Any = None,
    *,
    quantities: Sequence[str] | None = None,
    labels: Int[Tensor, "batch pos"] | None = None,
    positions: Any = None,
    baseline: Baseline = None,
    batch_size: int = 8,
    parts: int = 4,
    seed: int = 0,
    **options: Any,
) -> dict[str, Result]:
    """Rank, spectrum and geometry at every layer: quantity -> Result along ``site``.

    Parameters
    ----------
    model, tokens
        A model of the toolkit, and Tokens, texts or ids. Or an ActivationStore alone: its rows are read window by
        window, and neither labels, positions nor a baseline go with it.
    sites
        The stream before the first block and after every block by default; of a store all that it keeps.
    quantities
        Which of :data:`QUANTITIES`, and with labels of :data:`COLLAPSE`; all by default.
    labels
        [batch, pos] class of each token, negative where it has none: how far the classes have collapsed.
    positions
        Columns to take, as for capture (``"last"``); all by default.
    baseline
        ``"random_init"`` or ``"shuffled_tokens"``: the same profile of that stands in ``.chance`` instead of the
        analytic level.
    parts
        Jackknife parts of the moments (memory grows with them); curvature, homogeneity and prompt entropy have their
        error over sequences.
    **options
        Passed to :class:`interp.Moments`.

    Notes
    -----
    Cost: one forward pass a sequence (two with a baseline), n d^2 products and a few d x d eigenvalue problems a site.
    """
    known = QUANTITIES if labels is None else (*QUANTITIES, *COLLAPSE)
    names = known if quantities is None else quantities
    for name in names:
        if name not in known:
            raise InputError(
                f"no quantity {name!r}{nearest(name, known)}; a profile holds {', '.join(known)}"
                + (f" (and {', '.join(COLLAPSE)} with labels)" if labels is None else "")
            )
    model, tokens = _material(model, tokens, labels, baseline)
    if labels is not None and baseline == "shuffled_tokens":
        raise InputError("labels belong to the tokens in their order: take baseline='random_init' with them")
    run = _Pass(
        model=model, tokens=tokens, sites=sites, names=names, labels=labels, positions=positions, batch_size=batch_size
    )  # fmt: skip
    classes = 0 if labels is None else int(torch.as_tensor(labels).max()) + 1
    twin = bool({"von Neumann entropy", "mean cosine"} & set(names))
    settings = {"block": 0, "twin": twin, "parts": parts, "n_classes": classes} | options
    mine = run.profile(settings)
    if baseline is None:
        return mine
    network, mixed = baselined(model, tokens, baseline, seed=seed)
    theirs = replace(run, model=network, tokens=mixed).profile(settings)
    return {name: beside(result, theirs[name], baseline) for name, result in mine.items()}


def _material(model: Any, tokens: Any, labels: Any, baseline: Baseline) -> tuple[Any, Any]:
    """The model and its tokens; a store as a model that has run already."""
    if not isinstance(model, ActivationStore | StoredRuns):
        if tokens is None:
            raise InputError("tokens are needed with a model; without them the first argument is a store")
        return model, tokens
    if tokens is not None or labels is not None or baseline is not None:
        raise InputError(f"{model} holds rows: tokens, labels and a baseline go with a model")
    runs = model if isinstance(model, StoredRuns) else StoredRuns(model)
    return runs, runs.tokens


def profile_sites(model: Any, sites: Any = None) -> tuple[Any, ...]:
    """The sites of a profile: those asked for, or the stream before the first block and after every block."""
    if sites is not None or isinstance(model, StoredRuns):
        return model.find(sites)
    if model.n_layers == 0:
        raise InputError(f"{model.name} has no known layers: name the sites")
    return model.find(["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pass:
    """What one profile runs over, and what it is to hold."""

    model: Any
    tokens: Any
    sites: Any
    names: Sequence[str]
    labels: Tensor | None
    positions: Any
    batch_size: int

    def profile(self, settings: dict[str, Any]) -> dict[str, Result]:
        """The Results by name, along ``site``."""
        found = profile_sites(self.model, self.sites)
        given = self.tokens if isinstance(self.tokens, Tokens) else as_tokens(self.model, self.tokens)
        # parts are dealt chunk by chunk: two chunks a part where the rows are few
        n = int(given.mask.sum()) if self.positions is None else len(given)
        settings = {"chunk": max(64, min(2048, n // (2 * settings["parts"])))} | settings
        ordered = [name for name in self.names if name in ORDERED]
        each = {site: SequenceValues(ordered) for site in found}
        moments: Moments | None = None
        for acts, marks in self._batches(found, given):
            rows = {str(site): _rows(acts, site) for site in found}
            moments = moments or Moments({site: x.shape[1] for site, x in rows.items()}, **settings)
            moments.update(rows, labels=marks)
            for site in found if ordered else ():
                for paths in by_length(acts[site], acts.mask):
                    each[site].add(paths)
        assert moments is not None  # Tokens are never empty
        along: dict[str, list[Result]] = {name: [] for name in self.names if name in _MOMENTS}
        for site in moments.sites:  # one at a time, so that its spectra are dropped before the next
            held = _Site(moments[site], self.names)
            for name, results in along.items():
                results.append(_MOMENTS[name](held))
        ticks, width = (tuple(str(site) for site in found),), max(moments.config.widths)
        return {
            name: _along(along[name], ticks)
            if name in along
            else along_sites(name, [each[site] for site in found], d=width, ticks=ticks)
            for name in self.names
        }

    def _batches(self, found: Sequence[Site], given: Tokens) -> Iterator[tuple[Activations, Tensor | None]]:
        """Activations, and the labels of their rows."""
        labels = None if self.labels is None else torch.as_tensor(self.labels)
        if labels is not None and labels.shape != given.ids.shape:
            raise InputError(
                f"labels are {list(labels.shape)} for tokens {list(given.ids.shape)}: one entry a token"
            )
        for start in range(0, len(given), self.batch_size):
            acts = self.model.capture(
                given[start : start + self.batch_size], list(found), positions=self.positions
            )
            marks = None
            if labels is not None and acts.positions is not None and acts.mask is not None:
                mine = labels[start : start + self.batch_size]
                marks = mine.gather(1, acts.positions.to(mine.device))[acts.mask.to(mine.device)]
            yield acts, marks


def _along(results: Sequence[Result], ticks: tuple[tuple[str, ...], ...]) -> Result:
    """Results of single sites as one along ``site``."""

    def column(values: list[Any]) -> Float64[np.ndarray, "site"]:
        return np.array([np.nan if v is None else float(v) for v in values])

    first, stderr = results[0], column([r.stderr for r in results])
    reasons = {f"{site}: {r.reason}" for site, r in zip(ticks[0], results, strict=True) if r.reason}
    return outcome(
        first.name, column([r.value for r in results]), n=first.n, d=max(r.provenance["d"] for r in results),
        stderr=stderr if np.isfinite(stderr).any() else None, no_stderr=first.no_stderr or NOT_ASKED,
        chance=column([r.chance for r in results]),
        axes=("site",), ticks=ticks, convention=first.convention.rpartition("; n/d")[0],
        reason="; ".join(sorted(reasons)) or None,
        provenance={key: [r.provenance.get(key) for r in results] for key in ("r2", "last") if key in first.provenance},
    )  # fmt: skip


def layer_similarity(
    model: Any,
    tokens: Any = None,
    sites: Any = None,
    *,
    other: Any = None,
    baseline: Baseline = None,
    method: str = "blocks",
    batch_size: int = 8,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Debiased CKA of every pair of layers of one model, or of the layers of two models on the same tokens.

    Parameters
    ----------
    model, tokens, sites
        As for :func:`layer_profile`; a store goes without ``other`` and ``baseline``.
    other
        Another model (its layers are the columns). ``baseline="random_init"`` takes the untrained network instead;
        ``baseline="shuffled_tokens"`` is the same model reading shuffled text.
    method
        ``"blocks"`` (cheap, with its error) or ``"exact"`` (keeps every cross block).
    """
    if other is not None and baseline is not None:
        raise InputError("give other= or baseline=, not both")
    model, tokens = _material(model, tokens, None, baseline)
    found = profile_sites(model, sites)
    if baseline == "shuffled_tokens":
        model, tokens = baselined(model, tokens, baseline, seed=seed)
    elif baseline is not None:
        other, _ = baselined(model, tokens, baseline, seed=seed)
    cross: Any = method == "exact"
    options.setdefault("twin", False)
    if isinstance(model, StoredRuns):
        if other is not None:
            raise InputError("a store is compared with itself: other= goes with a model")
        return cka_matrix(_stored(model, found, cross, options), method=method)  # type: ignore[arg-type]
    if other is None:
        made = Moments.stream(model, tokens, list(found), batch_size=batch_size, cross=cross, **options)
        return cka_matrix(made, method=method)  # type: ignore[arg-type]
    given = as_tokens(model, tokens)
    theirs, made = profile_sites(other, sites), None
    for part in given.batches(batch_size):
        rows = {}
        for side, network, places in (("a", model, found), ("b", other, theirs)):
            acts = network.capture(part, list(places))
            rows |= {f"{side}:{site}": acts.rows(site) for site in places}
        made = made or Moments({s: x.shape[1] for s, x in rows.items()}, cross=cross, **options)
        made.update(rows)
    assert made is not None  # Tokens are never empty
    whole = cka_matrix(made, method=method)  # type: ignore[arg-type]
    k = len(found)
    return outcome(
        whole.name, np.asarray(whole.value)[:k, k:], n=whole.n, d=tuple(whole.provenance["d"]),
        axes=("site", "other site"),
        stderr=None if whole.stderr is None else np.asarray(whole.stderr)[:k, k:], chance=0.0,
        ticks=(tuple(map(str, found)), tuple(map(str, theirs))), convention=whole.convention.rpartition("; n/d")[0],
        reason=whole.reason, provenance={"method": method, "baseline": baseline},
    )  # fmt: skip


def _stored(runs: StoredRuns, found: Sequence[Site], cross: Any, options: dict[str, Any]) -> Moments:
    widths = {str(site): int(np.prod(runs.store.shapes[site])) for site in found}
    made = Moments(widths, cross=cross, **options)
    for start in range(0, runs.n_rows, 8192):
        batch = runs.store.batch(slice(start, min(start + 8192, runs.n_rows)), sites=list(found))
        made.update({str(site): batch[site].flatten(1) for site in found})
    return made
