"""Activation patching: put one part's activations from one run into another, and see how much of the answer comes along.

:func:`patch_sweep` does it for every head (or every site) in turn, several of them in one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.activations import Activations
from interp.edits import Edit, ablate, patch
from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from interp.tokens import Tokens

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["MODES", "PatchResult", "patch_sweep"]

Mode = Literal["denoise", "noise", "mean"]
MODES = ("denoise", "noise", "mean")
Metric = Callable[[Tensor], Tensor]

_SAID = {
    "denoise": "clean activations put into the corrupted run; (patched - corrupted) / (clean - corrupted)",
    "noise": "corrupted activations put into the clean run; (clean - patched) / (clean - corrupted)",
    "mean": "the part replaced by its mean over the clean runs; (clean - patched) / (clean - corrupted)",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PatchResult(Result):
    """``value`` [component]: the share of the metric's gap that each part carries; 1 is all of it.

    ``chance`` is the effect of putting in the same part's activations from another example, where that was asked for.
    """

    components: tuple[str, ...]
    """The site (with its head where it has one) of each value."""
    patched: np.ndarray
    """[component, example] the metric of every patched run."""
    clean: np.ndarray
    """[example]"""
    corrupted: np.ndarray
    """[example]"""
    control: np.ndarray | None = None
    """[component] as ``value``, with the activations of another example."""
    control_interval: np.ndarray | None = None
    mode: str

    @property
    def sites(self) -> tuple[Site, ...]:
        """The components as Sites."""
        return tuple(Site.parse(name) for name in self.components)

    def grid(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """The effects of heads as a matrix [layer, head] with its labels; blank (nan) where a layer has fewer heads."""
        heads = [(site.layer, site.head, i) for i, site in enumerate(self.sites) if site.head is not None]
        if not heads:
            raise InputError("no component of this sweep is a head; use .value or .to_frame()")
        layers = sorted({layer for layer, _, _ in heads if layer is not None})
        n_heads = max(head for _, head, _ in heads if head is not None) + 1
        matrix = np.full((len(layers), n_heads), np.nan)
        for layer, head, i in heads:
            matrix[layers.index(layer), head] = np.asarray(self.value)[i]
        return matrix, tuple(f"layer {layer}" for layer in layers), tuple(f"head {h}" for h in range(n_heads))

    def plot(self) -> go.Figure:
        """Heads as a layer x head map; anything else as bars with their intervals."""
        from circuits import plots

        if all(site.head is not None for site in self.sites):
            matrix, layers, heads = self.grid()
            return plots.head_map(matrix, layers=layers, heads=heads, title=self.name)
        ends = self.interval
        return plots.effect_bars(self.ticks[0], np.asarray(self.value), low=None if ends is None else ends[:, 0],
                                 high=None if ends is None else ends[:, 1], title=self.name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """The runs between which activations are moved."""

    model: Any
    metric: Metric
    base: Any
    """Tokens of the run that is patched."""
    source: Activations
    """What is put there."""
    mode: str
    position: Any
    batch_size: int

    def scores(self, components: Sequence[Site], n: int, source: Activations) -> np.ndarray:
        """[component, example] the metric with each component replaced, several components a pass."""
        at_once = max(1, self.batch_size // n)
        out = []
        for start in range(0, len(components), at_once):
            group = components[start : start + at_once]
            index = torch.arange(n).repeat(len(group))
            edits = [self._edit(site, source, index, range(i * n, (i + 1) * n)) for i, site in enumerate(group)]
            logits = self.model.logits(_select(self.base, index), edits=edits, batch_size=self.batch_size)
            per_row = [_scored(self.metric, part) for part in logits.split(n)]  # the metric sees the examples in their order
            out.append(torch.stack(per_row))
        return torch.cat(out).numpy()

    def _edit(self, site: Site, source: Activations, index: Tensor, rows: range) -> Edit:
        whole = site.whole
        if self.mode == "mean":
            return ablate(whole, how="mean", reference=source, over="position", head=site.head, row=rows, position=self.position)
        value = source[whole]
        return patch(whole, value[index.to(value.device)], head=site.head, row=rows, position=self.position)


def patch_sweep(model: Any, clean: Any, corrupted: Any, metric: Metric, *, sites: Any = None, mode: Mode = "denoise",
                position: int | Sequence[int] | Literal["last"] | None = None, control: bool = False, batch_size: int = 32, n_draws: int = 1000, seed: int = 0,
                progress: bool = False) -> PatchResult:
    """The effect of patching every head (or site) by itself.

    Parameters
    ----------
    model
        A model of the toolkit.
    clean, corrupted
        Tokens (or what the model takes) of the same shape; row i of both are one pair, the same length in tokens.
    metric
        logits -> one number per example, e.g. the logit difference at the last position. It is called with all
        examples in their order, so it may index answers by row.
    sites
        Names, globs or Sites; a site with heads is taken head by head. By default every head's ``z``; without heads
        what each layer's attention, mixer and MLP write; without those every site that is listed.
    mode
        ``"denoise"``: clean into corrupted. ``"noise"``: corrupted into clean. ``"mean"``: mean over the clean runs
        (at each position) into clean.
    position
        Patch only there (``"last"``: each row's last real token); at all positions by default.
    control
        Also patch in the activations of another example, which should carry nothing (doubles the cost).
    batch_size
        Rows a forward pass; components are batched as far as they fit.
    n_draws
        Bootstrap draws over examples for the interval of the ratio of means.

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

    Notes
    -----
    Cost: components x examples forward passes of one example (twice with ``control``), and two for the ends. Effects
    of single parts need not add up to 1: parts can be redundant, or work only together.

    References
    ----------
    Zhang & Nanda 2024, "Towards best practices of activation patching".
    """
    if mode not in MODES:
        raise InputError(f"mode={mode!r}; it is one of {list(MODES)}")
    n = _paired(clean, corrupted)
    components = _components(model, sites)
    ends = [_scored(metric, model.logits(tokens, batch_size=batch_size)).numpy() for tokens in (clean, corrupted)]
    if any(len(end) != n for end in ends):
        raise InputError(f"the metric gave {[len(e) for e in ends]} numbers for {n} examples; it must give one per example")
    giver, taker = (clean, corrupted) if mode == "denoise" else (corrupted, clean)
    wholes = list(dict.fromkeys(site.whole for site in components))
    source = model.capture(clean if mode == "mean" else giver, wholes, batch_size=batch_size)
    plan = _Plan(model=model, metric=metric, base=taker, source=source, mode=mode, position=position, batch_size=batch_size)
    patched = _swept(plan, components, n, source, progress)
    foreign = _swept(plan, components, n, _shifted(source, n), progress) if control and n >= 3 and mode != "mean" else None
    return _result(components, patched, foreign, ends, mode, n_draws=n_draws, seed=seed, provenance=_origin(model, seed))


def _swept(plan: _Plan, components: Sequence[Site], n: int, source: Activations, shown: bool) -> np.ndarray:
    from interp.progress import progress

    at_once = max(1, plan.batch_size // n)
    starts = range(0, len(components), at_once)
    parts = [plan.scores(components[s : s + at_once], n, source)
             for s in progress(starts, total=len(starts), desc="patching", unit="pass", enabled=None if shown else False)]
    return np.concatenate(parts)


def _result(components: Sequence[Site], patched: np.ndarray, foreign: np.ndarray | None, ends: Sequence[np.ndarray], mode: str, *,
            n_draws: int, seed: int, provenance: dict[str, Any]) -> PatchResult:
    names = tuple(str(site) for site in components)
    clean, corrupted = ends
    gap = clean - corrupted
    spread = gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else 0.0
    lost = abs(gap.mean()) <= 1e-9 * (np.abs(clean).mean() + np.abs(corrupted).mean() + 1e-30)
    reason = None
    if lost:
        reason = f"the metric is the same on clean and corrupted runs ({clean.mean():.4g}): there is no gap to share out"
    elif len(gap) > 1 and abs(gap.mean()) < 2 * spread:
        reason = f"the gap between clean and corrupted, {gap.mean():.3g} ± {spread:.2g}, is hardly distinguishable from 0"
    value, stderr, interval = _ratio(_change(patched, ends, mode), gap, n_draws=n_draws, seed=seed, lost=lost)
    other = None if foreign is None else _ratio(_change(foreign, ends, mode), gap, n_draws=n_draws, seed=seed, lost=lost)
    return PatchResult(
        name="patching effect", value=value, stderr=stderr, interval=interval, n=len(gap), reason=reason, mode=mode,
        convention=f"{_SAID[mode]}; ratio of means over examples; interval: bootstrap over examples",
        chance=0.0 if other is None else other[0], axes=("component",), ticks=(names,),
        components=names, patched=patched, clean=clean, corrupted=corrupted,
        control=None if other is None else other[0], control_interval=None if other is None else other[2],
        provenance=provenance,
    )


def _change(patched: np.ndarray, ends: Sequence[np.ndarray], mode: str) -> np.ndarray:
    clean, corrupted = ends
    return patched - corrupted if mode == "denoise" else clean - patched


def _ratio(change: np.ndarray, gap: np.ndarray, *, n_draws: int, seed: int, lost: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean change over mean gap [component], its bootstrap standard error and 95% interval over examples."""
    if lost:
        nothing = np.full(len(change), np.nan)
        return nothing, nothing, np.full((len(change), 2), np.nan)
    value = change.mean(1) / gap.mean()
    weights = np.random.default_rng(seed).multinomial(len(gap), np.full(len(gap), 1 / len(gap)), size=n_draws)
    drawn_gap = weights @ gap
    usable = np.abs(drawn_gap) > 1e-9 * np.abs(gap).sum()
    drawn = (weights[usable] @ change.T) / drawn_gap[usable, None]
    return value, drawn.std(0), np.quantile(drawn, [0.025, 0.975], axis=0).T


def _components(model: Any, sites: Any) -> list[Site]:
    """The asked sites, those with heads head by head."""
    found = model.find(sites) if sites is not None else _default_sites(model)
    out: list[Site] = []
    for site in found:
        if site.head is None and site.head_axis is not None:
            out.extend(replace(site, head=head) for head in range(_n_heads(model, site)))
        else:
            out.append(site)
    return out


def _n_heads(model: Any, site: Site) -> int:
    attn = model.anatomy.blocks[site.layer].attn
    return attn.n_kv_heads if site.kind in ("k", "rot_k", "v") else attn.n_heads


def _default_sites(model: Any) -> tuple[Site, ...]:
    for kinds in (("z",), ("attn_out", "mixer_out", "mlp_out")):
        found = tuple(site for site in model.sites if site.kind in kinds and site.whole not in model.inert)
        if found:
            return found
    return tuple(model.sites)


def _paired(clean: Any, corrupted: Any) -> int:
    """How many pairs there are; refuses pairs that do not line up token by token."""
    shapes = [list(t.ids.shape) if isinstance(t, Tokens) else list(t.shape) if isinstance(t, Tensor) else None for t in (clean, corrupted)]
    if None in shapes:
        raise InputError("clean and corrupted must be Tokens or tensors of ids; make them with model.tokens([...])")
    if shapes[0] != shapes[1]:
        raise InputError(f"clean has shape {shapes[0]} and corrupted {shapes[1]}; row i of both is one pair, token by token")
    if isinstance(clean, Tokens) and isinstance(corrupted, Tokens):
        uneven = torch.nonzero((clean.mask != corrupted.mask).any(1)).flatten()
        if len(uneven):
            raise InputError(f"pair {int(uneven[0])} has {int(clean.lengths[uneven[0]])} clean and "
                             f"{int(corrupted.lengths[uneven[0]])} corrupted tokens; patching needs pairs of one length")
    return shapes[0][0]


def _scored(metric: Metric, logits: Tensor) -> Tensor:
    """The metric's numbers [example] in float64."""
    scores = metric(logits)
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the metric returned {got}; it must give one number per example [batch]")
    return scores.detach().double().cpu()


def _select(tokens: Any, index: Tensor) -> Any:
    return tokens.select(index) if isinstance(tokens, Tokens) else tokens[index]


def _shifted(source: Activations, n: int) -> Activations:
    """The activations with every row from another example, half the set away."""
    tensors = {site: value.roll(max(2, n // 2) % n or 1, dims=0) for site, value in source.tensors.items()}
    return Activations(tensors=tensors, mask=source.mask, positions=source.positions, provenance=source.provenance)


def _origin(model: Any, seed: int) -> dict[str, Any]:
    return {"model": model.name, "backend": model.backend, "seed": seed}
