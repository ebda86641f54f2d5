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
    assert phases([0, 10], {"x": [1.0, 2.0]}).layout.xaxis.type != "log"


def test_a_lens_grid_writes_tokens_as_data_with_the_last_layer_on_top() -> None:
    shade = np.arange(6.0).reshape(3, 2)
    said = [["a", "b"], ["<b>", "d"], ["e", "f"]]
    figure = lens_grid(shade, said=said, words=["x", "x"], sites=SITES, unit="nats")
    np.testing.assert_array_equal(figure.data[0].z, shade[::-1])
    assert len(set(figure.data[0].x)) == 2  # the same word twice is two columns
    assert "&lt;b&gt;" in {a.text for a in figure.layout.annotations}
    with pytest.raises(InputError, match="3 sites and 1 tokens"):
        lens_grid(shade, said=said, words=["x"], sites=SITES)
