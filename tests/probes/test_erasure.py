"""Erasure: the guarantee holds to rounding, weak concept or strong, at the least distortion; others are measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.toys import Shape, Transformer
from probes import (
    LDAProbe,
    LogisticProbe,
    amnesic,
    audit_erasure,
    forgetting,
    inlp,
    leace,
    oracle_leace,
    quadratic_leace,
    rece,
    rlace,
    uce,
)
from tests.interp.oracles import metric_data

VALUES = Path(metric_data.__file__).with_name("metric_values.json")
ORACLES = json.loads(VALUES.read_text("utf-8"))["values"]


def concept(n: int, d: int, size: float, *, n_classes: int = 2, seed: int = 0, far: float = 40.0):
    """Correlated rows about a far mean, with a concept written along random directions."""
    rng = np.random.default_rng(seed)
    z = rng.integers(0, n_classes, n)
    mixing = rng.normal(size=(d, d)) / d**0.5 + np.eye(d) * 0.3
    x = rng.normal(size=(n, d)) @ mixing + far * rng.normal(size=d)
    written = rng.normal(size=(n_classes, d))
    written /= np.linalg.norm(written, axis=1)[:, None]
    return x + size * written[z], z


def test_a_weak_concept_is_erased_exactly() -> None:
    # below an absolute tolerance of 0.01 on canonical correlations, where an eraser with such a one does nothing
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 200_000)
    x = rng.normal(size=(200_000, 16)) @ (np.eye(16) + 0.1 * rng.normal(size=(16, 16))) + 40
    x[:, :3] += 0.005 * z[:, None]
    eraser = leace(x, z)
    assert 0 < eraser.correlations.max() < 0.01
    assert eraser.before > 1e-4
    assert eraser.left_over <= 1e-10
    gone = eraser(x)
    relative = np.abs((gone - gone.mean(0)).T @ (z - z.mean())) / len(z) / gone.std(0) / z.std()
    assert relative.max() <= 1e-10


def test_a_strong_concept_is_erased_exactly_and_a_refit_knows_nothing() -> None:
    x, z = concept(3000, 96, 2.0, n_classes=3)
    eraser = leace(x[:2000], z[:2000])
    assert eraser.correlations.max() > 0.3
    audit = audit_erasure(eraser, x[:2000], z[:2000], x_test=x[2000:], z_test=z[2000:])
    assert audit.before > 0.6  # it was there
    assert audit.correlation <= 1e-10
    assert audit.weight < 1e-6
    assert audit.loss == pytest.approx(audit.entropy, abs=1e-10)
    assert audit.erased
    assert eraser.rank == 2


def test_leace_changes_least_among_the_erasers_that_erase_and_the_oracle_less() -> None:
    x, z = concept(1500, 12, 1.0)
    made = leace(x, z)
    orthogonal = leace(x, z, orthogonal=True)
    nulled, adversarial = inlp(x, z), rlace(x, z, n_steps=150)
    assert orthogonal.left_over < 1e-10
    assert oracle_leace(x, z).distortion < made.distortion < orthogonal.distortion
    assert made.distortion == pytest.approx(((made(x) - x) ** 2).sum(1).mean(), rel=1e-8)
    assert nulled.rank >= made.rank
    for other in (nulled, adversarial):  # no guarantee, but a probe is left near the majority
        assert audit_erasure(other, x, z).value < 0.6 < audit_erasure(made, x, z).before


def test_erasers_are_those_of_the_published_library_once_its_tolerances_are_closed() -> None:
    x, z = metric_data.pair()[0], metric_data.concept().argmax(1)
    eraser = leace(x, z)
    np.testing.assert_allclose(eraser(x)[0], ORACLES["concept-erasure leace row 0"], rtol=1e-6)
    assert eraser.distortion == pytest.approx(ORACLES["concept-erasure leace distortion"], rel=1e-6)
    orthogonal = leace(x, z, orthogonal=True)
    assert orthogonal.distortion == pytest.approx(ORACLES["concept-erasure orth distortion"], rel=1e-6)


def test_it_erases_once_keeps_the_mean_and_is_the_closed_form() -> None:
    x, z = concept(400, 5, 1.0)
    eraser = leace(x, z)
    gone = eraser(x)
    np.testing.assert_allclose(gone.mean(0), x.mean(0), atol=1e-10)
    np.testing.assert_allclose(eraser(gone), gone, atol=1e-9)
    xc, zc = x - x.mean(0), (z - z.mean())[:, None]
    values, vectors = np.linalg.eigh(xc.T @ xc / len(x))
    w = (vectors / values**0.5) @ vectors.T
    u = w @ xc.T @ zc
    u /= np.linalg.norm(u)
    np.testing.assert_allclose(gone, x - xc @ w @ u @ u.T @ np.linalg.inv(w), atol=1e-8)
    single = torch.tensor(x, dtype=torch.float32)
    assert eraser(single).dtype == torch.float32
    np.testing.assert_allclose(eraser(single).numpy(), gone, atol=1e-4)


def test_one_pass_over_all_sites_gives_the_erasers_of_the_rows() -> None:
    sites = {f"s{i}": concept(3000, 8, 1.0, n_classes=3, seed=i)[0] for i in range(3)}
    z = concept(3000, 8, 1.0, n_classes=3, seed=0)[1]
    columns = np.random.default_rng(0).normal(size=(3000, 2)) + sites["s1"][:, :2]
    moments = interp.Moments.of(
        {**sites, "z": columns}, labels=z, products="float64", cross=[(s, "z") for s in sites]
    )
    for name, x in sites.items():
        np.testing.assert_allclose(leace(moments[name])(x), leace(x, z)(x), atol=1e-7)
        np.testing.assert_allclose(leace(moments[name], moments["z"])(x), leace(x, columns)(x), atol=1e-7)


def test_columns_without_variance_and_more_columns_than_rows_are_no_obstacle() -> None:
    x, z = concept(200, 6, 1.0)
    wide = np.concatenate([x, np.full((200, 1), 3.0), x[:, :2]], 1)
    assert leace(wide, z).left_over < 1e-9
    few, labels = concept(40, 60, 1.0)
    assert leace(few, labels).left_over < 1e-8


def test_an_oracle_takes_out_what_the_concept_predicts_and_nothing_else() -> None:
    x, z = concept(500, 4, 1.0, n_classes=3)
    gone = oracle_leace(x, z)(x, z)
    means = np.stack([gone[z == k].mean(0) for k in range(3)])
    assert np.ptp(means, axis=0).max() < 1e-10
    np.testing.assert_allclose(np.cov(gone[z == 1].T), np.cov(x[z == 1].T), atol=1e-8)
    with pytest.raises(InputError, match="row 0 is of class"):
        oracle_leace(x, z)(x, z + 7)


def test_quadratic_erasure_makes_means_and_covariances_alike() -> None:
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 2000)
    x = rng.normal(size=(2000, 3)) * np.where(z[:, None] == 1, [3, 1, 0.5], [1, 1, 1])
    squares = np.concatenate([x, x**2], 1)
    assert LogisticProbe(1.0).fit(squares, z).score(squares, z) > 0.7  # a quadratic probe reads it
    eraser = quadratic_leace(x, z)
    gone = eraser(x, z)
    assert eraser.left_over < 1e-8
    np.testing.assert_allclose(np.cov(gone[z == 0].T), np.cov(gone[z == 1].T), rtol=1e-2, atol=1e-2)
    assert (
        LogisticProbe(1.0)
        .fit(np.concatenate([gone, gone**2], 1), z)
        .score(np.concatenate([gone, gone**2], 1), z)
        < 0.56
    )  # 2000 rows: a standard error of 0.011, and six columns to overfit with
    with pytest.raises(InputError, match="its covariance is singular"):
        quadratic_leace(x[:5], np.array([0, 0, 0, 1, 1]))


def test_concept_edits_reach_their_target_and_hold_what_is_preserved() -> None:
    g = torch.Generator().manual_seed(0)
    weight, keys, values = (
        torch.randn(*s, generator=g, dtype=torch.float64) for s in ((6, 9), (2, 9), (2, 6))
    )
    kept = torch.randn(3, 9, generator=g, dtype=torch.float64)
    edited = uce(weight, keys, values, preserve=kept, strength=1e-9)
    torch.testing.assert_close(edited @ keys.T, values.T, atol=1e-7, rtol=0)
    torch.testing.assert_close(edited @ kept.T, weight @ kept.T, atol=1e-7, rtol=0)
    torch.testing.assert_close(
        uce(weight, keys, keys @ weight.T), weight
    )  # asking for what is there changes nothing

    # the edited weight can still be led to the concept; after rounds of hunting less of it is within reach
    def reach(w: torch.Tensor) -> float:
        found = torch.linalg.lstsq(w, weight @ keys.T).solution
        return float(found.norm())

    blank = torch.zeros(2, 6, dtype=torch.float64)
    assert reach(rece(weight, keys, blank, strength=0.1)) > 1.5 * reach(
        uce(weight, keys, blank, strength=0.1)
    )


def test_what_is_only_hidden_from_the_readout_is_recovered_and_what_is_gone_is_not() -> None:
    x, z = concept(2000, 8, 2.0, far=0.0)
    turned = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0] + 3
    moved = dict(zip(forgetting(x, turned, z).ticks[0], forgetting(x, turned, z).value, strict=True))
    assert moved["old readout, new features"] < 0.6
    assert moved["old readout, recovered features"] == moved["old readout, old features"] > 0.8
    gone = forgetting(x, leace(x, z)(x), z)
    assert (np.asarray(gone.value)[:3] < 0.56).all()  # 1000 rows: three standard errors above a half


def test_amnesia_hurts_where_the_model_reads_and_nowhere_else() -> None:
    module = Transformer(
        Shape(d_vocab=6, n_ctx=4, n_layers=1, d_model=16, n_heads=2, d_mlp=16),
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        module.unembed.weight[:, 8:] = 0  # the last eight directions reach no logit
        written = module.embed.weight[3:].mean(0) - module.embed.weight[:3].mean(0)
        sign = torch.tensor([-1.0, -1, -1, 1, 1, 1])
        module.unembed.weight[:, :8] = (
            sign[:, None] * written[:8]
        )  # and the logits read the label from the others
        for p in (module.blocks[0].attn.o.weight, module.blocks[0].mlp.down.weight):
            p.zero_()
    model, site = interp.load(module), "blocks.0.hook_resid_post"
    ids = torch.randint(6, (60, 4), generator=torch.Generator().manual_seed(1))
    rows = model.capture(ids, site).rows(site)
    label = (ids > 2).long().flatten()
    eraser = leace(rows, label)

    def own(logits: torch.Tensor) -> torch.Tensor:
        return logits.gather(-1, ids[..., None]).mean((1, 2))

    hurt = amnesic(model, ids, site, eraser, own, n_controls=9)
    assert abs(hurt.value) > 2 * np.abs(hurt.controls).mean()
    assert hurt.p_value <= 0.2
    silent = torch.zeros(16, 16)
    silent[8:, 8:] = torch.eye(8)
    only = leace(rows @ silent, label)
    harmless = amnesic(model, ids, site, only, own, n_controls=3)
    assert harmless.value == pytest.approx(0, abs=1e-6)


def test_unusable_concepts_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(InputError, match=r"one class only \(1\)"):
        leace(x, np.ones(20, dtype=int))
    with pytest.raises(InputError, match="3 concept values were given for 20 rows"):
        leace(x, np.array([0, 1, 1]))
    x[4] = np.nan
    with pytest.raises(InputError, match="NaN or infinity in 1 rows, the first of them row 4"):
        leace(x, np.arange(20) % 2)
    with pytest.raises(InputError, match="of width 3"):
        leace(np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2)(np.zeros((2, 4)))


def test_a_probe_from_moments_reads_nothing_after_erasure() -> None:
    x, z = concept(1000, 6, 2.0)
    gone = leace(x, z)(x)
    assert LDAProbe().fit(x, z).score(x, z) > 0.8
    assert np.abs(LDAProbe(alpha=1.0).fit(gone, z).coef_).max() < 1e-9
