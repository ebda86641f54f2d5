"""The protocol around a probe: scores, codelength, baselines, transfer, fewer rows, each where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import interp
from interp.errors import InputError
from interp.toys import Shape, Transformer
from probes import auroc, brier, calibration_error, mdl, selectivity, sweep
from probes.sweep_result import Sweeps


def construction(n: int = 2000, d: int = 64, c: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, c, n)
    return rng.normal(size=(n, d)) + 0.45 * rng.normal(size=(c, d))[y], y


def test_auroc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 200), rng.integers(0, 5, 200).astype(float)
    assert auroc(s, y) == pytest.approx(roc_auc_score(y, s))
    y, p = rng.integers(0, 4, 300), rng.dirichlet(np.ones(4), 300)
    assert auroc(p, y) == pytest.approx(roc_auc_score(y, p, multi_class="ovr", average="macro"))
    with pytest.raises(InputError, match="all of one"):
        auroc(s, np.ones(200, dtype=int))


def test_calibration_is_what_it_says() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    y = np.array([0, 1, 1, 1])
    assert brier(p, y) == pytest.approx((0.02 + 1.62 + 0.18 + 0.18) / 4)
    assert calibration_error(p, y) == pytest.approx((0.4 + 0.3) / 2)


def test_real_labels_cost_less_than_uniform_and_permuted_ones_more() -> None:
    x, y = construction()
    real = mdl(x, y, seeds=[0, 1])
    permuted = mdl(x, np.random.default_rng(1).permutation(y), seeds=[0, 1])
    uniform = len(y) * np.log2(10)
    assert real.chance == pytest.approx(uniform)
    assert real.interval[1] < 0.75 * uniform
    assert permuted.interval[0] > 1.05 * uniform
    assert real.compression > 1.3 > 1 > permuted.compression


def test_a_label_that_rows_give_away_costs_little_more_than_its_first_block() -> None:
    y = np.arange(400) % 2
    rows = np.stack([y * 20.0, np.zeros(400)], 1)
    told = mdl(rows, y, seeds=[0])
    assert told.value < 40  # 400 bits uniformly; each of ten blocks costs a few bits of smoothing
    unseen = mdl(rows, np.where(np.arange(400) == 399, 2, y), seeds=[0])
    assert np.isfinite(unseen.value)  # a class that no prefix holds is paid for, not impossible


def test_the_control_task_is_solved_by_types_alone() -> None:
    rng = np.random.default_rng(0)
    types, y = rng.integers(0, 8, 1500), rng.integers(0, 2, 1500)
    written = np.concatenate([np.eye(8)[types] * 5, y[:, None] * 5.0, rng.normal(size=(1500, 4))], 1)
    noise = rng.normal(size=(1500, 6))
    assert abs(selectivity(written, y, types).value) < 0.1  # both are there to be read
    only = selectivity(written[:, 8:], y, types)
    assert only.interval[0] > 0.1
    none = selectivity(noise, y, types)
    assert none.interval[0] < 0.15  # control labels are unequally common: guessing them beats a half


def model_and_tokens() -> tuple[interp.Model, interp.Tokens, torch.Tensor]:
    module = Transformer(
        Shape(d_vocab=9, n_ctx=8, n_layers=2, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    with (
        torch.no_grad()
    ):  # "trained": which half the token is of is written out, which random weights do not do so well
        module.embed.weight[5:, :4] += 3
    ids = torch.randint(9, (60, 8), generator=torch.Generator().manual_seed(1))
    return interp.load(module), interp.Tokens.full(ids), (ids > 4).long()


def test_one_call_gives_every_control_baseline_and_curve() -> None:
    model, tokens, labels = model_and_tokens()
    noise = torch.randint(2, labels.shape, generator=torch.Generator().manual_seed(2))
    sites = ["blocks.*.hook_resid_post"]
    extras = ["random_init", "shuffled_tokens", "mdl", "transfer", "curve"]
    found = sweep(
        model,
        {"half": labels, "noise": noise},
        sites,
        tokens=tokens,
        seeds=[0, 1],
        probe="lda",
        extras=extras,
    )
    assert isinstance(found, Sweeps)
    half, random = found["half"], found["noise"]
    assert half.value.min() > 0.95
    assert half.auroc.min() > 0.95
    assert half.brier.max() < 0.2
    assert set(half.baselines) == {"random_init", "shuffled_tokens"}
    assert half.compression.min() > 2 > 1.02 > random.compression.max()
    assert half.transfer.shape == (2, 2)
    assert (half.transfer.diagonal() > 0.9).all()
    assert half.curve.shape == (2, 6)
    assert half.curve[0, -1] == pytest.approx(half.value[0], abs=0.02)
    assert half.curve[0, -1] >= half.curve[0, 0] - 0.05
    assert list(half.sizes) == sorted(half.sizes)
    assert abs(random.value.mean() - 0.5) < 0.08
    table = found.table()
    assert len(table) == 4
    assert {"label", "site", "accuracy", "auroc", "ece", "selectivity", "compression", "random_init"} <= set(
        table
    )
    assert len(half.plot().data) > 4
    assert half.plot_transfer().data[0].z.shape == (2, 2)
    assert len(half.plot_curve().data) == 2


def test_tokens_shuffled_with_their_labels_lose_only_what_order_gave() -> None:
    model, tokens, labels = model_and_tokens()
    before = torch.full_like(labels, -100)
    before[:, 1:] = labels[:, :-1]
    site = "blocks.1.hook_resid_post"
    own = sweep(model, labels, site, tokens=tokens, seeds=[0], probe="lda", extras=["shuffled_tokens"])
    last = sweep(model, before, site, tokens=tokens, seeds=[0], probe="lda", extras=["shuffled_tokens"])
    assert own.baselines["shuffled_tokens"][0] > 0.95  # the token itself says it, in any order
    assert (
        last.baselines["shuffled_tokens"][0] < 0.65
    )  # what stood before it is no longer what the label says


@pytest.mark.parametrize("probe", ["lda", "ridge", "mass_mean"])
def test_a_closed_form_in_a_sweep_is_the_estimator_fitted_by_itself(probe: str) -> None:
    import probes

    kinds = {"lda": probes.LDAProbe, "ridge": probes.RidgeProbe, "mass_mean": probes.MassMeanProbe}
    x, y = construction(600, 12, 3)
    groups = np.arange(600) // 5
    swept = sweep({"a": x}, y, "a", groups=groups, probe=probe, seeds=[3])
    from probes.controls import split_by_group

    test = split_by_group(groups, test_fraction=0.3, seed=3)
    rows = x.astype(np.float32)
    assert swept.accuracy[0, 0] == pytest.approx(
        kinds[probe]().fit(rows[~test], y[~test]).score(rows[test], y[test])
    )
    assert (swept.brier is None) == (probe == "ridge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extras": ["mdi"]}, "did you mean 'mdl'"),
        ({"probe": "lad"}, "did you mean 'lda'"),
        ({"extras": ["random_init"]}, "give the model, not its activations"),
        ({"extras": ["mdl"], "probe": "ridge"}, "codelength needs probabilities"),
    ],
)
def test_what_a_sweep_cannot_do_is_named(change: dict, message: str) -> None:
    x, y = construction(100, 4, 2)
    with pytest.raises(InputError, match=message):
        sweep({"a": x}, y, "a", **{"groups": "row", "seeds": [0], **change})


def test_transfer_needs_one_width() -> None:
    x, y = construction(100, 4, 2)
    with pytest.raises(InputError, match="same width only"):
        sweep({"a": x, "b": x[:, :2]}, y, "*", groups="row", seeds=[0], extras=["transfer"])
