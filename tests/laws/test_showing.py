"""Laws of what is handed out: a short line, a table that no token escapes from, a tidy frame, a figure."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from interp.results import Result
from interp.showing import Shown, brief, table_html
from tests.hostile import HOSTILE, alive, nodes_of_html, terminal_orders
from tests.public import public_classes, results
from tests.specimens import EXEMPT, made, specimens

NAMES = sorted(specimens())
KINDS = results()
LISTS = {"Task"}
"""Its answers are a list a row, as it takes them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specimens")


def assert_line(line: str) -> None:
    assert 0 < len(line) < 400, line
    assert terminal_orders(line) == [], line
    assert "tensor(" not in line
    assert "array(" not in line


def assert_shown(one: Any) -> None:
    assert_line(repr(one))
    table = one._repr_html_()
    table.encode("utf-8")
    if table.startswith("<iframe"):
        (tag, held), *others = nodes_of_html(table)[0]
        assert (tag, held["sandbox"], others) == ("iframe", "allow-scripts", [])
        return
    assert alive(table) == []
    tags, shown = nodes_of_html(table)
    assert {tag for tag, _ in tags} <= {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert terminal_orders(shown) == []
    assert len(table) < 60_000


def assert_tidy(frame: pd.DataFrame) -> None:
    assert isinstance(frame, pd.DataFrame)
    assert all(isinstance(name, str) for name in frame.columns)
    assert len(set(frame.columns)) == len(frame.columns)
    assert isinstance(frame.index, pd.RangeIndex)
    for name in frame.columns:
        assert all(np.ndim(value) == 0 for value in frame[name].head(5)), name


def test_every_class_that_is_handed_out_has_a_specimen_or_a_reason() -> None:
    missing = {
        f"{one.__module__}.{one.__name__}": why
        for one, why in public_classes().items()
        if not issubclass(one, Result) and one.__name__ not in {*NAMES, *EXEMPT}
    }
    assert missing == {}
    assert len(public_classes()) > 90


def test_no_class_that_shows_itself_prints_its_fields_whole() -> None:
    """A dataclass makes itself a repr of all its fields unless it is told not to."""
    shown = [one for one in public_classes() if issubclass(one, Shown)]
    made_of = {one: inspect.unwrap(one.__repr__).__code__.co_filename for one in (*shown, *KINDS)}
    assert [one for one, file in made_of.items() if not file.endswith(".py")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_specimen_says_itself_in_a_line_and_a_table(folder: Path, name: str) -> None:
    one = specimens()[name](folder / name)
    assert type(one).__name__ == name or name in {base.__name__ for base in type(one).__mro__}
    assert_shown(one)
    if hasattr(one, "to_frame") and name not in LISTS:
        assert_tidy(one.to_frame())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_result_of_any_kind_says_itself_and_is_a_tidy_table(kind: type[Result]) -> None:
    for n_axes in (0, 1, 2) if kind.__name__ not in NAMES else ():
        one = made(kind, n_axes)
        if kind.to_frame is not Result.to_frame:  # its own table wants fields that fit each other
            assert_line(repr(one))
        else:
            assert_shown(one)
            assert_tidy(one.to_frame())
            assert len(one.to_frame()) == max(1, (2, 6)[n_axes - 1] if n_axes else 1)
        if kind.plot is Result.plot:
            figure = one.plot()
            assert isinstance(figure, go.Figure)
            assert not set("<>") & set(str(figure.layout.title.text))


def test_what_holds_numbers_by_name_or_place_has_a_table() -> None:
    """Results, and the other classes that hold measurements."""
    without = [
        one.__name__ for one in public_classes() if issubclass(one, Shown) and not hasattr(one, "to_frame")
    ]
    measured = [
        name for name in without if name.endswith(("Scores", "Result", "Reading", "Run", "Trace", "Codes"))
    ]
    assert measured == []


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_labels_values_and_cells_stay_text(text: str) -> None:
    frame = pd.DataFrame({"t": pd.Series([text], dtype=object)}).astype(object)
    frame.columns = pd.Index([text], dtype=object)
    table = table_html(text, {text: text, "all": {text: [text]}}, frame)
    assert alive(table) == []
    shown = nodes_of_html(table)[1]
    assert terminal_orders(shown) == []
    assert brief(text).strip() in shown


def test_a_value_is_said_briefly_whatever_it_is() -> None:
    assert brief(torch.zeros(3, 4, dtype=torch.float16)) == "float16 [3, 4]"
    assert brief(np.zeros((2, 0))) == "float64 [2, 0]"
    assert brief(torch.tensor(1.5)) == "1.5"
    assert brief({"a": 1.0, "b": None}) == "a 1, b \N{EN DASH}"
    assert brief(list(range(1000))) == "1000 (0, 1, 2, ...)"
    assert brief([np.zeros(3)] * 5) == "5 of ndarray"
    assert brief("x" * 1000) == "x" * 77 + "..."
    assert brief(torch.nn.Linear(2, 2)) == "Linear"
    assert brief(object()) == "object"
    assert (brief(None), brief(True), brief({}), brief([])) == ("\N{EN DASH}", "yes", "none", "none")


def test_a_dataclass_says_its_fields_and_hides_what_it_was_told_to() -> None:
    @dataclasses.dataclass(frozen=True, repr=False)
    class Thing(Shown):
        a: int
        b: Any = dataclasses.field(default=None, repr=False)

    assert repr(Thing(a=3, b=torch.zeros(9))) == "Thing(a: 3)"
    assert "<th" in Thing(a=3)._repr_html_()
    assert repr(Shown()) == "Shown()"
