"""Activation patching: put something else in one part's place in a run; how much of the answer goes, or comes along?

:func:`patch_sweep` does it for every head (or site, position, neuron) in turn, many of them in one pass from the first
layer that changes. Read next: ``reruns.py`` (the passes), ``effects.py`` (what is made of the numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuits.components import Component, components_of
from circuits.constants import learned
from circuits.effects import PatchResult, shared_out
from circuits.questions import asked
from circuits.reruns import Reruns, at_place, stream_of
from interp.activations import Activations
from interp.errors import InputError, ModelError
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["MODES", "patch_sweep"]

Mode = Literal["denoise", "noise", "zero", "mean", "resample", "optimal"]
MODES = ("denoise", "noise", "zero", "mean", "resample", "optimal")
Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pairs:
    """What is asked: two runs and a metric."""

    clean: Any
    corrupted: Any
    metric: Metric
    position: Tensor | None
    """The only place at which the metric reads the logits; None: it is shown all of them."""

    @classmethod
    def of(cls, model: Any, clean: Any, corrupted: Any, metric: Metric | None) -> _Pairs:
        if corrupted is None or metric is None:
            if corrupted is not None or metric is not None:
                raise InputError("give clean, corrupted and metric, or a task alone")
            (question,) = asked(clean)
            return cls(
                clean=question.clean,
                corrupted=question.corrupted,
                metric=question.metric,
                position=question.position,
            )
        _paired(clean, corrupted)
        if model.anatomy is not None and isinstance(clean, Tensor) and isinstance(corrupted, Tensor):
            ids = clean.ndim == 2 and not clean.is_floating_point()
            clean, corrupted = (Tokens.full(t) if ids else t for t in (clean, corrupted))
        return cls(clean=clean, corrupted=corrupted, metric=metric, position=None)


def patch_sweep(  # noqa: PLR0913  (the options of one experiment)
    model: Any,
    clean: Any,
    corrupted: Any = None,
    metric: Metric | None = None,
    *,
    sites: Any = None,
    mode: Mode = "denoise",
    position: int | Sequence[int] | str | None = None,
    neuron: int | Sequence[int] | str | None = None,
    control: bool = False,
    steps: int = 100,
    batch_size: int = 32,
    n_draws: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> PatchResult:
    """The effect of patching every head (or site, position, neuron) by itself.

    Parameters
    ----------
    model
        A model of the toolkit.
    clean, corrupted
        Tokens (or what the model takes) of the same shape; row i of both are one pair, the same length in tokens.
        Or a task as ``clean`` and nothing else: then logits are computed at the answer's place only.
    metric
        logits -> one number per example, e.g. the logit difference at the last position. It is called with all
        examples in their order, so it may index answers by row.
    sites
        Names, globs or Sites (streams, attention, MLPs, heads' q, k, v, z, patterns, neurons); a site with heads is
        taken head by head. By default every head's ``z``; without heads what each layer's attention, mixer and MLP
        write; without those every site that is listed.
    mode
        ``"denoise"``: clean into corrupted. ``"noise"``: corrupted into clean. The others ablate in the clean run:
        ``"zero"``; ``"mean"`` over the clean runs, at each position; ``"resample"``: another clean example's;
        ``"optimal"``: the constant that costs least, learned for each component.
    position
        Patch only there (``"last"``: each row's last real token); ``"each"``: position by position; all by default.
    neuron
        Patch only these features of the last axis; ``"each"``: one by one.
    control
        Also patch in the activations of another example, which should carry nothing (doubles the cost).
    steps
        Gradient steps of ``mode="optimal"``.
    batch_size
        Rows a forward pass; components of one layer are batched as far as they fit.
    n_draws
        Bootstrap draws over examples for the interval of the ratio of means.
    seed
        Of the bootstrap, and of which example ``"resample"`` takes.

    Returns
    -------
    PatchResult
        Ratio of means over examples. Where the clean and the corrupted metric do not differ, nan with the reason.

    Raises
    ------
    InputError
        Pairs of different shapes, or a metric that does not give one number per example.
    SiteError
        A site that cannot be edited.
    ModelError
        ``mode="optimal"`` on a model that cannot be run block by block.

    Notes
    -----
    Cost: components x examples forward passes of one example, each from the component's layer on where the model can
    be run block by block (``provenance["restarted"]``); twice with ``control``; two for the ends. Effects of single
    parts need not add up to 1: parts can be redundant, or work only together.

    References
    ----------
    Zhang & Nanda 2024, "Towards best practices of activation patching".
    """
    if mode not in MODES:
        raise InputError(f"mode={mode!r}; it is one of {list(MODES)}")
    pairs = _Pairs.of(model, clean, corrupted, metric)
    n = len(pairs.clean)
    components = components_of(model, sites, position=position, neuron=neuron, n_pos=_n_pos(pairs.clean))
    if mode == "resample" and n < 2:
        raise InputError("resampling needs two examples or more: there is no other one")
    giver, taker = (pairs.clean, pairs.corrupted) if mode == "denoise" else (pairs.corrupted, pairs.clean)
    stream = stream_of(model, taker)
    if mode == "optimal" and stream is None:
        raise ModelError(f"{model.name} cannot be run block by block, which learning constants needs")
    reruns = Reruns(model, taker, stream=stream, batch_size=batch_size, position=pairs.position)
    held, ends = _held(reruns, pairs, giver, components, ablated=mode not in ("denoise", "noise"))
    if mode == "denoise":
        ends = ends[::-1]
    if any(len(end) != n for end in ends):
        raise InputError(
            f"the metric gave {[len(e) for e in ends]} numbers for {n} examples; it must give one per example"
        )
    sweep = _Sweep(reruns=reruns, metric=pairs.metric, mode=mode, steps=steps, seed=seed, shown=progress)
    patched = sweep.over(components, held)
    crossed = control and n >= 3 and mode in ("denoise", "noise")
    foreign = sweep.over(components, _shifted(held, n)) if crossed else None
    origin = {"model": model.name, "backend": model.backend, "seed": seed, "restarted": stream is not None}
    return shared_out(components, patched, foreign, ends, mode, n_draws=n_draws, seed=seed, provenance=origin)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sweep:
    reruns: Reruns
    metric: Metric
    mode: str
    steps: int
    seed: int
    shown: bool

    def over(self, components: Sequence[Component], held: Activations) -> np.ndarray:
        """[component, example] the metric with each component replaced."""
        from interp.runs.progress import progress

        groups = list(self.reruns.groups(components))
        shown = progress(
            groups, total=len(groups), desc="patching", unit="pass", enabled=None if self.shown else False
        )
        parts = []
        for first, group in shown:
            values = self._values(first, group, held)
            with torch.no_grad():
                logits = self.reruns.logits(first, group, values)
            # the metric is shown the examples in their order, once for each component
            parts.append(torch.stack([_scored(self.metric, one) for one in logits]).numpy())
        return np.concatenate(parts)

    def _values(self, first: int | None, group: Sequence[Component], held: Activations) -> dict[Site, Tensor]:
        sites = dict.fromkeys(component.site.whole for component in group)
        if self.mode == "optimal":
            assert first is not None
            (site,) = sites
            return {site: learned(self.reruns, group, first, held, steps=self.steps)}
        return {site: self._value(held, site) for site in sites}

    def _value(self, held: Activations, site: Site) -> Tensor:
        value = held[site]
        if self.mode == "zero":
            return torch.zeros_like(value[:1])
        if self.mode == "mean":
            return _mean(value, held.mask)
        if self.mode == "resample":
            return value[_others(len(value), self.seed).to(value.device)]
        return value


def _mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over examples at each position [1 ...], in float64, over those whose token there is real."""
    wide = value.double()
    if mask is None or bool(mask.all()) or mask.shape != value.shape[:2]:
        return wide.mean(0, keepdim=True).to(value.dtype)
    real = mask.to(wide.device).view(*mask.shape, *[1] * (wide.ndim - 2))
    kept = torch.where(real, wide, torch.zeros_like(wide)).sum(0, keepdim=True)
    return (kept / real.sum(0, keepdim=True).clamp(min=1)).to(value.dtype)


def _others(n: int, seed: int) -> Tensor:
    """For each example another one, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.arange(n) + torch.randint(1, n, (n,), generator=generator)) % n


def _held(
    reruns: Reruns, pairs: _Pairs, giver: Any, components: Sequence[Component], *, ablated: bool
) -> tuple[Activations, list[np.ndarray]]:
    """What is put into the run that is changed, and the metric of that run and of the other one."""
    model, size = reruns.model, reruns.batch_size
    wholes = list(dict.fromkeys(component.site.whole for component in components))
    ends = [_scored(pairs.metric, reruns.unchanged()).numpy()]
    head = Site(kind="logits")
    if not ablated and reruns.stream is not None and head in model.sites:
        held = model.capture(giver, [*wholes, head], batch_size=size)  # one pass for both
        logits = held[head]
    else:
        held = model.capture(reruns.tokens if ablated else giver, wholes, batch_size=size)
        logits = model.logits(giver, batch_size=size)
    ends.append(_scored(pairs.metric, at_place(logits, pairs.position)).numpy())
    return held, ends


def _n_pos(tokens: Any) -> int | None:
    ids = tokens.ids if isinstance(tokens, Tokens) else tokens
    return ids.shape[1] if ids.ndim > 1 else None


def _paired(clean: Any, corrupted: Any) -> None:
    """Refuse pairs that do not line up token by token."""
    grids = [t.ids if isinstance(t, Tokens) else t for t in (clean, corrupted)]
    if not all(isinstance(grid, Tensor) for grid in grids):
        raise InputError(
            "clean and corrupted must be Tokens or tensors of ids; make them with model.tokens([...])"
        )
    shapes = [list(grid.shape) for grid in grids]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"clean has shape {shapes[0]} and corrupted {shapes[1]}; row i of both is one pair, token by token"
        )
    if isinstance(clean, Tokens) and isinstance(corrupted, Tokens):
        uneven = torch.nonzero((clean.mask != corrupted.mask).any(1)).flatten()
        if len(uneven):
            raise InputError(
                f"pair {int(uneven[0])} has {int(clean.lengths[uneven[0]])} clean and "
                f"{int(corrupted.lengths[uneven[0]])} corrupted tokens; patching needs pairs of one length"
            )


def _scored(metric: Metric, logits: Tensor) -> Tensor:
    """The metric's numbers [example] in float64."""
    scores = metric(logits)
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the metric returned {got}; it must give one number per example [batch]")
    return scores.detach().double().cpu()


def _shifted(source: Activations, n: int) -> Activations:
    """The activations with every row from another example, half the set away."""
    tensors = {site: value.roll(max(2, n // 2) % n or 1, dims=0) for site, value in source.tensors.items()}
    return Activations(
        tensors=tensors, mask=source.mask, positions=source.positions, provenance=source.provenance
    )
