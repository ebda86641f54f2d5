"""One learner's parts: optimisers by their formulas, clipping, resampling, the median, coders side by side."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sae
from interp.errors import InputError, StoreError
from sae.advice import advice
from sae.learner import Learner, Scales
from sae.middle import geometric_median
from sae.optimisers import Optimiser
from sae.stacking import Stack, stacked
from tests.interp.stores import tiny_harvest, tiny_model
from tests.sae.test_training import planted

CONFIG = sae.TrainConfig(d_sae=32, k=3, steps=30, batch_size=64, log_every=10)


def learner_of(config: sae.TrainConfig, d: int = 24) -> Learner:
    ones, zeros = torch.ones(d), torch.zeros(d)
    return Learner.start(Scales(center_in=zeros, center_out=zeros, read=ones, written=ones), config)


def test_signum_steps_by_the_sign_of_the_running_mean_of_gradients() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimiser = Optimiser("signum", [("w", weight)], (0.9, 0.999))
    mean, expected = np.zeros(3), np.zeros(3)
    for grad in ([1.0, -2.0, 0.5], [-20.0, 1.0, 0.5], [1.0, 1.0, -9.0]):
        weight.grad = torch.tensor(grad)
        optimiser.step(0.1)
        mean = 0.9 * mean + 0.1 * np.array(grad)
        expected = expected - 0.1 * np.sign(mean)
    np.testing.assert_allclose(weight.detach().numpy(), expected, atol=1e-7)


def test_schedule_free_is_the_published_recursion() -> None:
    """Defazio et al. 2024: y between z and x, Adam's size at y, x the mean of z weighted by squared rates."""
    start, rates = [0.3, -1.0], [0.01, 0.02, 0.02, 0.02]
    weight = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimiser = Optimiser("schedule-free", [("w", weight)], (0.9, 0.999))
    z, x, y = (np.array(start) for _ in range(3))
    square, total = np.zeros(2), 0.0
    for step, rate in enumerate(rates, 1):
        grad = 2 * y + 0.1  # of |w|^2 + 0.1 sum w at y
        weight.grad = 2 * weight.detach() + 0.1
        optimiser.step(rate)
        square = 0.999 * square + 0.001 * grad**2
        z = z - rate * grad / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        total += rate**2
        x = x + rate**2 / total * (z - x)
        y = 0.1 * z + 0.9 * x
        np.testing.assert_allclose(weight.detach().numpy(), y, atol=1e-12)
    np.testing.assert_allclose(optimiser.averaged()["w"].numpy(), x, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "signum", "schedule-free"])
def test_an_optimiser_restored_from_its_tensors_goes_on_as_before(name: str) -> None:
    def steps(optimiser: Optimiser, weight: nn.Parameter, seeds: range) -> None:
        for seed in seeds:
            weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
            optimiser.step(0.01)

    first = nn.Parameter(torch.ones(4, 3))
    one = Optimiser(name, [("w", first)], (0.9, 0.99))
    steps(one, first, range(3))
    second = nn.Parameter(first.detach().clone())
    two = Optimiser(name, [("w", second)], (0.9, 0.99))
    two.restore({key: value.clone() for key, value in one.tensors().items()})
    steps(one, first, range(3, 6))
    steps(two, second, range(3, 6))
    assert torch.equal(first, second)


def test_the_geometric_median_has_the_least_summed_distance() -> None:
    rows = torch.randn(41, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:5] += 50  # outliers drag the mean, not the median
    found = geometric_median(rows)

    def cost(point: torch.Tensor) -> float:
        return float((rows - point).norm(dim=1).sum())

    best = cost(found)
    for seed in range(50):
        step = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert cost(found + 1e-3 * step / step.norm()) > best - 1e-9
    # the gradient of the cost is the sum of unit vectors towards the rows: zero at the minimum
    pull = ((rows - found) / (rows - found).norm(dim=1, keepdim=True)).sum(0)
    assert float(pull.norm()) < 1e-4
    line = torch.tensor([[0.0], [1.0], [7.0]], dtype=torch.float64)
    assert float(geometric_median(line)) == pytest.approx(1.0, abs=1e-3)  # the median of numbers


def test_a_run_centred_at_the_median_gives_a_coder_in_the_coordinates_of_the_data() -> None:
    x, _ = planted(2000)
    run = sae.train(x, replace(CONFIG, center="median", steps=200, lr=4e-3))
    assert float((run.coder.b_dec.detach() - 5).abs().max()) < 1.0  # the rows lie around 5


def test_clipping_bounds_the_whole_gradient_and_no_more() -> None:
    x, _ = planted(64)
    x = x - x.mean(0)
    norms = {}
    for clip in (0.0, 1e-3, 1e9):
        learner = learner_of(replace(CONFIG, clip=clip))
        learner.advance(x, x, 1e-3)
        grads = [p.grad for p in learner.coder.parameters() if p.grad is not None]
        norms[clip] = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[1e9] == pytest.approx(norms[0.0], rel=1e-6)
    assert norms[0.0] > 1e-2


def test_resampling_starts_the_dead_anew_and_leaves_the_living() -> None:
    x, _ = planted(256)
    x = x - x.mean(0)
    config = replace(CONFIG, batch_size=256, resample_every=100, auxk=0.0, dead_after=256)
    learner = learner_of(config)
    for _ in range(2):
        learner.advance(x, x, 1e-3)
    dead = torch.tensor([2, 7])
    learner.last_fired[:] = learner.step * config.batch_size
    learner.last_fired[dead] = 0
    assert learner.dead.tolist() == [2, 7]
    before = {name: value.clone() for name, value in learner.coder.state_dict().items()}
    error = (x - learner.coder(x)).square().sum(1)
    learner.resample(x, x, error)
    after = learner.coder.state_dict()
    living = torch.tensor([i for i in range(config.d_sae) if i not in (2, 7)])
    assert torch.equal(after["W_dec"][living], before["W_dec"][living])
    assert torch.equal(after["W_enc"][:, living], before["W_enc"][:, living])
    torch.testing.assert_close(after["W_dec"][dead].norm(dim=1), torch.ones(2))
    # each points along a row of the batch
    shifted = x - learner.coder.b_dec
    cosines = (after["W_dec"][dead] @ shifted.T) / shifted.norm(dim=1)
    torch.testing.assert_close(cosines.max(1).values, torch.ones(2))
    for key, value in learner.optimiser.tensors().items():
        if key.startswith("W_dec/exp_avg"):
            assert float(value[dead].abs().max()) == 0.0
            assert float(value[living].abs().max()) > 0.0
    assert len(learner.dead) == 0


def same_runs(together: tuple[sae.Run, ...], alone: tuple[sae.Run, ...]) -> None:
    for one, other in zip(together, alone, strict=True):
        assert one.config is other.config
        for name, value in other.coder.state_dict().items():
            assert torch.equal(one.coder.state_dict()[name], value), (one.config, name)
        for name, values in other.history.items():
            np.testing.assert_array_equal(one.history[name], values, err_msg=name)


def test_coders_of_different_shapes_in_one_pass_are_those_trained_alone() -> None:
    x, _ = planted(1000)
    configs = [
        replace(CONFIG, d_sae=16, k=2),
        replace(CONFIG, kind="batchtopk"),
        replace(CONFIG, optimizer="signum", lr=1e-3),
    ]
    same_runs(sae.train(x, configs), tuple(sae.train(x, config) for config in configs))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("topk", {"clip": 0.01}),
        ("abstopk", {"optimizer": "schedule-free"}),
        ("groupmax", {"resample_every": 6, "optimizer": "signum"}),
        ("batchtopk", {"flops": 0.1}),
        ("matryoshka", {"decoder": "free"}),
    ],
)
def test_coders_of_one_shape_step_together_and_are_those_trained_alone_to_the_bit(
    kind: str, options: dict
) -> None:
    x, _ = planted(1000)
    base = replace(CONFIG, kind=kind, steps=16, log_every=4, dead_after=128, **options)
    configs = [
        base,
        replace(base, seed=1, k=5),
        replace(base, seed=2, lr=2e-3),
        replace(base, seed=4, dead_after=64),
    ]
    assert stacked([learner_of(c) for c in configs]) == [[0, 1, 2, 3]]
    together = sae.train(x, configs)
    same_runs(together, sae.train(x, configs, together=False))
    assert max(run.history["dead"].max() for run in together) > 0 or kind == "batchtopk"  # AuxK had work
    assert not torch.equal(together[0].coder.W_dec, together[1].coder.W_dec)


def test_transcoders_step_together_too() -> None:
    x, _ = planted(1000)
    configs = [replace(CONFIG, wiring="transcoder", steps=10, seed=seed) for seed in range(2)]
    pair = (x, x[:, :10] ** 2)
    same_runs(sae.train(pair, configs), sae.train(pair, configs, together=False))


def test_what_cannot_step_together_does_not() -> None:
    wide = replace(
        CONFIG, d_sae=4096, batch_size=2048
    )  # its product costs more than all that could be shared
    others = [replace(CONFIG, kind="relu"), wide, replace(CONFIG, auxk=0.0)]
    learners = [learner_of(c) for c in [CONFIG, CONFIG, *[o for other in others for o in (other, other)]]]
    assert stacked(learners) == [[0, 1], [2], [3], [4], [5], [6, 7]]


def test_a_dictionary_of_each_site_in_one_pass_is_the_one_of_its_own_rows(tmp_path: Path) -> None:
    x, _ = planted(1000)
    sites = torch.stack([x, x.flip(1) ** 2, 2 * x.roll(3, 1)], 1)
    configs = {2: CONFIG, 0: replace(CONFIG, k=4), 1: replace(CONFIG, d_sae=16)}
    runs = sae.train(sites, configs, tmp_path / "runs")
    assert list(runs) == [2, 0, 1]
    for site, config in configs.items():
        same_runs((runs[site],), (sae.train(sites[:, site].contiguous(), config),))
        assert runs[site].provenance["data"]["place"] == str(site)
    with pytest.raises(StoreError, match="other data"):  # the folder of site 2 is asked to go on with site 1
        sae.train(sites, {1: CONFIG}, tmp_path / "runs", resume=True)


def test_sites_of_a_store_and_of_a_model_are_told_apart_by_name(tmp_path: Path) -> None:
    model = tiny_model()
    store = tiny_harvest(tmp_path / "acts", model=model)
    names = [str(site) for site in store.sites]
    small = sae.TrainConfig(d_sae=16, k=2, steps=5, batch_size=16)
    runs = sae.train(store, {names[1]: small, names[0]: small})
    for name in names:
        same_runs((runs[name],), (sae.train(store, small, site=name),))
    texts = torch.randint(0, 29, (40, 12), generator=torch.Generator().manual_seed(0))
    flowing = sae.train(sae.model_rows(model, texts, names), {names[1]: small, names[0]: small})
    for name in names:
        same_runs((flowing[name],), (sae.train(sae.model_rows(model, texts, name), small),))
    with pytest.raises(InputError, match=r"there are no rows of site 'mixx'.*did you mean 'mix'"):
        sae.train(sae.model_rows(model, texts, names), {"mixx": small})
    with pytest.raises(InputError, match="configurations by site need rows by site"):
        sae.train(torch.randn(100, 4), {0: small})
    with pytest.raises(InputError, match="site cannot be said beside them"):
        sae.train(store, {names[0]: small}, site=names[0])


def test_stopped_together_and_resumed_each_way_the_runs_are_those_that_nobody_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = planted(1000)
    configs = [
        replace(CONFIG, steps=22, checkpoint_every=5, seed=seed, lr=1e-3 * (1 + seed % 2))
        for seed in range(3)
    ]
    whole = sae.train(x, configs, tmp_path / "whole", together=False)
    advance = Stack.advance

    def until(self: Stack, *args: Any) -> object:
        if self.learners[0].step == 17:
            raise RuntimeError("killed")
        return advance(self, *args)

    monkeypatch.setattr(Stack, "advance", until)
    for name in ("cut", "apart"):
        with pytest.raises(RuntimeError, match="killed"):
            sae.train(x, configs, tmp_path / name)
    monkeypatch.setattr(Stack, "advance", advance)
    for name, together in (("cut", True), ("apart", False)):
        same_runs(sae.train(x, configs, tmp_path / name, resume=True, together=together), whole)
        for number in range(3):
            files = [
                (tmp_path / run / f"{number:02d}" / "metrics.jsonl").read_bytes() for run in ("whole", name)
            ]
            assert files[0] == files[1]


def test_metrics_are_told_to_whoever_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = planted(1000)
    heard: list[dict[str, float]] = []
    run = sae.train(x, CONFIG, tmp_path / "one", watch=lambda line: heard.append(dict(line)))
    assert [line["fvu"] for line in heard] == run.history["fvu"].tolist()
    heard.clear()
    sae.train(
        x, [CONFIG, replace(CONFIG, seed=1)], tmp_path / "two", watch=lambda line: heard.append(dict(line))
    )
    assert {name for line in heard for name in line} >= {"step", "00/fvu", "01/fvu"}
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install interp-toolkit\[wandb\]"):
        sae.to_wandb("project")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"pip install interp-toolkit\[tensorboard\]"):
        sae.to_tensorboard(tmp_path)


def test_the_window_of_the_dead_grows_with_the_dictionary_and_with_the_run() -> None:
    base = sae.TrainConfig(d_sae=1024, k=16, steps=400, batch_size=1024)
    assert base.window == 4096 == 64 * 1024 // 16  # sixty-four firings of an average latent
    assert replace(base, d_sae=2048).window == 8192
    assert replace(base, steps=40_000).window == 409_600  # a hundredth of a long run
    assert replace(base, steps=20).window == 2 * 1024  # at most a tenth of a short one
    assert replace(base, steps=5).window == 1024
    assert replace(base, dead_after=7).window == 7


def test_warnings_say_what_they_saw_and_name_a_remedy() -> None:
    fine = {"step": 100.0, "dead": 0.05, "l0": 3.0, "fvu": 0.2, "lr": 1e-3}
    config = replace(CONFIG, steps=1000)
    assert advice(fine, config) == {}
    early = fine | {"step": 40.0, "dead": 0.5, "l0": 0.0, "fvu": 3.0}
    assert advice(early, config) == {}  # nothing is said in the first twentieth
    told = advice(early | {"step": 100.0}, config)
    assert f"not fired in the last {config.window} rows" in told["dead"]
    assert "50% of the latents are dead at step 100" in told["dead"]
    assert "raise dead_after if they are only rare" in told["dead"]
    assert "rows use 0 codes" in told["l0"]
    assert "lower lr" in told["l0"]
    assert "FVU is 3 at step 100, worse than the mean: lower lr (now 0.001)" in told["fvu"]
    relu = advice(early | {"step": 100.0}, replace(config, kind="relu"))
    assert "lower sparsity" in relu["l0"]
    assert "set resample_every" in relu["dead"]
