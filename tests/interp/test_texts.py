"""Reading texts: what is accepted, and what each refusal says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.errors import InputError
from interp.stores.texts import read_texts


def test_json_lines_give_their_field_or_the_string_itself(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one\\ntwo", "id": 1}\n\n"three"\n{"text": "fïve"}\n', encoding="utf-8")
    assert list(read_texts(file)) == ["one\ntwo", "three", "fïve"]
    assert list(read_texts(file, limit=2)) == ["one\ntwo", "three"]


def test_blank_lines_part_the_texts_of_a_plain_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a line\nanother\n\n\n  \nthe second\n", encoding="utf-8")
    assert list(read_texts(file)) == ["a line\nanother", "the second"]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('"good"\nthis line is no JSON\n', encoding="utf-8")
    assert list(read_texts(file, limit=1)) == ["good"]


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        (b'"a"\n{"text"', "text", "line 2: not JSON"),
        (b'{"txet": "a"}\n', "text", "line 1: no field 'text' among ['txet']; did you mean 'txet'?"),
        (b'{"text": 3}\n', "text", "line 1: a text is a string, got int"),
        (b'{"text": "  "}\n', "text", "line 1: the text is empty"),
        (b"", "text", "holds no text"),
        (b'"a\xff\xfe"\n', "text", "is not UTF-8"),
    ],
)
def test_a_bad_file_is_refused_with_the_line(
    tmp_path: Path, content: bytes, field: str, message: str
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        list(read_texts(file, field=field))
    assert message in str(refusal.value)
    assert str(file) in str(refusal.value)


def test_a_missing_file_a_folder_and_a_bad_limit_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text file"):
        read_texts(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="it is a folder"):
        read_texts(tmp_path)
    with pytest.raises(InputError, match="got limit=0"):
        read_texts(tmp_path, limit=0)


def test_the_shared_stories_are_read(shared: Path) -> None:
    file = shared / "corpora" / "tinystories.jsonl"
    stories = list(read_texts(file))
    assert len(stories) == 500
    assert stories[0] == json.loads(file.read_text(encoding="utf-8").splitlines()[0])["text"]
