"""Labels of latents: every AUROC against a dense one, planted latents found, chance where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from interp.errors import InputError
from sae.codes import Codes
from sae.labels import IGNORE, Ranked, auroc_table, label_latents


def codes_from(dense: np.ndarray) -> Codes:
    by_latent = sp.csc_array(dense.astype(np.float32))
    return Codes(
        starts=by_latent.indptr.astype(np.int64),
        rows=by_latent.indices.astype(np.int32),
        values=by_latent.data,
        n=len(dense),
    )


def sparse(n: int, d: int, seed: int, *, signed: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.round(rng.uniform(-1 if signed else 0, 1, (n, d)), 1)  # rounded: many ties
    return values * (rng.random((n, d)) < 0.3)


@pytest.mark.parametrize("signed", [False, True])
def test_sparse_aurocs_are_the_dense_ones_ties_and_all(signed: bool) -> None:
    dense = sparse(200, 9, 0, signed=signed)
    dense[:, 8] = 0  # never fires
    values = np.random.default_rng(1).integers(0, 4, 200)
    values[:20] = IGNORE
    found = auroc_table(Ranked(codes_from(dense)), values, [0, 2, 3])
    for i, v in enumerate((0, 2, 3)):
        want = [roc_auc_score(values == v, dense[:, j]) for j in range(9)]
        np.testing.assert_allclose(found["auroc"][i], want, atol=1e-6)
        fires, has = dense != 0, values == v
        np.testing.assert_allclose(
            found["precision"][i], (fires & has[:, None]).sum(0) / np.maximum(fires.sum(0), 1), rtol=1e-6
        )
        np.testing.assert_allclose(found["recall"][i], (fires & has[:, None]).sum(0) / has.sum(), rtol=1e-6)


def test_a_subset_of_rows_is_ranked_by_itself() -> None:
    dense, rows = sparse(200, 5, 3), np.arange(200) % 3 > 0
    values = np.random.default_rng(2).integers(0, 2, 200)
    found = auroc_table(Ranked(codes_from(dense), rows), values, [1])
    want = [roc_auc_score(values[rows] == 1, dense[rows, j]) for j in range(5)]
    np.testing.assert_allclose(found["auroc"][0], want, atol=1e-6)


def planted(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Latents 4 and 7 are signs of values 0 and 1; the others of nothing."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, n)
    dense = sparse(n, 12, 1)
    dense[:, 4] = np.where(values == 0, 1 + rng.random(n), 0)
    dense[:, 7] = np.where((values == 1) & (rng.random(n) < 0.6), 1.0, 0)
    return dense, values


def test_planted_latents_are_found_and_told_on_other_texts() -> None:
    dense, values = planted()
    table = label_latents(codes_from(dense), {"thing": values}, names={"thing": ("a", "b", "c", "d", "e")})
    frame = table.to_frame().set_index("concept")
    assert frame.loc["thing = a", "latent"] == 4
    assert frame.loc["thing = a", "auroc"] == pytest.approx(1)
    assert frame.loc["thing = b", "latent"] == 7
    assert frame.loc["thing = b", "auroc"] == pytest.approx(0.8, abs=0.03)  # 0.5 + 0.6 / 2, 400 tokens
    assert frame.loc["thing = b", "precision"] == pytest.approx(1)
    assert frame.loc["thing = b", "recall"] == pytest.approx(0.6, abs=0.06)
    assert abs(frame.loc["thing = d", "auroc"] - 0.5) < 0.05  # nothing tells it: held out, chance is chance
    assert table.of_latents() == {
        4: ("thing = a", pytest.approx(1.0)), 7: ("thing = b", pytest.approx(0.8, abs=0.03)),
    }  # fmt: skip


def test_negatives_may_be_the_labelled_tokens_only() -> None:
    dense, values = planted()
    hidden = np.where(values >= 3, IGNORE, values)
    everyone = label_latents(codes_from(dense), {"thing": hidden})
    labelled = label_latents(codes_from(dense), {"thing": hidden}, among="labelled")
    assert labelled.n < everyone.n
    assert labelled.concepts == ("thing = 0", "thing = 1", "thing = 2")
    assert labelled.latent[0] == everyone.latent[0] == 4


def test_the_error_of_an_auroc_is_that_of_repeated_draws() -> None:
    draws = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 2, 800)
        dense = (rng.random((800, 1)) + 0.3 * values[:, None]).round(3)
        draws.append(label_latents(codes_from(dense), {"x": values}))
    spread = np.std([d.value[1] for d in draws], ddof=1)
    assert np.mean([d.stderr[1] for d in draws]) == pytest.approx(spread, rel=0.4)


def test_bad_labels_are_named() -> None:
    codes = codes_from(sparse(200, 3, 0))
    with pytest.raises(InputError, match="no value of x has 20 tokens"):
        label_latents(codes, {"x": np.full(200, IGNORE)})
    with pytest.raises(InputError, match="codes of bare rows"):
        label_latents(codes, {"x": np.zeros((2, 3), dtype=int)})
    with pytest.raises(InputError, match="'all' or 'labelled'"):
        label_latents(codes, {"x": np.zeros(200, dtype=int)}, among="some")
