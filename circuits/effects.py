"""Effects: from patched metrics to the share of the gap that each part carries, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.components import Component
from interp.errors import InputError
from interp.results import Result
from interp.sites import Site

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["PatchResult", "shared_out"]

_SAID = {
    "denoise": "clean activations put into the corrupted run; (patched - corrupted) / (clean - corrupted)",
    "noise": "corrupted activations put into the clean run; (clean - patched) / (clean - corrupted)",
    "zero": "the part replaced by zero in the clean run; (clean - patched) / (clean - corrupted)",
    "mean": "the part replaced by its mean over the clean runs; (clean - patched) / (clean - corrupted)",
    "resample": "the part replaced by another clean example's; (clean - patched) / (clean - corrupted)",
    "optimal": (
        "the part replaced by the constant that costs least (divergence of the output, learned on these examples); "
        "(clean - patched) / (clean - corrupted)"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PatchResult(Result):
    """``value`` [component]: the share of the metric's gap that each part carries; 1 is all of it.

    ``chance`` is the effect of putting in the same part's activations from another example, where that was asked for.
    """

    components: tuple[str, ...]
    """The site of each value, with its head; ``@`` the position and ``#`` the neuron, where they were taken singly."""
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
        """The components' Sites."""
        return tuple(Component.parse(name).site for name in self.components)

    def by_position(self) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
        """The effects of a sweep with ``position="each"`` as a matrix [component, position] with its labels."""
        parsed = [Component.parse(name) for name in self.components]
        columns = sorted({p for c in parsed if isinstance(p := c.position, int)})
        if not columns:
            raise InputError("this sweep did not go position by position: patch_sweep(..., position='each')")
        rows = dict.fromkeys(str(replace(c, position=None)) for c in parsed)
        matrix = np.full((len(rows), len(columns)), np.nan)
        at = {name: i for i, name in enumerate(rows)}
        for component, value in zip(parsed, np.asarray(self.value), strict=True):
            assert isinstance(component.position, int)
            matrix[at[str(replace(component, position=None))], columns.index(component.position)] = value
        return matrix, tuple(rows), tuple(columns)

    def grid(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """The effects of heads as a matrix [layer, head] with its labels; blank (nan) where a layer has fewer heads."""
        value = np.asarray(self.value)
        heads = {
            (site.layer, site.head): value[i]
            for i, site in enumerate(self.sites)
            if site.head is not None and site.layer is not None
        }
        if not heads:
            raise InputError("no component of this sweep is a head; use .value or .to_frame()")
        if len(heads) < sum(site.head is not None for site in self.sites):
            raise InputError("heads were taken apart further: use .by_position() or .to_frame()")
        layers = sorted({layer for layer, _ in heads})
        n_heads = max(head for _, head in heads) + 1
        matrix = np.full((len(layers), n_heads), np.nan)
        for (layer, head), effect in heads.items():
            matrix[layers.index(layer), head] = effect
        return matrix, tuple(f"layer {layer}" for layer in layers), tuple(f"head {h}" for h in range(n_heads))

    def plot(self) -> go.Figure:
        """Heads as a layer x head map; anything else as bars with their intervals."""
        from circuits import plots

        if "@" in "".join(self.components):
            matrix, rows, columns = self.by_position()
            labels = tuple(str(column) for column in columns)
            return plots.head_map(matrix, layers=rows, heads=labels, title=self.name)
        single = len(set(self.sites)) == len(self.sites)
        heads_only = all(site.head is not None for site in self.sites)
        if single and heads_only and len({site.kind for site in self.sites}) == 1:
            matrix, layers, heads = self.grid()
            return plots.head_map(matrix, layers=layers, heads=heads, title=self.name)
        ends = self.interval
        return plots.effect_bars(
            self.ticks[0],
            np.asarray(self.value),
            low=None if ends is None else ends[:, 0],
            high=None if ends is None else ends[:, 1],
            title=self.name,
        )


def shared_out(
    components: Sequence[Component],
    patched: np.ndarray,
    foreign: np.ndarray | None,
    ends: Sequence[np.ndarray],
    mode: str,
    *,
    n_draws: int,
    seed: int,
    provenance: dict[str, Any],
) -> PatchResult:
    """The effects of patched runs [component, example] between the metric's two ends (clean, corrupted) [example].

    ``foreign``: the same runs with another example's activations, if they were made. Where the ends do not differ
    every effect is nan, with the reason.
    """
    names = tuple(str(component) for component in components)
    clean, corrupted = ends
    gap = clean - corrupted
    spread = gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else 0.0
    lost = bool(abs(gap.mean()) <= 1e-9 * (np.abs(clean).mean() + np.abs(corrupted).mean() + 1e-30))
    reason = None
    if lost:
        same = f"the metric is the same on clean and corrupted runs ({clean.mean():.4g})"
        reason = f"{same}: there is no gap to share out"
    elif len(gap) > 1 and abs(gap.mean()) < 2 * spread:
        between = f"{gap.mean():.3g} ± {spread:.2g}"
        reason = f"the gap between clean and corrupted, {between}, is hardly distinguishable from 0"
    value, stderr, interval = _ratio(_change(patched, ends, mode), gap, n_draws=n_draws, seed=seed, lost=lost)
    other = None
    if foreign is not None:
        other = _ratio(_change(foreign, ends, mode), gap, n_draws=n_draws, seed=seed, lost=lost)
    return PatchResult(
        name="patching effect",
        value=value,
        stderr=stderr,
        interval=interval,
        n=len(gap),
        reason=reason,
        mode=mode,
        convention=f"{_SAID[mode]}; ratio of means over examples; interval: bootstrap over examples",
        chance=0.0 if other is None else other[0],
        axes=("component",),
        ticks=(names,),
        components=names,
        patched=patched,
        clean=clean,
        corrupted=corrupted,
        control=None if other is None else other[0],
        control_interval=None if other is None else other[2],
        provenance=provenance,
    )


def _change(patched: np.ndarray, ends: Sequence[np.ndarray], mode: str) -> np.ndarray:
    clean, corrupted = ends
    return patched - corrupted if mode == "denoise" else clean - patched


def _ratio(
    change: np.ndarray, gap: np.ndarray, *, n_draws: int, seed: int, lost: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
