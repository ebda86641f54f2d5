"""Circuit figures: arrays in, a plotly figure out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from interp.plots import Series, bars, heatmap, lines

__all__ = ["effect_bars", "head_map", "ladder_chart"]


def head_map(
    effect: np.ndarray,
    *,
    layers: Sequence[str],
    heads: Sequence[str],
    spread: np.ndarray | None = None,
    title: str = "",
) -> go.Figure:
    """The effect of every head [layer, head] on a two-sided scale."""
    return heatmap(
        effect, rows=layers, columns=heads, title=title, unit="effect", diverging=True, spread=spread
    )


def effect_bars(
    names: Sequence[str],
    effect: np.ndarray,
    *,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    baseline: float | None = None,
    title: str = "",
) -> go.Figure:
    """The effect of every part, with its interval."""
    return bars(
        list(names),
        effect,
        low=low,
        high=high,
        baseline=baseline,
        baseline_name="all of the gap",
        title=title,
        y_title="share of the gap",
    )


def ladder_chart(
    names: Sequence[str], effect: np.ndarray, interval: np.ndarray | None, *, title: str = ""
) -> go.Figure:
    """How much of the gap the residual stream carries at each site, with its band."""
    ends = (None, None) if interval is None else (interval[:, 0], interval[:, 1])
    series = [Series(name="residual stream, last position", y=effect, low=ends[0], high=ends[1])]
    return lines(list(names), series, title=title, x_title="site", y_title="share of the gap")
