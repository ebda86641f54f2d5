"""Files are whole or absent, lines are whole or reported, and every failure names the path."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import InputError, StoreError
from interp.runs import files
from interp.runs.files import JsonLines, write_bytes_atomic, write_json_atomic
from interp.runs.progress import EventLog, progress, stop_on_interrupt
from interp.runs.provenance import provenance, versions


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 kB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "a", b"old")
    write_bytes_atomic(tmp_path / "a", b"new and longer")
    assert (tmp_path / "a").read_bytes() == b"new and longer"
    assert names(tmp_path) == ["a"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), files.atomic_file(tmp_path / "a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_a_store_error_and_leaves_nothing_half_written(small_disk: Path) -> None:
    write_bytes_atomic(small_disk / "a", b"old")
    with pytest.raises(StoreError, match=r"disk full while writing .*/a: .* free; .*still whole"):
        write_bytes_atomic(small_disk / "a", bytes(10**6))
    assert (small_disk / "a").read_bytes() == b"old"
    assert names(small_disk) == ["a"]


def test_a_full_disk_leaves_a_log_as_it_was(small_disk: Path) -> None:
    lines = JsonLines(small_disk / "log.jsonl")
    lines.append({"n": 1})
    with pytest.raises(StoreError, match="disk full"):
        lines.append({"long": "x" * 10**6})
    assert lines.read().records == ({"n": 1},)
    assert lines.read().torn == ""


def test_a_full_disk_is_told_without_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk full while writing"):
        write_json_atomic(tmp_path / "a.json", {})
    with pytest.raises(StoreError, match="disk full while writing"):
        JsonLines(tmp_path / "b.jsonl").append({})
    assert names(tmp_path) == ["b.jsonl"]
    assert (tmp_path / "b.jsonl").read_bytes() == b""


def test_space_is_asked_for_with_both_figures(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"not enough disk space at .*: the harvest needs 1000\.0 TB, .* are free"
    ):
        files.require_space(tmp_path / "not" / "yet", 10**15, what="the harvest")
    files.require_space(tmp_path, 1)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_folder_that_may_not_be_written_to_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match=r"cannot write to folder .*; choose a folder that you may write to"):
        files.ensure_folder(tmp_path)


def test_a_folder_under_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make folder .*Not a directory"):
        files.ensure_folder(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a\0b", "é", "a" * 200, "/etc/passwd", "a b"]
)
def test_a_name_that_could_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="unsafe file name"):
        files.inside(tmp_path, name)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "a", b"abc")
    assert files.sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(StoreError, match="b is missing"):
        files.sha256_file(tmp_path / "b")


def test_json_is_canonical_and_refuses_nan(tmp_path: Path) -> None:
    assert files.json_bytes({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []


@given(
    records=st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), max_size=4),
    cut=st.integers(0),
)
@settings(max_examples=60, deadline=None)
def test_any_cut_of_a_log_gives_its_whole_lines_and_reports_the_rest(
    tmp_path_factory, records: list[dict], cut: int
) -> None:
    lines = JsonLines(tmp_path_factory.mktemp("log") / "a.jsonl", sync=False)
    lines.path.touch()
    for record in records:
        lines.append(record)
    data = lines.path.read_bytes()
    kept = data[: cut % (len(data) + 1)]
    lines.path.write_bytes(kept)
    read = lines.read()
    n = kept.count(b"\n")
    assert list(read.records) == records[:n]
    assert read.torn == kept[read.n_bytes :].decode(errors="replace")
    assert lines.mend() == read.torn
    lines.append({"next": 1})
    assert list(lines.read().records) == [*records[:n], {"next": 1}]


def test_a_finished_line_that_is_no_object_is_damage_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[2]\n')
    with pytest.raises(StoreError, match=r"a\.jsonl is damaged at line 2"):
        JsonLines(tmp_path / "a.jsonl").read()


def test_a_lock_keeps_another_process_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "manifest"
    with (
        files.locked(lock, create=True),
        pytest.raises(StoreError, match="in use by another process"),
        files.locked(lock),
    ):
        pass
    with files.locked(lock):
        pass


def test_an_event_log_keeps_events_with_their_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    log.write("shard", rows=3)
    (record,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert record["event"] == "shard"
    assert record["rows"] == 3
    assert record["time"].endswith("+00:00")
    assert record["seconds"] >= 0
    EventLog(None).write("nowhere")


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([1, 2], desc="x")) == [1, 2]
    with progress(total=3) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""
    assert list(progress([1, 2], desc="shown", enabled=True)) == [1, 2]
    assert "shown" in capsys.readouterr().err


def test_the_first_interrupt_asks_and_the_second_aborts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt, match="rows are kept"):
            stop.check("rows are kept")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_interrupts_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with stop_on_interrupt() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_provenance_is_json_without_time_user_or_path() -> None:
    record = provenance(seed=3, texts_sha="ab", command=["interp", "analyze"], note="x")
    assert (
        json.loads(json.dumps(record))
        == record
        == provenance(seed=3, texts_sha="ab", command=["interp", "analyze"], note="x")
    )
    assert record["seed"] == 3
    assert record["texts_sha256"] == "ab"
    assert str(Path.home()) not in json.dumps(record)
    assert {"python", "torch", "transformers", "transformer-lens", "nnsight", "interp-toolkit"} <= set(
        versions()
    )
