"""Profiles: spectrum and geometry of a model, layer by layer, in one pass; beside a baseline; over training.

Everything second-order comes from one :class:`interp.Moments`; what needs the order of tokens is averaged sequence by
sequence as they stream by. Nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.activations import Activations
from interp.errors import InputError, nearest
from interp.metrics.baselines import Baseline, baselined
from interp.metrics.declared import outcome
from interp.metrics.entropies import von_neumann_entropy
from interp.metrics.geometry import mean_cosine
from interp.metrics.similarity import cka_matrix
from interp.metrics.spectral import (
    Spectrum,
    entropy_rank,
    participation_ratio,
    power_law,
    spectrum_of,
    stable,
)
from interp.models.inputs import as_tokens
from interp.moments.accumulator import Moments, SiteMoments
from interp.results import Result

__all__ = ["QUANTITIES", "layer_profile", "layer_similarity", "training_profile"]


class _Site:
    """One site's moments and its spectra, each made once for all quantities."""

    def __init__(self, moments: SiteMoments) -> None:
        self.moments = moments
        self._held: dict[bool, Spectrum] = {}

    def spectrum(self, *, center: bool) -> Spectrum:
        if center not in self._held:
            self._held[center] = spectrum_of(self.moments, center=center)
        return self._held[center]


_MOMENTS: Mapping[str, Callable[[_Site], Result]] = {
    "effective rank": lambda s: entropy_rank(s.spectrum(center=True), on="eigen"),
    "RankMe": lambda s: entropy_rank(s.spectrum(center=False), on="singular"),
    "participation ratio": lambda s: participation_ratio(s.moments, unbiased=True),
    "stable rank": lambda s: stable(s.spectrum(center=True)),
    "alpha-ReQ": lambda s: power_law(s.spectrum(center=True)),
    "von Neumann entropy": lambda s: von_neumann_entropy(s.moments),
    "mean cosine": lambda s: mean_cosine(s.moments),
}
_SEQUENCES = ("curvature", "token homogeneity", "prompt entropy")
QUANTITIES = (*_MOMENTS, *_SEQUENCES)
"""What a profile can hold."""


def _by_length(acts: Tensor, mask: Tensor | None) -> list[Float[Tensor, "batch pos d"]]:
    """The real tokens of each sequence, sequences of one length together."""
    if mask is None or bool(mask.all()):
        return [acts if acts.dtype == torch.float64 else acts.float()]
    mask = mask.to(acts.device)
    lengths = mask.sum(1)
    wide = acts if acts.dtype == torch.float64 else acts.float()
    return [
        wide[lengths == n][mask[lengths == n]].unflatten(0, (-1, int(n))) for n in lengths.unique() if n > 0
    ]


def _sequence_values(paths: Float[Tensor, "batch pos d"], names: Sequence[str]) -> dict[str, list[float]]:
    """Curvature (degrees), token homogeneity and prompt entropy (nats) of each sequence, as ``geometry.py`` has them.

    Products are of the activations' float type, sums and eigenvalues float64. A sequence too short for a quantity, or
    with a vector of length 0 where a direction is needed, has none.
    """
    n, out = paths.shape[1], {name: torch.full((len(paths),), torch.nan) for name in names}
    z = paths / paths.norm(dim=2, keepdim=True)  # nan where a token has length 0
    if n > 1 and "token homogeneity" in out:
        out["token homogeneity"] = (z.sum(1).double().square().sum(1) - n) / (n * (n - 1))
    if n > 1 and "prompt entropy" in out:
        side = (z @ z.mT if n <= z.shape[2] else z.mT @ z).double() / n
        eig = torch.linalg.eigvalsh(side.nan_to_num()).clamp_min(0)
        out["prompt entropy"] = torch.special.entr(eig).sum(1) + 0 * side.sum((1, 2))
    if n > 2 and "curvature" in out:
        step = paths.diff(dim=1)
        u = step / step.norm(dim=2, keepdim=True)
        # the angle from both half chords: a cosine alone loses its digits near 0 and 180 degrees
        chords = [
            (u[:, 1:] + sign * u[:, :-1]).square().sum(2, dtype=torch.float64).sqrt() for sign in (-1, 1)
        ]
        out["curvature"] = 2 * torch.atan2(*chords).rad2deg().mean(1)
    return {name: [v for v in values.tolist() if np.isfinite(v)] for name, values in out.items()}


def layer_profile(
    model: Any,
    tokens: Any,
    sites: Any = None,
    *,
    quantities: Sequence[str] = QUANTITIES,
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
        A model of the toolkit, and Tokens, texts or ids.
    sites
        The stream before the first block and after every block by default.
    quantities
        Which of :data:`QUANTITIES`.
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
    for name in quantities:
        if name not in QUANTITIES:
            raise InputError(
                f"no quantity {name!r}{nearest(name, QUANTITIES)}; a profile holds {', '.join(QUANTITIES)}"
            )
    settings = {"block": 0, "twin": True, "parts": parts} | options
    mine = _profile(model, tokens, sites, quantities, batch_size, settings)
    if baseline is None:
        return mine
    other = _profile(*baselined(model, tokens, baseline, seed=seed), sites, quantities, batch_size, settings)
    return {name: _beside(result, other[name], baseline) for name, result in mine.items()}


def _beside(result: Result, other: Result, baseline: str) -> Result:
    fields = ("name", "value", "n", "stderr", "interval", "axes", "ticks", "reason")
    return Result(
        **{f: getattr(result, f) for f in fields},
        chance=np.asarray(other.value),
        convention=f"{result.convention}; chance: {baseline}",
        provenance={**result.provenance, "baseline": baseline},
    )


def _layers(model: Any, sites: Any) -> tuple[Any, ...]:
    if sites is not None:
        return model.find(sites)
    if model.n_layers == 0:
        raise InputError(f"{model.name} has no known layers: name the sites")
    return model.find(["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"])


def _profile(
    model: Any, tokens: Any, sites: Any, quantities: Sequence[str], batch_size: int, settings: dict[str, Any]
) -> dict[str, Result]:
    found = _layers(model, sites)
    given = as_tokens(model, tokens)
    # parts are dealt chunk by chunk: four chunks a part where the tokens are few
    settings = {"chunk": max(64, min(2048, int(given.mask.sum()) // (4 * settings["parts"])))} | settings
    ordered = [name for name in quantities if name in _SEQUENCES]
    each: dict[str, dict[str, list[float]]] = {name: {str(s): [] for s in found} for name in ordered}
    moments: Moments | None = None
    for part in given.batches(batch_size):
        acts: Activations = model.capture(part, list(found))
        rows = {str(site): acts.rows(site) for site in found}
        if moments is None:
            moments = Moments({site: x.shape[1] for site, x in rows.items()}, **settings)
        moments.update(rows)
        for site in found if ordered else ():
            for paths in _by_length(acts[site], acts.mask):
                for name, values in _sequence_values(paths, ordered).items():
                    each[name][str(site)] += values
    assert moments is not None  # Tokens are never empty
    ticks = (tuple(str(site) for site in found),)
    out, held = {}, [_Site(moments[site]) for site in moments.sites]
    for name in quantities:
        if name in ordered:
            out[name] = _over_sequences(name, each[name], max(moments.config.widths), ticks)
        else:
            out[name] = _along([_MOMENTS[name](site) for site in held], ticks)
    return out


def _over_sequences(
    name: str, each: dict[str, list[float]], d: int, ticks: tuple[tuple[str, ...], ...]
) -> Result:
    counts = [len(v) for v in each.values()]
    value = np.array([np.mean(v) if v else np.nan for v in each.values()])
    spread = [np.std(v, ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.nan for v in each.values()]
    return outcome(
        name, value, n=max(counts), d=d, stderr=np.array(spread), axes=("site",), ticks=ticks,
        convention="mean over sequences", reason=None if min(counts) else "no sequence is long enough",
    )  # fmt: skip


def _along(results: Sequence[Result], ticks: tuple[tuple[str, ...], ...]) -> Result:
    """Results of single sites as one along ``site``."""

    def column(values: list[Any]) -> Float64[np.ndarray, "site"]:
        return np.array([np.nan if v is None else float(v) for v in values])

    first, stderr = results[0], column([r.stderr for r in results])
    reasons = {f"{site}: {r.reason}" for site, r in zip(ticks[0], results, strict=True) if r.reason}
    return outcome(
        first.name, column([r.value for r in results]), n=first.n, d=max(r.provenance["d"] for r in results),
        stderr=stderr if np.isfinite(stderr).any() else None, chance=column([r.chance for r in results]),
        axes=("site",), ticks=ticks, convention=first.convention.rpartition("; n/d")[0],
        reason="; ".join(sorted(reasons)) or None,
        provenance={key: [r.provenance.get(key) for r in results] for key in ("r2", "last") if key in first.provenance},
    )  # fmt: skip


def layer_similarity(
    model: Any,
    tokens: Any,
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
    other
        Another model (its layers are the columns). ``baseline="random_init"`` takes the untrained network instead;
        ``baseline="shuffled_tokens"`` is the same model reading shuffled text.
    method
        ``"blocks"`` (cheap, with its error) or ``"exact"`` (keeps every cross block).
    """
    if other is not None and baseline is not None:
        raise InputError("give other= or baseline=, not both")
    found = _layers(model, sites)
    if baseline == "shuffled_tokens":
        model, tokens = baselined(model, tokens, baseline, seed=seed)
    elif baseline is not None:
        other, _ = baselined(model, tokens, baseline, seed=seed)
    cross: Any = method == "exact"
    if other is None:
        made = Moments.stream(model, tokens, list(found), batch_size=batch_size, cross=cross, **options)
        return cka_matrix(made, method=method)  # type: ignore[arg-type]
    given = as_tokens(model, tokens)
    theirs, made = _layers(other, sites), None
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


def training_profile(
    checkpoints: Mapping[Any, Any], tokens: Any, sites: Any = None, **options: Any
) -> dict[str, Result]:
    """:func:`layer_profile` over checkpoints: quantity -> Result along ``step`` and ``site``.

    Parameters
    ----------
    checkpoints
        Step -> a model, a folder or name for ``interp.load``, or a function of no argument that makes one (then one
        model is in memory at a time).
    **options
        Passed to :func:`layer_profile`.

    References
    ----------
    Li et al. 2025 (Tracing the representation geometry of language models): phases of RankMe and alpha-ReQ.
    """
    import interp

    if not checkpoints:
        raise InputError("there are no checkpoints")
    steps, profiles = [], []
    for step, held in checkpoints.items():
        made = interp.load(held) if isinstance(held, str | Path) else held
        network = made if hasattr(made, "capture") else made()
        profiles.append(layer_profile(network, tokens, sites, **options))
        steps.append(str(step))
    out = {}
    for name, first in profiles[0].items():
        along = [profile[name] for profile in profiles]

        def stacked(field: str, along: list[Result] = along) -> np.ndarray | None:
            held = [getattr(r, field) for r in along]
            return (
                None if any(v is None for v in held) else np.stack([np.asarray(v, dtype=float) for v in held])
            )

        value = stacked("value")
        assert value is not None  # every Result has one
        out[name] = outcome(
            name, value, n=first.n, d=int(np.max(first.provenance["d"])), stderr=stacked("stderr"),
            chance=stacked("chance"), axes=("step", "site"), ticks=(tuple(steps), first.ticks[0]),
            convention=first.convention.rpartition("; n/d")[0],
            reason="; ".join(sorted({r.reason for r in along if r.reason})) or None,
        )  # fmt: skip
    return out
