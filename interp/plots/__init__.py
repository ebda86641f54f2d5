"""Plots: arrays and labels in, a plotly figure out; nothing is computed, shown or written.

The only package of ``interp`` that imports plotly, and only when a figure is asked for.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CONFIG": "theme",
        "PALETTE": "theme",
        "Series": "charts",
        "bars": "charts",
        "heatmap": "charts",
        "lens_grid": "layers",
        "lines": "charts",
        "of_result": "result_chart",
        "phases": "layers",
        "profile": "layers",
        "spectrum": "layers",
        "styled": "theme",
    },
)
