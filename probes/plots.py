"""Probe figures: arrays in, a plotly figure out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from interp.plots import Series, lines

__all__ = ["sweep_chart"]


def sweep_chart(
    sites: Sequence[str],
    accuracy: np.ndarray,
    interval: np.ndarray | None,
    *,
    control: np.ndarray | None = None,
    shuffled: np.ndarray | None = None,
    majority: float | None = None,
    title: str = "",
) -> go.Figure:
    """Accuracy over sites with its band; control task, shuffled labels and majority class in grey."""
    ends = (None, None) if interval is None else (interval[:, 0], interval[:, 1])
    series = [Series(name="probe", y=accuracy, low=ends[0], high=ends[1])]
    if control is not None:
        series.append(Series(name="control task (random label per word type)", y=control))
    if shuffled is not None:
        series.append(Series(name="shuffled labels", y=shuffled, baseline=True))
    figure = lines(list(sites), series, title=title, x_title="site", y_title="held-out accuracy")
    if majority is not None:
        figure.add_hline(
            y=majority,
            line={"dash": "dot", "color": "#222222", "width": 1.2},
            annotation_text="majority class",
            annotation_position="top left",
        )
    return figure
