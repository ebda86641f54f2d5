"""Probe figures: arrays in, a plotly figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp.plots import Series, heatmap, lines

__all__ = ["curve_chart", "dose_chart", "prefix_chart", "sweep_chart", "transfer_chart"]


def sweep_chart(
    sites: Sequence[str],
    accuracy: np.ndarray,
    interval: np.ndarray | None,
    *,
    control: np.ndarray | None = None,
    shuffled: np.ndarray | None = None,
    majority: float | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> go.Figure:
    """Accuracy over sites with its band; control task, shuffled labels and majority class in grey."""
    ends = (None, None) if interval is None else (interval[:, 0], interval[:, 1])
    series = [Series(name="probe", y=accuracy, low=ends[0], high=ends[1])]
    if control is not None:
        series.append(Series(name="control task (random label per word type)", y=control))
    if shuffled is not None:
        series.append(Series(name="shuffled labels", y=shuffled, baseline=True))
    for name, accuracy_there in (baselines or {}).items():
        series.append(Series(name=name.replace("_", " "), y=accuracy_there))
    figure = lines(list(sites), series, title=title, x_title="site", y_title="held-out accuracy")
    if majority is not None:
        figure.add_hline(
            y=majority,
            line={"dash": "dot", "color": "#222222", "width": 1.2},
            annotation_text="majority class",
            annotation_position="top left",
        )
    return figure


def transfer_chart(sites: Sequence[str], accuracy: np.ndarray, *, title: str = "") -> go.Figure:
    """Accuracy of the probe of each row's site, used at each column's site."""
    return heatmap(
        accuracy,
        rows=sites,
        columns=sites,
        title=title,
        y_title="fitted at",
        x_title="used at",
        unit="accuracy",
    )


def curve_chart(
    sites: Sequence[str], sizes: Sequence[int], accuracy: np.ndarray, *, title: str = ""
) -> go.Figure:
    """Held-out accuracy over the number of training rows, a line a site."""
    series = [Series(name=site, y=row) for site, row in zip(sites, accuracy, strict=True)]
    figure = lines(list(sizes), series, title=title, x_title="training rows", y_title="held-out accuracy")
    return figure.update_xaxes(type="log")


def dose_chart(
    doses: Sequence[float], effect: np.ndarray, controls: np.ndarray, *, title: str = ""
) -> go.Figure:
    """Effect over dose, with the 2.5% to 97.5% band of random directions [control, dose]."""
    low, middle, high = np.quantile(controls, [0.025, 0.5, 0.975], axis=0)
    series = [
        Series(name="probe's direction", y=effect),
        Series(name="random directions", y=middle, low=low, high=high, baseline=True),
    ]
    return lines(
        list(doses), series, title=title, x_title="dose (mean residual norms)", y_title="change of the metric"
    )


def prefix_chart(
    sizes: Sequence[int],
    accuracy: np.ndarray,
    interval: np.ndarray | None,
    *,
    others: Mapping[str, np.ndarray],
    adaptive: tuple[np.ndarray, np.ndarray],
    majority: float,
    title: str = "",
) -> go.Figure:
    """Accuracy over the size of a prefix with its band and its controls; the adaptive reader at its mean size."""
    ends = (None, None) if interval is None else (interval[:, 0], interval[:, 1])
    series = [Series(name="prefix", y=accuracy, low=ends[0], high=ends[1])]
    series += [Series(name=name, y=values, baseline=True) for name, values in others.items()]
    figure = lines(list(sizes), series, title=title, x_title="coordinates", y_title="held-out accuracy")
    figure.add_scatter(x=adaptive[0], y=adaptive[1], mode="markers", name="until sure (mean size)")
    figure.add_hline(y=majority, line={"dash": "dot", "color": "#222222", "width": 1.2})
    return figure.update_xaxes(type="log")
