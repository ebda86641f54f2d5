"""Figures: what is drawn is what was given, tokens stay text, and nothing global changes."""

from __future__ import annotations

import numpy as np
import plotly.io as pio
import pytest

from interp.errors import InputError
from interp.plots import CONFIG, Series, bars, heatmap, lines


def test_no_figure_changes_the_global_template() -> None:
    before = pio.templates.default
    lines([1, 2], [Series(name="a", y=[0.1, 0.2])])
    assert pio.templates.default == before


def test_the_page_configuration_has_no_logo_and_sends_nothing_away() -> None:
    assert CONFIG["displaylogo"] is False
    assert "sendChartToCloud" in CONFIG["modeBarButtonsToRemove"]


def test_a_heatmap_holds_its_matrix_and_centres_a_two_sided_scale() -> None:
    z = np.array([[0.1, -0.4], [0.2, np.nan]])
    trace = heatmap(
        z, rows=["r0", "r1"], columns=["c0", "c1"], diverging=True, spread=np.full((2, 2), 0.01)
    ).data[0]
    np.testing.assert_array_equal(np.asarray(trace.z, dtype=float), z)
    assert (trace.zmin, trace.zmax) == (-0.4, 0.4)
    assert trace.customdata[0][0] == " ± 0.01"


def test_a_heatmap_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="2 row and 1 column labels"):
        heatmap(np.zeros((2, 2)), rows=["a", "b"], columns=["c"])


def test_lines_draw_a_band_and_grey_baselines() -> None:
    figure = lines(
        ["blocks.0.hook_resid_post", "b"],
        [Series(name="a", y=[1, 2], low=[0, 1], high=[2, 3]), Series(name="none", y=[0, 0], baseline=True)],
    )
    assert [trace.name for trace in figure.data] == ["a", "a", "none"]
    assert list(figure.data[0].y) == [2, 3, 1, 0]
    assert figure.data[1].x[0] == "0 resid_post"
    assert figure.data[2].line.dash == "dash"


def test_bars_put_whiskers_where_the_ends_are() -> None:
    bar = bars(["a"], [0.5], low=[0.4], high=[0.7], baseline=0.1).data[0]
    assert bar.error_y.array[0] == pytest.approx(0.2)
    assert bar.error_y.arrayminus[0] == pytest.approx(0.1)


def test_names_are_data_and_never_markup() -> None:
    hostile = "<b onclick=x>&"
    for figure in (
        bars([hostile], [1.0]),
        lines([hostile], [Series(name=hostile, y=[1.0])]),
        heatmap(np.ones((1, 1)), rows=[hostile], columns=[hostile]),
    ):
        assert "<b onclick" not in str(figure.to_plotly_json()["data"])
