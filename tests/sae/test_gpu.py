"""On a GPU training gives what it gives on the CPU; the benchmark for a GPU runs anywhere at tiny sizes."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae
from sae.learner import Learner
from tests.sae.test_training import planted

CONFIG = sae.TrainConfig(d_sae=128, k=4, steps=40, batch_size=128, log_every=1, dead_after=1000, lr=2e-3)
KINDS = [
    "topk",
    "abstopk",
    "batchtopk",
    "matryoshka",
    "groupmax",
    "relu",
    "jumprelu",
    "gated",
    "pursuit",
    "codebook",
]


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_runs_end_to_end_at_tiny_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.sae_gpu import measure

    measure(argparse.Namespace(device="cpu", tiny=True, compile="none"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("peer") for line in lines] == [None, "ours_bf16", "dense_compiled", "roofline", None]
    assert lines[-1].keys() == {"dense_over_ours", "ours_over_roofline"}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_a_gpu_has_the_losses_of_one_on_the_cpu(kind: str) -> None:
    x, _ = planted(2000)
    config = replace(CONFIG, kind=kind)
    plain, there = sae.train(x, config), sae.train(x, config, device="cuda")
    assert there.coder.W_dec.is_cuda
    # float32 sums in another order, and what 40 steps make of them; at first they are nearly the same
    np.testing.assert_allclose(there.history["loss"][:5], plain.history["loss"][:5], rtol=1e-4)
    np.testing.assert_allclose(there.history["loss"], plain.history["loss"], rtol=2e-2)


@pytest.mark.gpu
def test_rows_on_a_gpu_are_trained_on_there_and_saved_like_any_other(tmp_path: Path) -> None:
    run = sae.train(planted(2000)[0].cuda(), CONFIG, tmp_path / "run")
    assert run.coder.W_dec.is_cuda
    assert torch.equal(sae.load(tmp_path / "run").W_dec, run.coder.W_dec.cpu())


@pytest.mark.gpu
def test_small_dictionaries_step_together_there_too() -> None:
    configs = [replace(CONFIG, seed=seed) for seed in range(3)]
    x, _ = planted(2000)
    together, alone = (sae.train(x, configs, device="cuda", together=way) for way in (True, False))
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.history["loss"][:5], other.history["loss"][:5], rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_learns_what_float32_learns_and_leaves_the_switch(precision: str) -> None:
    x, _ = planted(2000)
    before = torch.backends.cuda.matmul.fp32_precision
    low, plain = (
        sae.train(x, replace(CONFIG, steps=100, precision=name), device="cuda")
        for name in (precision, "float32")
    )
    assert low.history["fvu"][-1] == pytest.approx(plain.history["fvu"][-1], rel=0.05)
    assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.gpu
@pytest.mark.parametrize("flowing", [False, True])
def test_a_run_killed_on_a_gpu_goes_on_there(
    flowing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = planted(2000)[0].cuda()
    rows: Any = list(x.split(100)) if flowing else x
    config = replace(CONFIG, checkpoint_every=10)
    whole = sae.train(rows, config, tmp_path / "whole")
    advance = Learner.advance

    def until(self: Learner, *args: Any, **options: Any) -> dict[str, float]:
        if self.step == 25:
            raise RuntimeError("killed")
        return advance(self, *args, **options)

    monkeypatch.setattr(Learner, "advance", until)
    with pytest.raises(RuntimeError, match="killed"):
        sae.train(rows, config, tmp_path / "cut")
    monkeypatch.setattr(Learner, "advance", advance)
    cut = sae.train(rows, config, tmp_path / "cut", resume=True)
    # sums of a GPU are in no fixed order, so the same only up to that
    np.testing.assert_allclose(cut.history["loss"], whole.history["loss"], rtol=1e-2)


@pytest.mark.gpu
def test_the_screened_step_has_the_codes_of_the_plain_one_there() -> None:
    rows = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    found = {}
    for screen in ("never", "always"):
        config = sae.TrainConfig(d_sae=2048, k=16, steps=5, batch_size=256, log_every=1, screen=screen)  # pyright: ignore[reportArgumentType]
        found[screen] = sae.train(rows, config, device="cuda").history["loss"]
    np.testing.assert_allclose(found["always"], found["never"], rtol=1e-4)
