"""The look of every figure: colour-blind-safe colours, one layout, no change to plotly's global template."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from interp.escaping import figure_text

__all__ = ["CONFIG", "DIVERGING", "GREY", "PALETTE", "SEQUENTIAL", "band", "short", "styled"]

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "lasso2d", "select2d"],
    "responsive": True,
}
"""Plotly's page configuration: no logo, and no button that sends data away."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's colours, told apart under every common colour blindness."""

GREY = "#767676"
"""Baselines, chance levels and controls: there, but not the finding."""

SEQUENTIAL = "Cividis"
DIVERGING = "PuOr"

_AXIS = {
    "showline": True,
    "linecolor": "#999999",
    "gridcolor": "#e8e8e8",
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#999999",
    "automargin": True,
}


def styled(figure: go.Figure, *, title: str = "", x_title: str = "", y_title: str = "") -> go.Figure:
    """Give ``figure`` the house layout (in place) and return it."""
    figure.update_layout(
        template=go.layout.Template(),
        colorway=list(PALETTE),
        title={"text": figure_text(title), "x": 0.0, "xanchor": "left", "font": {"size": 15}}
        if title
        else None,
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": "#222222"},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        margin={"l": 60, "r": 20, "t": 48 if title else 24, "b": 48},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0.0},
        hoverlabel={"font": {"family": "ui-monospace, monospace", "size": 11}},
    )
    figure.update_xaxes(title_text=figure_text(x_title), **_AXIS)
    figure.update_yaxes(title_text=figure_text(y_title), **_AXIS)
    return figure


def band(colour: str, opacity: float = 0.18) -> str:
    """``colour`` (#rrggbb) as a translucent fill."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def short(name: str) -> str:
    """A site's hook name, short enough for an axis: ``blocks.3.hook_resid_post`` -> ``3 resid_post``."""
    layer, _, rest = name.removeprefix("blocks.").partition(".")
    if not name.startswith("blocks.") or not layer.isdigit():
        return name.removeprefix("hook_")
    return f"{layer} {rest.replace('hook_', '')}"
