"""SAE figures: arrays in, a plotly figure out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from interp.plots import Series, bars, lines
from interp.plots.theme import styled

__all__ = ["density_chart", "effect_chart", "fvu_chart", "training_chart"]


def training_chart(step: np.ndarray, fvu: np.ndarray, dead: np.ndarray, *, title: str = "") -> go.Figure:
    """FVU of the training batch and the share of dead latents over the steps."""
    series = [Series(name="FVU (training batch)", y=fvu), Series(name="dead latents", y=dead)]
    return lines(
        np.asarray(step), series, title=title, x_title="step", y_title="fraction", y_span=(0.0, 1.02)
    )


def fvu_chart(
    names: Sequence[str],
    fvu: np.ndarray,
    *,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    title: str = "",
) -> go.Figure:
    """Fraction of variance unexplained, the coder beside its baselines; lower is better."""
    return bars(
        list(names),
        fvu,
        low=low,
        high=high,
        muted=len(names) - 1,
        title=title,
        y_title="FVU, held out (lower is better)",
    )


def density_chart(density: np.ndarray, *, title: str = "") -> go.Figure:
    """How many latents fire how often, on a logarithmic scale; those that never fire are not drawn."""
    firing = np.log10(density[density > 0])
    trace = go.Histogram(
        x=firing, nbinsx=40, marker={"color": "#0072B2"}, hovertemplate="10^%{x}: %{y} latents<extra></extra>"
    )
    return styled(
        go.Figure(trace),
        title=title,
        x_title="log10 of the share of tokens a latent fires on",
        y_title="latents",
    )


def effect_chart(
    amounts: np.ndarray,
    effect: np.ndarray,
    middle: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    title: str = "",
    unit: str = "effect",
) -> go.Figure:
    """Effect of steering by amount, beside that of random latents (median, and a band about it)."""
    series = [
        Series(name="this latent", y=effect),
        Series(name="random latents", y=middle, low=low, high=high),
    ]
    return lines(amounts, series, title=title, x_title="amount, in units of the code", y_title=unit)
