"""Reading a user's own pairs: the layouts, the real files, and every unusable row by its number."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from interp import tasks
from interp.errors import InputError
from tests.interp.pieces import Pieces


def table(path: Path, *rows: dict) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


GOOD = {
    "clean": "The cats near me",
    "corrupted": "The cat near me",
    "answer": "are",
    "wrong": "is",
    "kind": "pp",
}


def test_a_table_becomes_a_task(tmp_path: Path) -> None:
    task = tasks.read(
        table(tmp_path / "mine.csv", GOOD, GOOD | {"clean": "A dog", "corrupted": "A cat"}),
        tokenizer=Pieces(),
    )
    assert (task.name, task.measure, len(task)) == ("mine", "logit_difference", 2)
    assert task.clean.strings[0] == ["<bos>", "The", " cats", " near", " me"]
    assert task.to_frame()[["answer", "wrong"]].to_numpy().tolist() == [[[" are"], [" is"]]] * 2
    assert task.facts[0] == {"row": 1, "kind": "pp"}
    assert task.provenance["skipped"] == []


def test_lists_of_answers_columns_of_any_name_and_no_wrong_ones(tmp_path: Path) -> None:
    row = {"p": "a b", "q": "a c", "right": ["d", " e"]}
    columns = {"clean": "p", "corrupted": "q", "answer": "right"}
    task = tasks.read(lines(tmp_path / "x.jsonl", row), tokenizer=Pieces(), columns=columns)
    assert (task.measure, task.wrong.shape) == ("log_probability", (1, 0))
    assert task.to_frame()["answer"][0] == [" d", " e"]
    csv_row = {"p": "a b", "q": "a c", "right": '["d", "e"]'}
    same = tasks.read(table(tmp_path / "x.csv", csv_row), tokenizer=Pieces(), columns=columns)
    assert same.describe()["prompts_sha256"] == task.describe()["prompts_sha256"]
    bare = tasks.read(
        lines(tmp_path / "y.jsonl", row | {"right": "."}), tokenizer=Pieces(), columns=columns, space=False
    )
    assert bare.to_frame()["answer"][0] == ["."]


BAD = {
    "uneven": (GOOD | {"corrupted": "The cat near"}, r"row 2: clean has 4 tokens and corrupted 3: \[' cats'"),
    "same": (GOOD | {"corrupted": GOOD["clean"]}, "row 2: clean and corrupted are the same"),
    "empty": (GOOD | {"answer": " "}, "row 2: cell 'answer' is empty"),
    "long": (GOOD | {"answer": "were not"}, r"row 2: answer ' were not' is 2 tokens \(' were', ' not'\)"),
    "tied": (GOOD | {"wrong": " are"}, "row 2: answer ' are' is also a wrong one"),
    "none": (GOOD | {"wrong": "[]"}, "row 2: cell 'wrong' holds no text"),
    "list": (GOOD | {"wrong": "[is"}, "row 2: cell 'wrong' begins like a list and is none"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_an_unusable_row_is_named_or_skipped_and_counted(case: str, tmp_path: Path) -> None:
    row, message = BAD[case]
    path = table(tmp_path / "a.csv", GOOD, row)
    with pytest.raises(
        InputError, match=rf"1 of 2 rows cannot be used; on_error='skip' leaves them out\n{message}"
    ):
        tasks.read(path, tokenizer=Pieces())
    kept = tasks.read(path, tokenizer=Pieces(), on_error="skip")
    assert len(kept) == 1
    assert len(kept.describe()["skipped"]) == 1
    assert kept.describe()["skipped"][0].startswith("row 2: ")


def test_all_unusable_rows_are_in_one_error_and_a_file_of_nothing_else_is_never_skipped(
    tmp_path: Path,
) -> None:
    rows = [row for row, _ in BAD.values()]
    with pytest.raises(InputError) as refusal:
        tasks.read(table(tmp_path / "a.csv", *rows), tokenizer=Pieces(), on_error="skip")
    told = str(refusal.value).splitlines()
    assert told[0].endswith("7 of 7 rows cannot be used")
    assert [line.split(":")[0] for line in told[1:]] == [f"row {i}" for i in range(1, 8)]
    with pytest.raises(InputError, match=r"\.\.\. and 15 more$"):
        tasks.read(table(tmp_path / "b.csv", *rows * 5), tokenizer=Pieces())


def test_lines_that_are_no_rows_are_reported_like_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps(GOOD)
        + '\n{"clean"\n3\n\n'
        + json.dumps({"clean": "a", "corrupted": 5, "answer": "b", "wrong": "c"})
        + "\n"
        + '{"clean": "a b", "corrupted": "a c", "wrong": "d"}\n'
    )
    with pytest.raises(InputError, match="4 of 5 rows") as refusal:
        tasks.read(path, tokenizer=Pieces())
    for part in (
        "row 2: not JSON",
        "row 3: a row is a JSON object, got int",
        "row 4: cell 'corrupted' is no text",
        "row 5: there is no 'answer'",
    ):
        assert part in str(refusal.value)
    path = tmp_path / "a.csv"
    path.write_text("clean,corrupted,answer\na b,a c,d\na b,a c\na b,a c,d,e\n")
    with pytest.raises(InputError, match="1 cells fewer.*\n.*1 cells more"):
        tasks.read(path, tokenizer=Pieces())


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", "x", {}, "'a.txt': pairs of prompts are read from .csv"),
        ("a.csv", "", {}, "has no rows"),
        ("a.csv", "clean,clean\n1,2\n", {}, "'clean' more than once"),
        ("a.csv", "clean,corrupt\na,b\n", {}, "none of them is known to hold 'answer'"),
        (
            "a.csv",
            "clean,corrupt\na,b\n",
            {"columns": {"answer": "corupt"}},
            "no column 'corupt'; did you mean 'corrupt'",
        ),
        (
            "a.csv",
            "clean,corrupt\na,b\n",
            {"columns": {"answr": "clean"}},
            "the role 'answr'; did you mean 'answer'",
        ),
        ("a.csv", b"clean,corrupted,answer\na,\xff,b\n", {}, "is not UTF-8"),
        ("a.csv", 'clean,corrupted,answer\n"a"b,c,d\n', {}, "behind line 1: not CSV"),
        ("a.csv", "clean,corrupted,answer\na,b,c\n", {"on_error": "ignore"}, "it is 'raise' or 'skip'"),
        (
            "a.csv",
            "clean,corrupted,answer\na,b,c\n",
            {"measure": "logit_difference"},
            "pair 0 has no wrong answer",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content, options, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        tasks.read(tmp_path / name, tokenizer=Pieces(), **options)
    with pytest.raises(InputError, match="no file"):
        tasks.read(tmp_path / "absent.csv", tokenizer=Pieces())


def test_years_are_judged_by_the_prompt_and_not_by_the_label_alone(tmp_path: Path) -> None:
    row = {
        "clean": "From the year 1404 to the year 14",
        "corrupted": "From the year 1401 to the year 14",
        "label": "4",
    }
    task = tasks.read(table(tmp_path / "a.csv", row), tokenizer=Pieces())
    assert (task.name, task.measure) == ("greater_than", "probability_difference")
    frame = task.to_frame()
    assert frame["answer"][0] == [f"{y:02}" for y in range(5, 100)]
    assert frame["wrong"][0] == [f"{y:02}" for y in range(5)]
    bad = [row | {"label": "5"}, row | {"clean": row["clean"][:-2] + "15"}, row | {"clean": "in the year 14"}]
    with pytest.raises(InputError) as refusal:
        tasks.read(table(tmp_path / "b.csv", *bad), tokenizer=Pieces())
    for part in (
        "row 1: label '5' does not fit the prompt, which has the year 1404",
        "row 2: the prompt does not end in the century 14",
        "row 3: label '4' does not fit the prompt, which has no year",
    ):
        assert part in str(refusal.value)


def test_the_indirect_object_is_read_off_the_names_and_the_indices_are_not_used(tmp_path: Path) -> None:
    row = {
        "clean": "Then, Ann and Tom sat down. Tom gave a pen to",
        "corrupted": "Then, Ann and Tom sat down. Bob gave a pen to",
        "correct_idx": "7",
        "incorrect_idx": "8",
    }
    task = tasks.read(table(tmp_path / "a.csv", row), tokenizer=Pieces())
    assert (task.name, task.texts[0]) == ("ioi", (row["clean"], row["corrupted"]))
    assert task.to_frame()[["answer", "wrong", "order"]].to_numpy().tolist() == [[[" Ann"], [" Tom"], "ABBA"]]
    assert "correct_idx" not in task.facts[0]
    unclear = [
        row | {"clean": "Then Ann sat"},
        row | {"clean": row["clean"] + " Ann or"},
        row | {"clean": "Ann and Tom sat"},
    ]
    with pytest.raises(InputError) as refusal:
        tasks.read(table(tmp_path / "b.csv", *unclear), tokenizer=Pieces())
    for part in (
        "row 1: there are no two names",
        "row 2: of Ann and Tom, both",
        "row 3: of Ann and Tom, neither",
    ):
        assert part in str(refusal.value)


@pytest.fixture(scope="module")
def gpt2(shared: Path):
    from interp.models import hf

    return hf.load_tokenizer(shared / "tokenizers" / "gpt2")


def test_the_real_years_load(shared: Path, gpt2) -> None:
    path = shared / "tasks" / "greater_than" / "greater_than_data.csv"
    task = tasks.read(path, tokenizer=gpt2)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(task) == len(rows) == 1000
    for row, answers in zip(rows, task.answers.tolist(), strict=True):
        assert {gpt2.decode([i]) for i in answers if i >= 0} == {
            f"{y:02}" for y in range(int(row["label"]) + 1, 100)
        }


def test_the_real_indirect_objects_load_whatever_their_indices(shared: Path, gpt2) -> None:
    path = shared / "tasks" / "ioi" / "ioi.csv"
    task = tasks.read(path, tokenizer=gpt2)
    assert len(task) == 499
    assert task.to_frame()[["answer", "wrong"]].iloc[0].tolist() == [[" Amber"], [" Aaron"]]
    hard = tasks.read(path, tokenizer=gpt2, columns={"corrupted": "corrupted_hard"})
    for (clean, corrupted), fact in zip(hard.texts, hard.facts, strict=True):
        assert (clean.count(fact["s"]), corrupted.count(fact["s"])) == (2, 1)


@pytest.mark.parametrize("name", ["simple_train", "nounpp_train"])
def test_the_real_agreement_pairs_load_and_the_misaligned_ones_are_named(
    shared: Path, gpt2, name: str
) -> None:
    path = shared / "tasks" / "sva" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    length = lambda text: len(gpt2([text], add_special_tokens=False)["input_ids"][0])  # noqa: E731
    uneven = [
        i for i, row in enumerate(rows, 1) if length(row["clean_prefix"]) != length(row["patch_prefix"])
    ]
    with pytest.raises(InputError, match=f"{len(uneven)} of {len(rows)} rows cannot be used") as refusal:
        tasks.read(path, tokenizer=gpt2)
    assert f"row {uneven[0]}: clean has" in str(refusal.value)
    task = tasks.read(path, tokenizer=gpt2, on_error="skip")
    assert (task.name, len(task)) == ("sva", len(rows) - len(uneven))
    assert [int(told.split(":")[0].removeprefix("row ")) for told in task.describe()["skipped"]] == uneven
    kept = [row for i, row in enumerate(rows, 1) if i not in uneven]
    answers = [[gpt2.decode(row) for row in ids.tolist()] for ids in (task.answers, task.wrong)]
    assert answers == [[row["clean_answer"] for row in kept], [row["patch_answer"] for row in kept]]
