"""Metrics reach TensorBoard's and wandb's own files, read back with their own readers; nothing is sent anywhere."""

from __future__ import annotations

import importlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sae
from interp.cli import main
from interp.errors import InputError
from tests.sae.test_sae_command import from_store, store

__all__ = ["store"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve that TensorBoard shows of ``folder``."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reading.EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


def history(file: Path) -> Iterator[dict[str, float]]:
    """The logged lines of a .wandb file: records of Google's log format, each a protocol buffer."""
    proto = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # a block ends in padding too short for a header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            read = proto.Record.FromString(record)
            record = b""
            if read.WhichOneof("record_type") == "history":
                yield {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in read.history.item}


def test_tensorboard_shows_every_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    config = sae.TrainConfig(d_sae=16, k=2, steps=30, batch_size=64, checkpoint_every=10)
    told = 0

    def killed(line: object) -> None:
        nonlocal told
        watch(line)  # pyright: ignore[reportArgumentType]
        told += 1
        if told == 2:
            raise RuntimeError("killed after step 20 was told, before its checkpoint")

    with sae.to_tensorboard(tmp_path / "logs") as watch, pytest.raises(RuntimeError, match="killed"):
        sae.train(x, config, tmp_path / "run", watch=killed)
    with sae.to_tensorboard(tmp_path / "logs") as watch:
        run = sae.train(x, config, tmp_path / "run", resume=True, watch=watch)
    assert len(list((tmp_path / "logs").iterdir())) == 2
    shown = scalars(tmp_path / "logs")
    assert set(shown) == {"loss", "fvu", "l0", "dead", "lr"}
    assert [step for step, _ in shown["fvu"]] == [10, 20, 30]
    assert [value for _, value in shown["fvu"]] == pytest.approx(run.history["fvu"].tolist(), rel=1e-6)
    with pytest.raises(InputError, match="closed"):
        watch({"step": 40})


@pytest.mark.slow  # wandb starts a process of its own
def test_the_command_writes_a_wandb_run_offline(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    assert main(from_store(store, "--set", "log_every=2", "--wandb", "dictionaries", out=out)) == 0
    (file,) = out.glob("wandb/offline-run-*/run-*.wandb")
    written = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    read = list(history(file))
    assert [line["_step"] for line in read] == [2, 4, 6] == [line["step"] for line in written]
    assert [line["fvu"] for line in read] == [line["fvu"] for line in written]


def test_the_command_names_what_is_not_installed(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for package, option in (("wandb", "project"), ("tensorboard", str(tmp_path / "logs"))):
        monkeypatch.setitem(sys.modules, package, None)
        # what another test has imported of it is there already
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        out = tmp_path / package
        assert main(from_store(store, f"--{package}", option, out=out)) == 1
        assert f"pip install interp-toolkit[{package}]" in capsys.readouterr().err
        assert not (out / "metrics.jsonl").exists()
