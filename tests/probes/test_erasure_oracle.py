"""LEACE beside the published package (its figures are in a file), at full width, and over twelve sites in a pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.toys import Shape, Transformer
from probes import LogisticProbe, audit_erasure, inlp, leace, oracle_leace, rlace

FIGURES = json.loads((Path(__file__).parents[1] / "data/erasure/concept_erasure_0_2_4.json").read_text())


def concept(
    n: int, d: int, size: float, *, n_classes: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Correlated rows about a far mean, with a concept along random directions: what the file's figures are of."""
    rng = np.random.default_rng(seed)
    z = rng.integers(0, n_classes, n)
    mixing = rng.normal(size=(d, d)) / d**0.5 + np.eye(d) * 0.3
    x = rng.normal(size=(n, d)) @ mixing + 40 * rng.normal(size=d)
    written = rng.normal(size=(n_classes, d))
    written /= np.linalg.norm(written, axis=1)[:, None]
    return x + size * written[z], z


def test_with_a_relative_tolerance_the_published_package_says_the_same() -> None:
    known = FIGURES["strong"]
    x, z = concept(**known["construction"])
    for eraser, name in ((leace(x, z), "leace"), (leace(x, z, orthogonal=True), "orth")):
        np.testing.assert_allclose(eraser(x)[:5], known[f"{name}_rows"], atol=1e-8)
        assert eraser.distortion == pytest.approx(known[f"{name}_distortion"], rel=1e-9)
    exact = oracle_leace(x, z)
    np.testing.assert_allclose(exact(x, z)[:5], known["oracle_rows"], atol=1e-8)
    assert leace(x, z).distortion < known["default_distortion"]  # whose shrinkage costs distortion


def test_a_weak_concept_that_the_published_default_leaves_untouched_is_erased() -> None:
    known = FIGURES["weak"]
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 200_000)
    x = rng.normal(size=(200_000, 16)) @ (np.eye(16) + 0.1 * rng.normal(size=(16, 16))) + 40
    x[:, :3] += 0.005 * z[:, None]
    assert known["default"]["untouched"]
    assert known["default"]["after"] == known["default"]["before"] > 1e-3
    eraser = leace(x, z)
    assert eraser.before == pytest.approx(known["default"]["before"], rel=1e-6)
    assert eraser.left_over <= 1e-10
    np.testing.assert_allclose(eraser(x[:1])[0], known["tolerant"]["row"], atol=1e-6)
    assert eraser.distortion == pytest.approx(known["tolerant"]["distortion"], rel=1e-6)


def test_a_strong_concept_in_768_dimensions_is_erased_exactly_and_no_probe_reads_it() -> None:
    x, z = concept(6000, 768, 3.0)
    train, test = slice(0, 4000), slice(4000, 6000)
    eraser = leace(x[train], z[train])
    assert eraser.correlations.max() >= 0.3
    assert eraser.rank == 1
    gone = eraser(x[train])
    relative = (
        np.abs((gone - gone.mean(0)).T @ (z[train] - z[train].mean())) / 4000 / gone.std(0) / z[train].std()
    )
    assert relative.max() <= 1e-10
    audit = audit_erasure(
        eraser, x[train], z[train], x_test=x[test], z_test=z[test], probe=LogisticProbe(C=0.01, tol=1e-6)
    )
    assert audit.before > 0.7  # a probe detected it
    assert audit.weight < 1e-6
    assert audit.loss == pytest.approx(audit.entropy, abs=1e-9)
    assert audit.erased
    assert audit.interval[0] <= audit.chance <= audit.interval[1]


def test_leace_changes_least_of_all_that_erase_in_many_dimensions() -> None:
    x, z = concept(1500, 48, 2.0)
    made = leace(x, z)
    tried = [leace(x, z, orthogonal=True), inlp(x, z), inlp(x, z, n_steps=2), rlace(x, z, n_steps=60)]
    that_erase = [one for one in tried if one.left_over <= 1e-8]
    assert that_erase
    assert all(one.distortion > made.distortion for one in that_erase)
    assert max(one.left_over for one in tried) > 0.01  # the others change less where they leave it in
    assert oracle_leace(x, z).distortion < made.distortion  # which is told z: the bound


def test_twelve_sites_are_erased_after_one_pass_of_the_model() -> None:
    module = Transformer(
        Shape(d_vocab=9, n_ctx=8, n_layers=12, d_model=16, n_heads=2, d_mlp=16),
        generator=torch.Generator().manual_seed(0),
    )
    seen = []
    module.blocks[11].register_forward_hook(lambda block, given, out: seen.append(len(given[0])))
    model, ids = interp.load(module), torch.randint(9, (90, 8), generator=torch.Generator().manual_seed(1))
    label = (ids > 4).long()
    seen.clear()  # the adapter proves itself with passes of its own
    moments = interp.Moments.stream(
        model,
        interp.Tokens.full(ids),
        "blocks.*.hook_resid_post",
        labels=label,
        products="float64",
        batch_size=30,
    )
    erasers = {site: leace(moments[site]) for site in moments.sites}
    assert len(erasers) == 12
    assert sum(seen) == len(ids)  # every text once, for all sites together
    acts = model.capture(interp.Tokens.full(ids), "blocks.*.hook_resid_post")
    for site, eraser in erasers.items():
        rows = acts.rows(site).double().numpy()
        assert eraser.before > 0.1
        gone = eraser(rows)
        apart = (gone - gone.mean(0)).T @ (label.flatten().numpy() - label.double().mean().item()) / len(gone)
        assert (
            np.abs(apart).max() / rows.std(0).max() <= 1e-7
        )  # another batch: a float32 pass differs in its last digits
        assert eraser.left_over <= 1e-10
