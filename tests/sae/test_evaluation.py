"""Evaluation: closed forms for perfect, mean and PCA-like coders, and the match with a known dictionary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sae
from interp.errors import InputError
from interp.results import Result
from sae.evaluation import Evaluation


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def perfect(d: int) -> sae.Coder:
    """2 d latents, each coordinate's positive and negative part: reconstructs everything."""
    coder = sae.Coder(d, 2 * d, d)
    basis = torch.cat([torch.eye(d), -torch.eye(d)])
    with torch.no_grad():
        coder.W_dec.copy_(basis)
        coder.W_enc.copy_(basis.T)
    return coder


def test_a_perfect_coder_leaves_nothing_unexplained() -> None:
    result = sae.evaluate(perfect(5), gaussian(300, 5, 0))
    assert result.value == pytest.approx(0, abs=1e-12)
    assert result.explained_variance == pytest.approx(1)
    assert result.l0 == pytest.approx(5)
    assert (result.dead, result.cosine) == (0.0, pytest.approx(1))
    np.testing.assert_allclose(result.density, 0.5, atol=0.12)  # half of 300 draws, four standard errors


def test_a_coder_that_always_says_the_mean_leaves_everything() -> None:
    x = gaussian(300, 5, 0) + 9
    silent = sae.Coder(5, 8, 2)
    with torch.no_grad():
        silent.b_enc.fill_(-1e6)
        silent.b_dec.copy_(x.mean(0))
    result = sae.evaluate(silent, x)
    assert result.value == pytest.approx(1, rel=1e-6)
    assert (result.l0, result.dead) == (0.0, 1.0)


def test_fvu_pools_errors_and_powers_over_rows_before_the_ratio() -> None:
    x = gaussian(400, 2, 5) * torch.tensor([3.0, 1.0])
    x = x - x.mean(0)
    coder = sae.Coder(2, 2, 1)  # writes the first coordinate, never the second
    with torch.no_grad():
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        coder.W_enc.copy_(coder.W_dec.T)
    result = sae.evaluate(coder, x)
    power = x.double().square()
    assert result.value == pytest.approx(float(power[:, 1].sum() / power.sum()), rel=1e-5)
    assert result.value != pytest.approx(
        float((power[:, 1] / power.sum(1)).mean()), rel=0.2
    )  # the per-row convention
    np.testing.assert_allclose(result.row_error, power[:, 1], rtol=1e-4, atol=1e-8)


def test_the_pca_baseline_is_the_tail_of_the_spectrum() -> None:
    x = gaussian(500, 6, 1) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    coder = sae.Coder(6, 12, 2)
    eigenvalues = torch.linalg.svdvals(x.double() - x.double().mean(0)).square()
    result = sae.evaluate(coder, x)
    assert result.baselines["PCA, 2 components"] == pytest.approx(
        float(eigenvalues[2:].sum() / eigenvalues.sum()), rel=1e-9
    )


def test_a_random_dictionary_with_as_many_codes_as_dimensions_is_complete() -> None:
    result = sae.evaluate(perfect(4), gaussian(200, 4, 2))
    assert result.baselines["random dictionary"] == pytest.approx(0, abs=1e-9)
    fewer = sae.evaluate(sae.Coder(4, 40, 1), gaussian(200, 4, 2)).baselines["random dictionary"]
    assert 0.05 < fewer < 0.6  # one of 40 directions in 4 dimensions: near, never through


def test_the_error_of_fvu_is_that_of_repeated_draws() -> None:
    coder = sae.Coder(8, 24, 2, seed=3)
    draws = [sae.evaluate(coder, gaussian(400, 8, s)) for s in range(25)]
    spread = np.std([r.value for r in draws], ddof=1)
    assert np.mean([r.stderr for r in draws]) == pytest.approx(spread, rel=0.4)


def scaled(d: int, factor: float) -> sae.Coder:
    """Finds every row and writes ``factor`` times it."""
    coder = perfect(d)
    with torch.no_grad():
        coder.W_enc.mul_(factor)
    return coder


def test_sizes_of_a_coder_that_writes_too_little_have_closed_forms() -> None:
    x = gaussian(400, 5, 0)
    result = sae.evaluate(scaled(5, 0.8), x)
    power = x.double().square().sum(1)
    assert result.shrinkage == pytest.approx(0.2, abs=1e-6)
    assert result.relative_bias == pytest.approx(0.8, abs=1e-6)
    assert result.norm_ratio == pytest.approx(0.8, abs=1e-6)
    assert result.mse == pytest.approx(0.04 * float(power.mean()), rel=1e-5)
    assert result.l1 == pytest.approx(0.8 * float(x.abs().sum(1).mean()), rel=1e-5)
    assert result.cosine_raw == pytest.approx(1)
    np.testing.assert_allclose(result.strongest[:5], 0.8 * x.amax(0), rtol=1e-5)


def test_length_of_codes_counts_the_length_of_directions() -> None:
    x, longer = gaussian(100, 5, 0), perfect(5)
    with torch.no_grad():
        longer.W_dec.mul_(4)
        longer.W_enc.div_(4)
    assert sae.evaluate(longer, x).l1 == pytest.approx(sae.evaluate(perfect(5), x).l1, rel=1e-6)


def test_explained_variance_of_rows_weighs_each_row_alike() -> None:
    x = torch.cat([gaussian(50, 4, 0), 100 * gaussian(50, 4, 1)])
    x = x - x.mean(0)
    coder = sae.Coder(4, 2, 1)
    with torch.no_grad():
        coder.W_dec.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
        coder.W_enc.copy_(coder.W_dec.T)
    result = sae.evaluate(coder, x)
    power = x.double().square()
    by_row = float((power[:, 0] / power.sum(1)).mean())
    assert result.explained_variance_per_row == pytest.approx(by_row, rel=1e-4)
    assert result.explained_variance == pytest.approx(float(power[:, 0].sum() / power.sum()), rel=1e-4)


def test_densities_are_counted_dense_latents_and_all() -> None:
    x = torch.eye(4).repeat(25, 1)
    coder = perfect(4)  # the first four fire on a quarter of the rows each, the others never
    result = sae.evaluate(coder, x)
    np.testing.assert_allclose(result.density, [0.25] * 4 + [0] * 4)
    assert (result.dead, result.dense) == (0.5, 0.5)
    edges = np.arange(-7.0, 0.5, 0.5)
    assert result.density_histogram[np.searchsorted(edges, np.log10(0.25)) - 1] == 4
    assert result.density_histogram.sum() == 4


def test_a_transcoder_is_judged_on_its_targets() -> None:
    x = gaussian(200, 5, 0)
    coder = sae.Coder(5, 10, 5, wiring="transcoder", d_out=3)
    weight = gaussian(5, 3, 1)
    with torch.no_grad():
        coder.W_enc.copy_(torch.cat([torch.eye(5), -torch.eye(5)]).T)
        coder.W_dec.copy_(torch.cat([weight, -weight]))
    assert sae.evaluate(coder, (x, x @ weight)).value == pytest.approx(0, abs=1e-9)
    with pytest.raises(InputError, match=r"writes rows of width 3; the targets have 5"):
        sae.evaluate(coder, (x, x))
    with pytest.raises(InputError, match=r"give a pair \(rows, targets\)"):
        sae.evaluate(coder, x)


def test_an_evaluation_is_saved_drawn_and_told(tmp_path: Path) -> None:
    result = sae.evaluate(perfect(5), gaussian(100, 5, 0))
    loaded = Result.load(result.save(tmp_path / "e"))
    assert isinstance(loaded, Evaluation)
    assert loaded.baselines == result.baselines
    assert [len(trace.x) for trace in result.plot().data] == [1, 2]


def test_another_width_and_constant_rows_are_named() -> None:
    with pytest.raises(InputError, match="reads rows of width 5; tensor has 4"):
        sae.evaluate(perfect(5), gaussian(10, 4, 0))
    with pytest.raises(InputError, match="no variance"):
        sae.evaluate(perfect(5), torch.ones(10, 5))


def test_a_dictionary_matches_itself_in_any_order_and_not_its_negative() -> None:
    truth = gaussian(10, 8, 0)
    assert sae.match_dictionary(3 * truth[torch.randperm(10)], truth).value == pytest.approx(1, rel=1e-6)
    assert sae.match_dictionary(-truth[:1], truth[:1]).value == pytest.approx(-1, rel=1e-6)
    with pytest.raises(InputError, match="8 wide, the true ones 7"):
        sae.match_dictionary(truth, gaussian(3, 7, 0))
