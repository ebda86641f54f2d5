"""`interp verify` from the command line: a sound store, a damaged one, none at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp import cli
from tests.interp.stores import tiny_harvest


def test_a_sound_store_is_verified_by_its_folder_and_by_the_one_above(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tiny_harvest(tmp_path)
    for place in (store.path, tmp_path):
        assert cli.main(["verify", str(place)]) == 0
        told = capsys.readouterr()
        assert told.out == f"VERIFIED {store.n_rows} rows in {len(store.shards)} shards\n"
        assert told.err == ""


def test_a_flipped_bit_is_an_error_that_names_the_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tiny_harvest(tmp_path)
    shard = store.path / store.shards[2].name
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert cli.main(["verify", str(store.path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.strip().endswith(f": {shard.name}")


def test_a_folder_without_a_store_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        assert cli.main(["verify", str(place)]) == 1
        assert capsys.readouterr().err.startswith(f"error: no activation store at {place}: ")
