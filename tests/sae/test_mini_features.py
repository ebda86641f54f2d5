"""A dictionary of mini's middle: the loss it keeps and what its latents are signs of, with controls beside."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import interp
import sae
from interp.toys import language

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SITE = "blocks.1.hook_resid_post"
K = 10


def untrained(model: interp.Model) -> interp.Model:
    module, generator = copy.deepcopy(model.module), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim > 1:
                value.copy_(0.02 * torch.randn(value.shape, generator=generator))
            else:
                value.fill_(float(name.endswith("weight")))
    return interp.load(module)


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return interp.load("mini")


@pytest.fixture(scope="module")
def held() -> interp.toys.Sample:
    return interp.toys.embedded("mini").sample(20_000, seed=1)


def trained(model: interp.Model) -> sae.Coder:
    tokens = interp.toys.embedded("mini").sample(60_000).tokens
    rows = model.capture(tokens, SITE, batch_size=64).rows(SITE)
    return sae.train(rows, sae.TrainConfig(d_sae=512, k=K, steps=500, batch_size=512)).coder


@pytest.fixture(scope="module")
def coder(model: interp.Model) -> sae.Coder:
    return trained(model)


class Pca:
    """The leading components as a coder."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.d_in, self.mean = rows.shape[1], rows.double().mean(0)
        centred = rows.double() - self.mean
        self.basis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -K:]

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x.double() - self.mean) @ self.basis

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes @ self.basis.T + self.mean).float()


def test_ten_codes_a_token_keep_the_models_loss_and_ten_components_do_not(
    model: interp.Model, coder: sae.Coder, held: interp.toys.Sample
) -> None:
    found = sae.evaluate(coder, held.tokens, model=model, site=SITE)
    assert found.l0 <= 12
    assert found.recovered["ce"] >= 0.95
    rows = model.capture(held.tokens, SITE, batch_size=64).rows(SITE)
    assert float(sae.loss_recovered(Pca(rows), model, held.tokens, SITE).value) < 0.6


def test_latents_tell_what_needs_context_better_than_those_of_an_untrained_network(
    model: interp.Model, coder: sae.Coder, held: interp.toys.Sample
) -> None:
    """Labels of words are in the embedding of any network; agreement is not."""
    labels = {"agreement": held.labels["agreement"]}
    blank = untrained(model)
    scores = []
    for network, one in ((model, coder), (blank, trained(blank))):
        codes = sae.encode(one, network, held.tokens, SITE)
        table = sae.label_latents(codes, labels, names=language.LABELS, among="labelled")
        scores.append(float(np.mean(table.value)))
    assert scores[0] > scores[1] + 0.05
