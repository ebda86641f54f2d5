"""Two processes that share every batch do what one does with the whole of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import sae
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
