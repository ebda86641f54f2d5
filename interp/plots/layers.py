"""Figures of layers: a profile with band and baseline, an eigen-spectrum with its fit, phases of training, a lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp.errors import InputError
from interp.escaping import figure_text
from interp.plots.charts import Numbers, Series, heatmap, lines
from interp.plots.theme import GREY, PALETTE, band, short, styled

__all__ = ["lens_grid", "phases", "profile", "spectrum"]


def profile(
    sites: Sequence[str],
    curves: Mapping[str, tuple[Numbers, Numbers | None]],
    *,
    baselines: Mapping[str, Numbers] | None = None,
    title: str = "",
    y_title: str = "",
) -> go.Figure:
    """Quantities by layer: each curve its values and standard errors (band: 95%), baselines grey and dashed."""
    series = []
    for name, (value, error) in curves.items():
        y = np.asarray(value, dtype=float)
        reach = None if error is None else 1.96 * np.asarray(error, dtype=float)
        ends = (None, None) if reach is None else (y - reach, y + reach)
        series.append(Series(name=name, y=y, low=ends[0], high=ends[1]))
    series += [Series(name=name, y=y, baseline=True) for name, y in (baselines or {}).items()]
    return lines(list(sites), series, title=title, x_title="site", y_title=y_title)


def spectrum(
    eigenvalues: Mapping[str, Numbers],
    *,
    fits: Mapping[str, tuple[float, int, int]] | None = None,
    title: str = "Eigenvalues of the covariance",
) -> go.Figure:
    """Eigenvalues by rank on two logarithmic axes; ``fits``: name -> (exponent, first rank, last rank) of its line."""
    figure = go.Figure()
    for i, (name, values) in enumerate(eigenvalues.items()):
        y = np.sort(np.asarray(values, dtype=float))[::-1]
        y = y[y > 0]
        rank = np.arange(1, len(y) + 1)
        colour = PALETTE[i % len(PALETTE)]
        line = {"color": colour, "width": 2}
        figure.add_trace(go.Scatter(x=rank, y=y, mode="lines", name=figure_text(short(name)), line=line))
        if fits and name in fits:
            a, first, last = fits[name]
            if not 1 <= first < last <= len(y):
                raise InputError(f"the fit of {name!r} runs over ranks {first}..{last} of {len(y)}")
            inside = rank[first - 1 : last].astype(float)
            middle = np.exp(np.mean(np.log(y[first - 1 : last]) + a * np.log(inside)))
            figure.add_trace(
                go.Scatter(
                    x=inside, y=middle * inside**-a, mode="lines", name=f"i^-{a:.2f}",
                    line={"color": colour, "width": 1.5, "dash": "dash"},
                )
            )  # fmt: skip
    styled(figure, title=title, x_title="rank i", y_title="eigenvalue")
    figure.update_xaxes(type="log")
    return figure.update_yaxes(type="log")


def phases(
    steps: Sequence[str | float],
    curves: Mapping[str, Numbers],
    *,
    named: Sequence[str] | None = None,
    title: str = "",
    y_title: str = "relative to the largest",
    relative: bool = True,
    log_steps: bool = True,
) -> go.Figure:
    """Quantities over training, by default each divided by its largest size so that phases can be compared.

    ``named``: the name of each interval between two steps; intervals of one name are shaded alike, and a run of them
    carries its name. On a logarithmic axis step 0 stands at half the first step after it.
    """
    x = [float(s) for s in steps]
    if named is not None and len(named) != len(x) - 1:
        raise InputError(f"{len(named)} names for the {len(x) - 1} intervals of {len(x)} steps")
    later = [s for s in x if s > 0]
    log_steps = log_steps and bool(later) and min(x) >= 0
    shown = [s or min(later) / 2 for s in x] if log_steps else x
    series = []
    for name, values in curves.items():
        y = np.asarray(values, dtype=float)
        top = np.nanmax(np.abs(y)) if relative else 1.0
        series.append(Series(name=name, y=y / (top or 1.0)))
    figure = lines(shown, series, title=title, x_title="training step", y_title=y_title if relative else "")
    shades = dict(zip(dict.fromkeys(named or ()), PALETTE[::-1], strict=False))
    for start, stop, name in _runs(named or ()):
        figure.add_vrect(
            x0=shown[start], x1=shown[stop], fillcolor=band(shades[name]), line_width=0, layer="below"
        )
        at = (
            float(np.log10(shown[start])) if log_steps else shown[start]
        )  # of annotations plotly asks the exponent
        figure.add_annotation(
            x=at,
            y=1,
            yref="paper",
            xanchor="left",
            yanchor="top",
            text=figure_text(name),
            showarrow=False,
            font_size=10,
        )
    if log_steps:
        ticks = {"tickvals": shown, "ticktext": [f"{s:g}" for s in x]}
        figure.update_xaxes(type="log", **(ticks if len(x) <= 16 else {}))
    return figure


def _runs(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first, end, name) of each run of equal names."""
    edges = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return [(i, j, names[i]) for i, j in zip(edges, [*edges[1:], len(names)], strict=False)]


def lens_grid(
    shade: np.ndarray,
    *,
    said: Sequence[Sequence[str]],
    words: Sequence[str],
    sites: Sequence[str],
    title: str = "",
    unit: str = "",
) -> go.Figure:
    """Token by layer: ``shade`` [site, pos] as colours, ``said`` [site][pos] in the cells, the last layer on top."""
    z = np.asarray(shade, dtype=float)
    if z.shape != (len(sites), len(words)):
        raise InputError(f"shade is {list(z.shape)} for {len(sites)} sites and {len(words)} tokens")
    columns = [f"{i} {word}" for i, word in enumerate(words)]  # the same word twice is two columns
    figure = heatmap(
        z[::-1], rows=list(sites)[::-1], columns=columns, title=title, unit=unit, x_title="token", y_title="site",
        hover=[list(row) for row in reversed(said)],
    )  # fmt: skip
    middle = np.nanmean(z) if np.isfinite(z).any() else 0.0
    for i, row in enumerate(said):
        for j, word in enumerate(row):
            if word and np.isfinite(z[i, j]):
                figure.add_annotation(
                    x=figure_text(columns[j]), y=figure_text(short(str(sites[i]))),
                    text=figure_text(word.strip()[:10] or word),
                    showarrow=False, font={"size": 10, "color": "#000000" if z[i, j] > middle else "#ffffff"},
                )  # fmt: skip
    return figure.update_layout(plot_bgcolor="#ffffff", modebar={"color": GREY})
