"""Killed again and again at random moments, a run ends with the weights of one that nobody touched."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

import sae
from tests.interp.stores import in_child
from tests.sae.test_training import planted

CONFIG = sae.TrainConfig(kind="batchtopk", d_sae=64, k=4, steps=1000, batch_size=64, checkpoint_every=5)


def _rows(flowing: bool) -> torch.Tensor | list[torch.Tensor]:
    x = planted(4000)[0]
    return list(x.split(64)) if flowing else x


def _go_on(out: Path, flowing: bool) -> None:
    torch.set_num_threads(1)
    sae.train(_rows(flowing), CONFIG, out, resume=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("flowing", [False, True], ids=["rows", "flow"])
def test_twenty_sigkills_at_random_points_change_nothing(flowing: bool, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = sae.train(
        _rows(flowing), CONFIG, tmp_path / "whole"
    )  # first, so that the children find all imported
    latest, draw, reached = tmp_path / "cut" / "checkpoints" / "latest.json", random.Random(5), [""]
    for _ in range(20):
        child = in_child(lambda: _go_on(tmp_path / "cut", flowing))
        deadline = time.monotonic() + 60
        while (not latest.exists() or latest.read_text() == reached[-1]) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached.append(latest.read_text())
    assert len(set(reached)) == 21  # each child got further than the one before, and none came to the end
    assert "1000" not in reached[-1]
    cut = sae.train(_rows(flowing), CONFIG, tmp_path / "cut", resume=True)
    torch.set_num_threads(threads)
    for name, value in whole.coder.state_dict().items():
        assert torch.equal(cut.coder.state_dict()[name], value), name
    files = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "cut")]
    assert files[0] == files[1]
