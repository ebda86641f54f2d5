"""What a harvest refuses, and a full disk: one clear error, nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import interp
from interp import CheckError, InputError, SiteError, StoreError, open_store
from tests.interp.stores import (
    assert_same_bytes,
    bytes_of,
    id_texts,
    tiny_harvest,
    tiny_model,
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_keeps_what_is_whole_and_goes_on_when_there_is_space(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool
) -> None:
    texts, model = id_texts(90), tiny_model()
    tiny_harvest(tmp_path / "whole", texts, model=model)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(110_000))
    with monkeypatch.context() as patch:
        if not foreseen:
            patch.setattr("interp.stores.filling.require_space", lambda *args, **options: None)
        message = (
            "not enough disk space at .*: shard .* needs"
            if foreseen
            else "disk full while writing .*safetensors"
        )
        with pytest.raises(StoreError, match=message):
            tiny_harvest(small_disk / "acts", texts, model=model)
    kept = open_store(small_disk / "acts").verify()
    assert 0 < kept.n_rows < open_store(tmp_path / "whole").n_rows
    assert not list(kept.path.glob(".*"))
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    tiny_harvest(small_disk / "acts", texts, model=model)
    assert_same_bytes(small_disk / "acts", tmp_path / "whole")


def test_a_limit_that_cannot_fit_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError,
        match=r"not enough disk space at .*: storing up to 1000000000000000 rows needs .* are free",
    ):
        tiny_harvest(tmp_path / "acts", max_tokens=10**15)
    assert not (tmp_path / "acts").exists()


def test_a_disk_too_small_for_the_first_shard_leaves_no_empty_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, log = tiny_model(), tmp_path / "log.jsonl"
    (tmp_path / "acts").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("interp.runs.files.free_bytes", lambda path: 1000)
        with pytest.raises(StoreError, match="not enough disk space at .*: shard 000000.safetensors needs"):
            tiny_harvest(tmp_path / "acts", model=model, log=log)
    assert list((tmp_path / "acts").iterdir()) == []
    assert tiny_harvest(tmp_path / "acts", model=model, log=log).verify().n_rows > 0


def test_a_store_that_was_there_stays_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiny_harvest(tmp_path, max_tokens=100)
    before = bytes_of(store.path)
    with monkeypatch.context() as patch:
        patch.setattr("interp.runs.files.free_bytes", lambda path: 1000)
        with pytest.raises(StoreError, match="not enough disk space"):
            tiny_harvest(tmp_path)
    assert bytes_of(store.path) == before


def test_a_disk_that_fills_up_is_told_without_a_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, model = id_texts(60), tiny_model()
    tiny_harvest(tmp_path / "whole", texts, model=model)
    sync, left = os.fsync, [12]

    def filling_up(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling_up)
        with pytest.raises(StoreError, match="disk full while writing"):
            tiny_harvest(tmp_path / "acts", texts, model=model)
    assert open_store(tmp_path / "acts").verify().n_rows > 0
    tiny_harvest(tmp_path / "acts", texts, model=model)
    assert_same_bytes(tmp_path / "acts", tmp_path / "whole")


def test_an_out_folder_that_cannot_be_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make folder .*: Not a directory"):
        tiny_harvest(tmp_path / "file" / "acts")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there are no tokens in the texts .an iterable.: every one is empty"),
        ([[], []], "there are no tokens in the texts"),
        (
            [[1, 2], [0.5, 1.0]],
            r"document 1: a list is neither text nor token ids, whole numbers \[pos\]; got float64 \[2\]",
        ),
        ([[1, 2], [[1, 2]]], r"document 1: a list is neither text nor token ids"),
        ([None], "document 0: a NoneType is neither text nor token ids"),
        ([[1, -2]], r"document 0: token id -2 is outside the vocabulary"),
        (["words"], "without a tokenizer"),
        ([{"txet": "a"}], r"document 0: no column 'text' among \['txet'\]; did you mean 'txet'\?"),
        ("no/such/file.jsonl", "no text file 'no/such/file.jsonl'"),
        (b"bytes", "got bytes"),
        (3, "got int"),
    ],
    ids=str,
)
def test_texts_that_cannot_be_used_are_told(tmp_path: Path, texts, message: str) -> None:
    with pytest.raises(interp.InterpError, match=message):
        tiny_harvest(tmp_path, texts)


def test_no_folder_is_made_for_texts_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        tiny_harvest(tmp_path / "acts", [])
    assert not (tmp_path / "acts").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "a store holds float32, float16, bfloat16; it was asked for int8"),
        ({"context": 1}, "context must be at least 2"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"shard_rows": 15}, "shard_rows must hold a window: at least context=16; got 15"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"include_bos": False}, "include_bos=False needs a tokenizer"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_told(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_harvest(tmp_path, **options)


def test_an_unknown_site_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="no site 'mixx'; did you mean 'mix'"):
        interp.harvest(tiny_model(), id_texts(3), "mixx", tmp_path)


def test_rows_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    class Dividing(nn.Module):
        def __init__(self, big: float) -> None:
            super().__init__()
            self.table = nn.Embedding(29, 4)
            self.mix = nn.Identity()
            self.big = big

        def forward(self, ids):
            return self.mix(torch.where(ids[..., None] == 7, self.big, self.table(ids)))

    texts = [[1, 2], [3, 7, 4]]
    with pytest.raises(CheckError, match=r"mix is not finite at document 1, position 1 \(1 of 5 rows\)$"):
        interp.harvest(interp.load(Dividing(float("inf"))), texts, "mix", tmp_path)
    with pytest.raises(CheckError, match="float16 ends at 65504: store bfloat16 or float32"):
        interp.harvest(interp.load(Dividing(1e6)), texts, "mix", tmp_path, dtype="float16")
    assert interp.harvest(interp.load(Dividing(1e38)), texts, "mix", tmp_path, dtype="bfloat16").n_rows == 5
