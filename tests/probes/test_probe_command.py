"""`interp probe`, and labels of one's own: placed where the file says, refused by line where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import interp
from interp.errors import InputError
from interp.results import Result
from probes.command import register
from probes.labelled import read_labels


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return interp.load("mini")


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_labels_stand_on_the_token_or_span_that_the_file_names(model: interp.Model, tmp_path: Path) -> None:
    text = "Alice gave the ball to Bob"
    rows = [
        {"text": text, "start": 0, "end": 5, "label": "name"},
        {"text": text, "token": 3, "label": "thing"},
        {"text": text, "label": "name"},
    ]
    read = read_labels(model, written(tmp_path / "own.jsonl", rows))
    assert read.classes == ("name", "thing")
    got = {read.tokens.strings[0][i].strip(): int(c) for i, c in enumerate(read.labels[0]) if c >= 0}
    assert got == {"Alice": 0, "ball": 1, "Bob": 0}
    table = pd.DataFrame(rows).astype(object).where(lambda x: x.notna(), "")
    table.to_csv(tmp_path / "own.csv", index=False)
    for column in ("start", "end", "token"):  # numbers that a spreadsheet wrote
        table[column] = [str(int(v)) if v != "" else "" for v in table[column]]
    table.to_csv(tmp_path / "own.csv", index=False)
    assert read_labels(model, tmp_path / "own.csv").labels.equal(read.labels)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Alice gave", "label": ""}, "line 2: no 'label'"),
        ({"txet": "Alice gave", "label": "a"}, "line 2: no 'text'; did you mean 'txet'"),
        (
            {"text": "Alice gave", "token": 9, "label": "a"},
            "line 2: token 9 lies outside the text's 2 tokens",
        ),
        ({"text": "Alice gave", "token": "x", "label": "a"}, "line 2: token = 'x' is no whole number"),
        (
            {"text": "Alice gave", "start": 4, "end": 99, "label": "a"},
            "span 4-99 lies outside the text of 10",
        ),
        ({"text": "Alice gave", "start": 4, "label": "a"}, "line 2: a span needs both"),
        ({"text": "Alice", "label": "b"}, "line 2: the same token is 'a' in an earlier line and 'b' here"),
        ({"text": "Alice gave", "label": "a"}, "every row the label 'a'"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(
    model: interp.Model, tmp_path: Path, row: dict, message: str
) -> None:
    path = written(tmp_path / "own.jsonl", [{"text": "Alice", "label": "a"}, row])
    with pytest.raises(InputError, match=message):
        read_labels(model, path)


def test_a_file_that_is_no_table_is_refused(model: interp.Model, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{oops\n[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1: not JSON .*; line 2: not an object"):
        read_labels(model, tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("text,label\nAlice\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: another number of fields"):
        read_labels(model, tmp_path / "a.csv")
    with pytest.raises(InputError, match="no file"):
        read_labels(model, tmp_path / "b.csv")


def run(*arguments: str):
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)  # with one command typer takes no name
    return CliRunner().invoke(app, ["probe", *arguments])


def test_the_command_writes_a_table_figures_and_results(tmp_path: Path) -> None:
    out = tmp_path / "found"
    ran = run(
        "induction", "--out", str(out), "--method", "lda", "--max-tokens", "1500", "--n-seeds", "1", "--json"
    )
    assert ran.exit_code == 0, ran.output
    table = pd.read_csv(out / "probes.csv")
    assert {"label", "site", "accuracy", "majority", "selectivity"} <= set(table)
    assert isinstance(Result.load(out / "label-0.safetensors"), Result)
    assert (out / "probes.html").stat().st_size > 10_000


def test_an_unknown_label_is_refused_with_those_there_are(tmp_path: Path) -> None:
    ran = run("group:C59", "--out", str(tmp_path), "--label", "anwser")
    assert ran.exit_code == 1
    assert "did you mean 'answer'" in str(ran.exception)
