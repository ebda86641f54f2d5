"""Training: a planted dictionary is found and a Gaussian one is not; a resumed run is the uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sae
from interp.errors import CheckError, InputError, StoreError
from sae import learner
from sae.data import batch_indices


def planted(n: int, *, seed: int = 0, d: int = 24, n_features: int = 40) -> tuple[Tensor, Tensor]:
    """Rows that are sparse sums of known unit directions, a mean far away and a little noise; and the directions."""
    truth = torch.randn(n_features, d, generator=torch.Generator().manual_seed(1000))
    truth = truth / truth.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(n, n_features, generator=generator) < 3 / n_features
    strength = (1 + 0.25 * torch.randn(n, n_features, generator=generator)).abs()
    return (on * strength) @ truth + 0.01 * torch.randn(n, d, generator=generator) + 5, truth


CONFIG = sae.TrainConfig(d_sae=64, k=4, steps=500, batch_size=256, lr=4e-3)
SHORT = sae.TrainConfig(d_sae=32, k=3, steps=40, batch_size=64, checkpoint_every=10, log_every=5)


@pytest.fixture(scope="module")
def found() -> tuple[sae.Run, Tensor, Tensor]:
    x, truth = planted(8000)
    return sae.train(x, CONFIG), x, truth


def test_a_planted_dictionary_is_recovered(found: tuple[sae.Run, Tensor, Tensor]) -> None:
    run, _, truth = found
    match = sae.match_dictionary(run.coder.W_dec, truth)
    assert match.value > 0.95
    assert match.provenance["found"] > 0.9
    assert match.chance < 0.6


def test_gaussian_data_teach_no_planted_dictionary(found: tuple[sae.Run, Tensor, Tensor]) -> None:
    _, x, truth = found
    # the same mean and covariance, no sparse structure
    root = torch.linalg.cholesky(torch.cov(x.T).double())
    fake = (
        torch.randn(8000, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64) @ root.T
        + x.double().mean(0)
    ).float()
    match = sae.match_dictionary(sae.train(fake, CONFIG).coder.W_dec, truth)
    assert match.provenance["found"] < 0.1
    assert match.value < 0.7


def test_it_beats_pca_and_random_directions_on_rows_it_has_not_seen(
    found: tuple[sae.Run, Tensor, Tensor],
) -> None:
    run, x, _ = found
    held, _ = planted(2000, seed=7)
    result = sae.evaluate(run.coder, held, reference=x)
    # about one row in five has more than k = 4 features on, which no 4 directions can hold
    assert result.value < 0.15
    assert result.value < 0.4 * min(result.baselines.values())
    assert result.dead < 0.5
    assert 2.5 < result.l0 <= 4


def test_directions_stay_of_unit_norm_and_the_data_stay_as_they_were(
    found: tuple[sae.Run, Tensor, Tensor],
) -> None:
    run, x, _ = found
    torch.testing.assert_close(run.coder.W_dec.norm(dim=1), torch.ones(64), atol=1e-5, rtol=0)
    assert torch.equal(x, planted(8000)[0])


def test_the_coder_lives_in_the_coordinates_of_the_data() -> None:
    x, _ = planted(4000)
    small, large = (sae.train(s * x, CONFIG).coder for s in (1.0, 64.0))
    with torch.no_grad():
        # a power of two scales floats exactly; only the mean's own rounding remains
        torch.testing.assert_close(large(64 * x), 64 * small(x), atol=0.5, rtol=1e-2)


def test_two_runs_of_one_seed_are_bit_for_bit_the_same_and_of_two_seeds_not() -> None:
    x, _ = planted(1000)
    a, b = (sae.train(x, SHORT_MEMORY).coder.state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = sae.train(x, sae.TrainConfig(d_sae=32, k=3, steps=40, batch_size=64, seed=1)).coder
    assert not torch.equal(a["W_dec"], other.W_dec)


SHORT_MEMORY = sae.TrainConfig(d_sae=32, k=3, steps=40, batch_size=64)


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("at", [1, 9, 10, 23, 39])
def test_a_run_killed_at_any_step_and_resumed_is_the_uninterrupted_one(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = planted(1000)
    whole = sae.train(x, SHORT, tmp_path / "whole")
    advance = learner.Learner.advance

    def until(self: learner.Learner, *args: Any, **options: Any) -> dict[str, float]:
        if self.step == at:
            raise Killed
        return advance(self, *args, **options)

    monkeypatch.setattr(learner.Learner, "advance", until)
    with pytest.raises(Killed):
        sae.train(x, SHORT, tmp_path / "cut")
    monkeypatch.setattr(learner.Learner, "advance", advance)
    resumed = sae.train(x, SHORT, tmp_path / "cut", resume=True)
    for name, value in whole.coder.state_dict().items():
        assert torch.equal(resumed.coder.state_dict()[name], value), name
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    files = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_process_killed_outright_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    x, _ = planted(1000)
    torch.save(x, tmp_path / "x.pt")
    config = sae.TrainConfig(d_sae=32, k=3, steps=400, batch_size=64, checkpoint_every=20)
    script = (
        "import sys, torch, sae\n"
        "torch.set_num_threads(1)\n"
        "x = torch.load(sys.argv[1], weights_only=True)\n"
        "sae.train(x, sae.TrainConfig(d_sae=32, k=3, steps=400, batch_size=64, checkpoint_every=20), sys.argv[2])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "x.pt"), str(tmp_path / "cut")])
    latest = tmp_path / "cut" / "checkpoints" / "latest.json"
    deadline = time.monotonic() + 60
    while not latest.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = sae.train(x, config, tmp_path / "cut", resume=True)
    whole = sae.train(x, config, tmp_path / "whole")
    for name, value in whole.coder.state_dict().items():
        assert torch.equal(resumed.coder.state_dict()[name], value), name


def test_the_bar_shows_loss_fvu_l0_dead_and_pace(capsys: pytest.CaptureFixture) -> None:
    x, _ = planted(1000)
    sae.train(x, SHORT_MEMORY, progress=True)
    told = capsys.readouterr().err
    assert re.search(r"40/40 .* loss \S+ fvu 0\.\d{3} l0 3 dead \d+% [\d.]+k? rows/s\]", told), told


def test_ctrl_c_leaves_a_checkpoint_of_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = planted(1000)
    config = sae.TrainConfig(d_sae=32, k=3, steps=40, batch_size=64)
    advance = learner.Learner.advance

    def interrupted(self: learner.Learner, *args: Any, **options: Any) -> dict[str, float]:
        if self.step == 16:
            signal.raise_signal(signal.SIGINT)
        return advance(self, *args, **options)

    monkeypatch.setattr(learner.Learner, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 17; go on with resume=True"):
        sae.train(x, config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "checkpoints" / "latest.json").read_text()) == {
        "latest": "step-00000017"
    }
    monkeypatch.setattr(learner.Learner, "advance", advance)
    resumed = sae.train(x, config, tmp_path / "run", resume=True)
    assert torch.equal(resumed.coder.W_dec, sae.train(x, config).coder.W_dec)


def test_a_damaged_newest_checkpoint_falls_back_on_the_one_before(tmp_path: Path) -> None:
    x, _ = planted(1000)
    whole = sae.train(x, SHORT, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "coder")
    newest = tmp_path / "run" / "checkpoints" / "step-00000040" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x00\x01")
    resumed = sae.train(x, SHORT, tmp_path / "run", resume=True)
    assert torch.equal(resumed.coder.W_dec, whole.coder.W_dec)
    for place in (tmp_path / "run" / "checkpoints").glob("step-*/state.safetensors"):
        place.write_bytes(b"torn")
    with pytest.raises(StoreError, match="no checkpoint in .* is sound"):
        sae.train(x, SHORT, tmp_path / "run", resume=True)


def test_a_folder_with_another_run_in_it_is_refused(tmp_path: Path) -> None:
    x, _ = planted(1000)
    sae.train(x, SHORT, tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        sae.train(x, SHORT, tmp_path / "run")
    with pytest.raises(StoreError, match="another configuration .lr: 0.0 there, 0.001 now"):
        sae.train(x, sae.TrainConfig.of(SHORT.as_dict() | {"lr": 1e-3}), tmp_path / "run", resume=True)
    with pytest.raises(StoreError, match="other data"):
        sae.train(x + 1, SHORT, tmp_path / "run", resume=True)
    with pytest.raises(StoreError, match="other data"):  # of another width
        sae.train(x[:, :7], SHORT, tmp_path / "run", resume=True)


def _rewritten(folder: Path, change: Any) -> None:
    """Every checkpoint's manifest in ``folder``, changed."""
    for path in folder.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))


def test_a_run_from_before_an_option_goes_on_with_its_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, _ = planted(500)
    whole = sae.train(x, SHORT, tmp_path / "run")

    def older(manifest: dict[str, Any]) -> None:
        del manifest["config"]["precision"], manifest["config"]["betas"], manifest["window"]

    _rewritten(tmp_path / "run", older)
    again = sae.train(x, SHORT, tmp_path / "run", resume=True)
    assert torch.equal(again.coder.W_dec, whole.coder.W_dec)
    assert (
        f"does not say after how many rows without firing a latent is dead; from step 40 on it is after {SHORT.window}"
        in caplog.text
    )
    with pytest.raises(StoreError, match="precision: 'float32' there, 'bf16' now"):
        sae.train(x, replace(SHORT, precision="bf16"), tmp_path / "run", resume=True)


@pytest.mark.parametrize("several", [False, True])
def test_a_resumed_run_keeps_the_window_it_began_with(several: bool, tmp_path: Path) -> None:
    """Whatever the rule for it has become since."""
    x, _ = planted(500)
    config = replace(SHORT, k=1)
    asked: Any = [config, replace(config, seed=1)] if several else config
    dead: list[list[float]] = []
    for name, window in (("as now", config.window), ("shorter", 1)):
        folder, lines = tmp_path / name, []
        with pytest.raises(Killed):
            sae.train(x, asked, folder, watch=_until(30))
        _rewritten(folder / "00" if several else folder, lambda manifest: manifest.update(window=window))  # noqa: B023
        sae.train(x, asked, folder, resume=True, watch=lines.append)
        dead.append([v for line in lines for k, v in line.items() if k in ("dead", "00/dead")])
        last = sorted((folder / "00" if several else folder).glob("checkpoints/*"))[-1]
        assert json.loads((last / "manifest.json").read_text())["window"] == window
    assert max(dead[1]) > 2 * max(dead[0])  # within a batch some of them do not fire


def _until(step: int) -> Any:
    def watch(line: dict[str, float]) -> None:
        if line["step"] > step:
            raise Killed

    return watch


def test_a_run_leaves_metrics_a_coder_and_a_figure(tmp_path: Path) -> None:
    x, _ = planted(1000)
    run = sae.train(x, SHORT, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert torch.equal(sae.load(tmp_path / "run").W_dec, run.coder.W_dec)
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 2  # the newest two are kept
    assert list(run.to_frame().columns) == ["step", "loss", "fvu", "l0", "dead", "lr"]
    assert run.plot().data
    assert "k = 3; step 40" in repr(run)


def test_every_row_is_read_once_a_pass_and_the_passes_differ() -> None:
    first, second = (
        torch.cat([batch_indices(103, 10, step, 0) for step in range(p * 10, p * 10 + 10)]) for p in (0, 1)
    )
    assert len(first.unique()) == len(second.unique()) == 100
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(4), "floats .sample, d"),
        (torch.zeros(400, 0), r"floats .sample, d.*got torch.float32 \[400, 0\]"),
        (torch.zeros(400, 4, dtype=torch.long), "floats .sample, d"),
        (torch.randn(10, 4), "fewer than one batch of 64"),
        (torch.ones(400, 4), "is the same"),
        (torch.full((400, 4), float("nan")), "hold NaN"),
        ([1, 2], "cannot train on a list"),
    ],
)
def test_unusable_data_are_named(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sae.train(data, SHORT_MEMORY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 33}, "k = 33 exceeds d_sae = 32"),
        ({"d_sae": 0, "k": 1}, "d_sae = 0 must be at least 1"),
        ({"steps": 0, "lr": -1.0}, "steps = 0 must be at least 1; lr = -1.0"),
        ({"warmup": 0.9}, r"\[0, 0.8\]"),
    ],
)
def test_a_configuration_only_raises_and_lists_every_problem(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sae.TrainConfig.of(SHORT.as_dict() | change)


def test_checkpoints_without_a_folder_are_refused() -> None:
    with pytest.raises(InputError, match="say out="):
        sae.train(planted(1000)[0], SHORT)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "relu"])
@pytest.mark.parametrize("several", [False, True])
def test_rows_that_are_not_finite_are_counted_and_stop_the_run(kind: str, several: bool) -> None:
    x, _ = planted(9000)
    config = sae.TrainConfig(kind=kind, d_sae=32, k=3, steps=140, batch_size=64, seed=3)
    seen = torch.randperm(9000, generator=torch.Generator().manual_seed(3))[
        :8192
    ]  # rows that scales are taken from
    unseen = torch.ones(9000, dtype=torch.bool).index_fill_(0, seen, False)
    step = next(s for s in range(140) if int(unseen[batch_indices(9000, 64, s, 3)].sum()) >= 2)
    bad = batch_indices(9000, 64, step, 3)
    bad = bad[unseen[bad]][:2]
    x[bad[0], 3], x[bad[1], 0] = float("inf"), float("nan")
    configs = [config, replace(config, k=2)] if several else config
    with pytest.raises(CheckError, match=rf"at step {step}; 2 of 64 rows of this batch hold NaN or infinity"):
        sae.train(x, configs)  # pyright: ignore[reportArgumentType, reportCallIssue]
    x[seen[0]] = float("nan")
    with pytest.raises(InputError, match="1 of 8192 sampled rows of tensor hold NaN or infinity"):
        sae.train(x, config)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [CONFIG.rate(step, 24) for step in range(CONFIG.steps)]
    assert rates[0] < rates[10] < rates[24] == pytest.approx(CONFIG.lr)
    assert rates[300] == CONFIG.lr
    assert rates[-1] == pytest.approx(CONFIG.lr / 150)  # the fall takes 0.3 of the 500 steps
    free = replace(CONFIG, lr=0.0)  # in proportion to the entries of a unit direction, and to 1 / sqrt(steps)
    assert free.peak(64) == pytest.approx(2 * free.peak(256))
    assert replace(free, steps=4000).peak(64) == pytest.approx(free.peak(64) / 2)
    assert replace(free, optimizer="signum").peak(64) == pytest.approx(free.peak(64) / 10)
