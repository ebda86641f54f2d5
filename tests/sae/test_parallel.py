"""Two processes that share every batch, or the latents, do what one does with the whole of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sae
from interp.errors import InputError
from sae.coder import Coder
from sae.learner import Learner
from sae.selection import largest_of_rows
from sae.sharding import Shards
from sae.splitting import winners
from tests.interp.stores import finished, in_child
from tests.sae.test_training import planted


def _share(rank: int, out: Path, meet: Path, config: sae.TrainConfig) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    run = sae.train(planted(2000)[0], config, out)
    sums = torch.stack([v.double().sum() for v in run.coder.state_dict().values()])
    both = [torch.zeros_like(sums) for _ in range(2)]
    torch.distributed.all_gather(both, sums)
    assert torch.equal(both[0], both[1])  # every process holds the same coder
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "config",
    [
        sae.TrainConfig(d_sae=64, k=4, steps=50, batch_size=128, log_every=1, dead_after=1000),
        sae.TrainConfig(
            kind="batchtopk", d_sae=64, k=4, steps=50, batch_size=128, log_every=1, dead_after=1000
        ),
    ],
    ids=["topk", "batchtopk"],
)
def test_two_processes_have_the_losses_of_one(tmp_path: Path, config: sae.TrainConfig) -> None:
    children = [
        in_child(lambda rank=rank: _share(rank, tmp_path / "two", tmp_path / "meet", config))
        for rank in range(2)
    ]
    assert [finished(child) for child in children] == [0, 0]
    sae.train(planted(2000)[0], config, tmp_path / "one")
    lines = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    }
    assert len(lines["one"]) == len(lines["two"]) == 50
    for one, two in zip(lines["one"], lines["two"], strict=True):
        # the sums over rows are added in another order
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), one["step"]
        assert two["dead"] == one["dead"]
        assert two["l0"] == pytest.approx(one["l0"], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["rows", "latents"])
def test_under_torchrun_the_processes_find_each_other(tmp_path: Path, split: str) -> None:
    config = sae.TrainConfig(d_sae=64, k=4, steps=20, batch_size=128, log_every=1)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch, sae\n"
        "torch.set_num_threads(1)\n"
        "x = torch.load(sys.argv[1], weights_only=True)\n"
        "config = sae.TrainConfig(d_sae=64, k=4, steps=20, batch_size=128, log_every=1)\n"
        "sae.train(x, config, sys.argv[2], split=sys.argv[3])\n"
        "assert not torch.distributed.is_initialized()\n"
    )
    torch.save(planted(2000)[0], tmp_path / "x.pt")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    done = subprocess.run(
        [*command, str(tmp_path / "x.pt"), str(tmp_path / "two"), split],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sae.train(planted(2000)[0], config, tmp_path / "one")
    for mine, theirs in zip(_lines(tmp_path / "one"), _lines(tmp_path / "two"), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5), mine["step"]


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


def _latents(rank: int, out: Path, meet: Path, config: sae.TrainConfig, kill_at: int | None) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    advance = Learner.advance

    def until(self: Learner, *args: Any, **options: Any) -> dict[str, float]:
        assert self.coder.d_sae == config.d_sae // 2  # a half is here
        assert len(self.last_fired) == config.d_sae // 2
        if self.step == kill_at:
            raise Killed
        return advance(self, *args, **options)

    Learner.advance = until  # pyright: ignore[reportAttributeAccessIssue]  # this process ends with the run
    try:
        sae.train(planted(2000)[0], config, out, split="latents", resume=True)
    except Killed:
        assert kill_at is not None
    torch.distributed.destroy_process_group()


def _in_two(tmp_path: Path, name: str, config: sae.TrainConfig, kill_at: int | None = None) -> None:
    meet = tmp_path / f"meet-{name}-{kill_at}"
    children = [
        in_child(lambda rank=rank: _latents(rank, tmp_path / name, meet, config, kill_at))
        for rank in range(2)
    ]
    assert [finished(child) for child in children] == [0, 0]


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


WIDE = sae.TrainConfig(
    d_sae=128, k=3, steps=50, batch_size=128, log_every=1, dead_after=128, checkpoint_every=20
)


@pytest.mark.parametrize(
    "config",
    [
        WIDE,
        replace(WIDE, kind="batchtopk"),
        pytest.param(replace(WIDE, kind="abstopk", clip=0.05, flops=0.1, k_aux=20), marks=pytest.mark.slow),
        pytest.param(replace(WIDE, screen="always"), marks=pytest.mark.slow),
        pytest.param(replace(WIDE, kind="batchtopk", screen="always"), marks=pytest.mark.slow),
    ],
    ids=["topk", "batchtopk", "abstopk-clipped", "topk-screened", "batchtopk-screened"],
)
def test_two_halves_of_the_latents_have_the_losses_and_the_dictionary_of_the_whole(
    tmp_path: Path, config: sae.TrainConfig
) -> None:
    _in_two(tmp_path, "two", config)
    one = sae.train(planted(2000)[0], config, tmp_path / "one")
    for mine, theirs in zip(_lines(tmp_path / "one"), _lines(tmp_path / "two"), strict=True):
        # what the halves write is added in another order
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5), mine["step"]
        assert theirs["dead"] == mine["dead"]
        assert theirs["l0"] == pytest.approx(mine["l0"], abs=1e-9)
    assert max(one.history["dead"]) > 0  # AuxK had work
    saved = sae.load(tmp_path / "two").state_dict()
    for name, value in one.coder.state_dict().items():
        torch.testing.assert_close(saved[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_halves_that_were_killed_go_on_to_the_same_bytes_and_so_does_one_process(tmp_path: Path) -> None:
    _in_two(tmp_path, "whole", WIDE)
    _in_two(tmp_path, "cut", WIDE, kill_at=33)
    assert len(_lines(tmp_path / "cut")) == 33
    shutil.copytree(tmp_path / "cut", tmp_path / "alone")
    _in_two(tmp_path, "cut", WIDE)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()
    saved = [sae.load(tmp_path / name).state_dict() for name in ("whole", "cut")]
    for name, value in saved[0].items():
        assert torch.equal(saved[1][name], value), name
    alone = sae.train(
        planted(2000)[0], WIDE, tmp_path / "alone", resume=True
    )  # checkpoints hold whole tensors
    for name, value in alone.coder.state_dict().items():
        torch.testing.assert_close(saved[0][name], value, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_split_is_named() -> None:
    shards = object.__new__(Shards)
    shards.size = 3
    config = sae.TrainConfig(kind="relu", d_sae=64, k=30, resample_every=5)
    with pytest.raises(
        InputError, match=r"kind = 'relu' .*64 latents do not divide among 3.*k = 30 exceeds the 21"
    ):
        shards.ask(config)
    with pytest.raises(InputError, match="split = 'columns'"):
        sae.train(planted(500)[0], replace(WIDE, checkpoint_every=0), split="columns")


def test_latents_of_equal_value_are_kept_by_number_across_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves run here in turn, each seeing what the other would send."""
    whole = torch.randint(0, 3, (40, 16), generator=torch.Generator().manual_seed(0)).float()
    expected = torch.zeros(40, 16, dtype=torch.bool).scatter_(1, largest_of_rows(whole, 5), True)
    halves = whole.split(8, 1)
    candidates = [largest_of_rows(half, 5) for half in halves]
    coder = Coder(4, 8, 5)
    sent = []
    for half, col in zip(halves, candidates, strict=True):
        col = col.sort(1).values
        sent.append(half.gather(1, col))
    monkeypatch.setattr(
        torch.distributed,
        "all_gather",
        lambda parts, _: [a.copy_(b) for a, b in zip(parts, sent, strict=True)],
    )
    for rank in range(2):
        shards = object.__new__(Shards)
        shards.rank, shards.size = rank, 2
        col = candidates[rank]
        support, _ = winners(coder, col, halves[rank].gather(1, col), 5, shards)
        assert torch.equal(support.dense(torch.ones(len(support.col))) > 0, expected[:, 8 * rank :][:, :8])
