"""The figure that fits a Result's shape, from the arrays and labels it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from interp.errors import InputError
from interp.plots.charts import Series, bars, heatmap, lines

if TYPE_CHECKING:
    from interp.results import Result

__all__ = ["of_result"]


def of_result(result: Result) -> go.Figure:
    """A bar for a number, a line with its band for one axis, a heatmap for two.

    Raises
    ------
    InputError
        The value has more than two axes: slice it, or draw a table of ``result.to_frame()``.
    """
    value = np.asarray(result.value, dtype=float)
    title = f"{result.name} (n = {result.n})"
    low, high = _ends(result, value)
    if value.ndim == 0:
        baseline = None if result.chance is None else float(np.mean(result.chance))
        ends = (None, None) if low is None or high is None else ([float(low)], [float(high)])
        return bars([result.name], [float(value)], low=ends[0], high=ends[1], baseline=baseline, title=title)
    if value.ndim == 1:
        series = [Series(name=result.name, y=value, low=low, high=high)]
        if result.chance is not None:
            series.append(
                Series(
                    name="chance",
                    y=np.broadcast_to(np.asarray(result.chance, dtype=float), value.shape),
                    baseline=True,
                )
            )
        return lines(result.ticks[0], series, title=title, x_title=result.axes[0], y_title=result.name)
    if value.ndim == 2:
        spread = (
            None
            if result.stderr is None
            else np.broadcast_to(np.asarray(result.stderr, dtype=float), value.shape)
        )
        finite = value[np.isfinite(value)]
        return heatmap(
            value,
            rows=result.ticks[0],
            columns=result.ticks[1],
            title=title,
            y_title=result.axes[0],
            x_title=result.axes[1],
            spread=spread,
            diverging=bool(finite.size and finite.min() < -0.1 * finite.max()),
        )
    raise InputError(
        f"a result with {value.ndim} axes {list(result.axes)} has no one figure; take a slice of it, or its to_frame()"
    )


def _ends(result: Result, value: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    if result.interval is not None:
        return result.interval[..., 0], result.interval[..., 1]
    if result.stderr is not None:
        reach = 1.96 * np.asarray(result.stderr, dtype=float)
        return value - reach, value + reach
    return None, None
