"""Results: tables, files and the errors of files that are not results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from interp.errors import InputError, StoreError
from interp.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Extended(Result):
    """A result with more fields, as the packages above define them."""

    raw: np.ndarray
    parts: dict[str, np.ndarray]
    nothing: None = None


def matrix() -> Result:
    return Result(
        name="likeness",
        value=np.array([[1.0, 0.5], [0.5, 1.0]]),
        stderr=np.full((2, 2), 0.1),
        n=7,
        convention="test",
        chance=0.0,
        axes=("site", "site"),
        ticks=(("a", "b"), ("a", "b")),
        provenance={"seed": 3, "d": [2, 2]},
    )


def test_a_result_survives_its_file_with_every_field(tmp_path: Path) -> None:
    result = Extended(
        name="x",
        value=float("nan"),
        n=4,
        convention="c",
        reason="nothing there",
        interval=np.array([float("-inf"), 1.0]),
        raw=np.arange(6, dtype=np.int64).reshape(2, 3),
        parts={"left": np.ones(2, dtype=np.float32)},
    )
    loaded = Result.load(result.save(tmp_path / "folder" / "x.safetensors"))
    assert isinstance(loaded, Extended)
    assert np.isnan(loaded.value)
    assert loaded.reason == "nothing there"
    assert loaded.nothing is None
    np.testing.assert_array_equal(loaded.interval, result.interval)
    assert loaded.raw.dtype == np.int64
    np.testing.assert_array_equal(loaded.raw, result.raw)
    np.testing.assert_array_equal(loaded.parts["left"], result.parts["left"])


def test_a_result_without_arrays_survives_too(tmp_path: Path) -> None:
    loaded = Result.load(Result(name="x", value=0.25, n=4, convention="c").save(tmp_path / "x"))
    assert (loaded.value, loaded.n, loaded.axes) == (0.25, 4, ())


def test_a_matrix_becomes_one_row_a_cell_with_its_labels() -> None:
    frame = matrix().to_frame()
    assert list(frame.columns) == ["site", "site_2", "value", "stderr", "chance", "n"]
    assert len(frame) == 4
    assert frame.set_index(["site", "site_2"]).loc[("a", "b"), "value"] == 0.5


def test_a_repr_is_short_and_says_n_and_the_convention() -> None:
    assert repr(matrix()) == "likeness: 2 site x 2 site, 0.5 to 1 (n = 7; test)"
    single = Result(name="rank", value=3.0, stderr=0.25, n=9, convention="c", chance=1.0)
    assert repr(single) == "rank = 3 ± 0.25 (n = 9, chance 1; c)"


def test_html_shows_names_as_text() -> None:
    page = Result(name="<script>alert(1)</script>", value=0.5, n=1, convention="<b>")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_result_draws_itself_whatever_its_shape(shape: tuple[int, ...]) -> None:
    ticks = tuple(tuple(f"{axis}{i}" for i in range(size)) for axis, size in zip("ab", shape, strict=False))
    result = Result(
        name="x",
        value=np.ones(shape) if shape else 1.0,
        n=2,
        convention="c",
        axes=tuple("ab"[: len(shape)]),
        ticks=ticks,
    )
    assert result.plot().to_plotly_json()["data"]


def test_three_axes_have_no_one_figure() -> None:
    result = Result(
        name="x", value=np.ones((2, 2, 2)), n=2, convention="c", axes=("a", "b", "c"), ticks=(("1", "2"),) * 3
    )
    with pytest.raises(InputError, match="3 axes"):
        result.plot()


def test_a_field_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="provenance.when.*object"):
        Result(name="x", value=1.0, n=1, convention="c", provenance={"when": object()}).save(tmp_path / "x")


def test_a_missing_a_foreign_and_a_torn_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no result at"):
        Result.load(tmp_path / "none")
    save_file({"x": np.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(StoreError, match="no result file"):
        Result.load(tmp_path / "foreign.safetensors")
    whole = matrix().save(tmp_path / "m").read_bytes()
    (tmp_path / "torn").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="torn"):
        Result.load(tmp_path / "torn")


def test_a_result_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = matrix().save(tmp_path / "m")
    with pytest.raises(StoreError, match=r"holds a 'interp.Result', not a"):
        Extended.load(path)
