"""Figures of layers draw what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import InputError
from interp.plots import lens_grid, phases, profile, spectrum

SITES = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]


def test_a_profile_has_its_band_and_its_baseline() -> None:
    figure = profile(
        SITES, {"rank": ([1.0, 2.0, 3.0], [0.1, 0.1, 0.2])}, baselines={"random_init": [3, 3, 3]}
    )
    band, curve, grey = figure.data
    assert list(curve.y) == [1, 2, 3]
    assert max(band.y) == pytest.approx(3 + 1.96 * 0.2)
    assert grey.line.dash == "dash"
    assert curve.x[2] == "1 resid_post"


def test_a_spectrum_is_drawn_with_its_power_law() -> None:
    values = 5 * np.arange(1, 51) ** -1.5
    figure = spectrum({"layer": values[::-1]}, fits={"layer": (1.5, 11, 40)})
    np.testing.assert_allclose(figure.data[0].y, values)
    np.testing.assert_allclose(figure.data[1].y, values[10:40])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    with pytest.raises(InputError, match="runs over ranks 11..99 of 50"):
        spectrum({"layer": values}, fits={"layer": (1.5, 11, 99)})


def test_phases_are_relative_to_their_largest() -> None:
    figure = phases([1, 10, 100], {"RankMe": [4.0, 2.0, 8.0], "alpha": [-1.0, -2.0, -1.5]})
    assert list(figure.data[0].y) == [0.5, 0.25, 1.0]
    assert list(figure.data[1].y) == [-0.5, -1.0, -0.75]
    assert figure.layout.xaxis.type == "log"
    assert phases([0, 10], {"x": [1.0, 2.0]}, log_steps=False).layout.xaxis.type != "log"


def test_step_nought_stands_before_the_first_and_runs_of_one_phase_are_shaded_once() -> None:
    named = ["compression", "expansion", "expansion", "level"]
    figure = phases([0, 40, 80, 200, 400], {"RankMe": [4.0, 1.0, 2.0, 3.0, 3.0]}, named=named)
    assert list(figure.data[0].x) == [20, 40, 80, 200, 400]
    assert list(figure.layout.xaxis.ticktext) == ["0", "40", "80", "200", "400"]
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(20, 40), (40, 200), (200, 400)]
    assert [a.text for a in figure.layout.annotations] == ["compression", "expansion", "level"]
    assert [10**a.x for a in figure.layout.annotations] == pytest.approx([20, 40, 200])
    with pytest.raises(InputError, match="1 names for the 2 intervals of 3 steps"):
        phases([1, 2, 3], {"x": [1.0, 1.0, 1.0]}, named=["level"])


def test_a_lens_grid_writes_tokens_as_data_with_the_last_layer_on_top() -> None:
    shade = np.arange(6.0).reshape(3, 2)
    said = [["a", "b"], ["<b>", "d"], ["e", "f"]]
    figure = lens_grid(shade, said=said, words=["x", "x"], sites=SITES, unit="nats")
    np.testing.assert_array_equal(figure.data[0].z, shade[::-1])
    assert len(set(figure.data[0].x)) == 2  # the same word twice is two columns
    assert "&lt;b&gt;" in {a.text for a in figure.layout.annotations}
    with pytest.raises(InputError, match="3 sites and 1 tokens"):
        lens_grid(shade, said=said, words=["x"], sites=SITES)
