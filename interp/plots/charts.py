"""Three figures that carry most results: a heatmap, lines with bands, bars with whiskers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from interp.errors import InputError
from interp.escaping import figure_text
from interp.plots.theme import DIVERGING, GREY, PALETTE, SEQUENTIAL, band, short, styled

__all__ = ["Series", "bars", "heatmap", "lines"]

Numbers = Sequence[float | int] | np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """One curve: its values, and the ends of its band where it has one."""

    name: str
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    baseline: bool = False
    """Drawn grey and dashed: a control or a chance level."""


def heatmap(
    z: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    x_title: str = "",
    y_title: str = "",
    unit: str = "",
    diverging: bool = False,
    span: tuple[float, float] | None = None,
    spread: np.ndarray | None = None,
    hover: Sequence[Sequence[str]] | None = None,
) -> go.Figure:
    """A matrix [row, column] as colours; the first row at the top.

    ``diverging``: a two-sided scale centred on 0. ``spread``: standard errors shown on hover. ``hover``: any text per
    cell, shown as it is. nan cells stay blank.
    """
    z = np.asarray(z, dtype=float)
    if z.shape != (len(rows), len(columns)):
        raise InputError(
            f"a matrix of shape {list(z.shape)} was given {len(rows)} row and {len(columns)} column labels"
        )
    low, high = span if span is not None else _limits(z, diverging)
    extra = [[""] * z.shape[1] for _ in range(z.shape[0])]
    if spread is not None:
        extra = [
            [f" ± {s:.2g}" if np.isfinite(s) else "" for s in line]
            for line in np.asarray(spread, dtype=float)
        ]
    if hover is not None:
        extra = [
            [f"{e} {figure_text(h)}" for e, h in zip(es, hs, strict=True)]
            for es, hs in zip(extra, hover, strict=True)
        ]
    trace = go.Heatmap(
        z=z,
        x=[figure_text(short(c)) for c in columns],
        y=[figure_text(short(r)) for r in rows],
        zmin=low,
        zmax=high,
        colorscale=DIVERGING if diverging else SEQUENTIAL,
        colorbar={"title": {"text": unit}, "thickness": 14},
        customdata=extra,
        hovertemplate="%{y} | %{x}<br>%{z:.4g}%{customdata}<extra></extra>",
        hoverongaps=False,
    )
    figure = styled(go.Figure(trace), title=title, x_title=x_title, y_title=y_title)
    figure.update_xaxes(type="category", showgrid=False)
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def lines(
    x: Sequence[str] | Numbers,
    series: Sequence[Series],
    *,
    title: str = "",
    x_title: str = "",
    y_title: str = "",
    y_span: tuple[float, float] | None = None,
) -> go.Figure:
    """Curves over the same ``x`` (numbers, or names such as sites), each with its band."""
    named = len(x) > 0 and isinstance(x[0], str)
    ticks = [figure_text(short(str(v))) for v in x] if named else list(x)
    figure, colours = go.Figure(), iter(PALETTE * (len(series) // len(PALETTE) + 1))
    for one in series:
        colour = GREY if one.baseline else next(colours)
        if one.low is not None and one.high is not None:
            figure.add_trace(
                go.Scatter(
                    x=[*ticks, *reversed(ticks)],
                    y=[*np.asarray(one.high), *np.asarray(one.low)[::-1]],
                    fill="toself",
                    fillcolor=band(colour),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    name=figure_text(one.name),
                )
            )
        figure.add_trace(
            go.Scatter(
                x=ticks,
                y=np.asarray(one.y, dtype=float),
                mode="lines" if one.baseline or len(ticks) > 60 else "lines+markers",
                name=figure_text(one.name),
                line={
                    "color": colour,
                    "width": 1.5 if one.baseline else 2.2,
                    "dash": "dash" if one.baseline else None,
                },
                hovertemplate="%{x}<br>%{y:.4g}<extra>" + figure_text(one.name) + "</extra>",
            )
        )
    styled(figure, title=title, x_title=x_title, y_title=y_title)
    if named:
        figure.update_xaxes(type="category")
    return figure.update_yaxes(range=list(y_span)) if y_span is not None else figure


def bars(
    labels: Sequence[str],
    values: Numbers,
    *,
    low: Numbers | None = None,
    high: Numbers | None = None,
    baseline: float | None = None,
    baseline_name: str = "chance",
    muted: int = 0,
    title: str = "",
    x_title: str = "",
    y_title: str = "",
) -> go.Figure:
    """One bar a label, with whiskers from ``low`` to ``high`` (none where nan) and a dashed line at ``baseline``.

    The last ``muted`` bars are grey: what the others are compared with.
    """
    values = np.asarray(values, dtype=float)
    names = [figure_text(short(str(name))) for name in labels]
    figure, split = go.Figure(), len(values) - muted
    for part, colour in ((slice(0, split), PALETTE[0]), (slice(split, None), GREY)):
        # a trace of their own for the grey ones: plotly draws a whisker of nought where an end is missing
        ends = None if low is None or high is None else (np.asarray(low)[part], np.asarray(high)[part])
        whiskers = None if ends is None or not np.isfinite(ends).any() else _whiskers(values[part], *ends)
        if len(names[part]):
            figure.add_trace(
                go.Bar(
                    x=names[part],
                    y=values[part],
                    error_y=whiskers,
                    marker={"color": colour},
                    showlegend=False,
                    hovertemplate="%{x}<br>%{y:.4g}<extra></extra>",
                )
            )
    styled(figure, title=title, x_title=x_title, y_title=y_title).update_xaxes(type="category")
    if baseline is not None:
        figure.add_hline(
            y=baseline, line={"dash": "dash", "color": GREY}, annotation_text=figure_text(baseline_name)
        )
    return figure


def _whiskers(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": high - values,
        "arrayminus": values - low,
        "color": "#444444",
        "thickness": 1.2,
    }


def _limits(z: np.ndarray, diverging: bool) -> tuple[float, float]:
    finite = z[np.isfinite(z)]
    if not finite.size:
        return 0.0, 1.0
    if diverging:
        reach = float(np.abs(finite).max()) or 1.0
        return -reach, reach
    return float(finite.min()), float(finite.max())
