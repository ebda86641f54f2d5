"""Evaluation: closed forms for perfect, mean and PCA-like coders, and the match with a known dictionary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sae
from interp.errors import InputError
from interp.results import Result


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


def test_an_evaluation_is_saved_drawn_and_told(tmp_path: Path) -> None:
    result = sae.evaluate(perfect(5), gaussian(100, 5, 0))
    loaded = Result.load(result.save(tmp_path / "e"))
    assert isinstance(loaded, sae.Evaluation)
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
