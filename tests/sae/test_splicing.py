"""A coder inside its model: the ends of the loss scale, brute force, edits that come off, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
import sae
from interp.errors import InputError, ModelError
from sae.splicing import splice
from tests.models import loaded, random_model
from tests.sae.test_evaluation import perfect

SITE = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return loaded("gpt2", "transformers")


def silent(d: int, bias: Tensor | float = 0.0) -> sae.Coder:
    """Writes the same whatever it reads."""
    coder = sae.Coder(d, 8, 2)
    with torch.no_grad():
        coder.b_enc.fill_(-1e6)
        coder.b_dec.copy_(torch.as_tensor(bias).expand(d))
    return coder


def ids(model: interp.Model, n: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.d_vocab or 0, (n, 7), generator=generator)


def test_a_perfect_coder_recovers_all_of_the_loss(model: interp.Model) -> None:
    found = sae.loss_recovered(perfect(model.d_model or 0), model, ids(model), SITE)
    assert found.value == pytest.approx(1, abs=1e-5)  # float32 logits
    assert found.losses["ce_spliced"] == pytest.approx(found.losses["ce_clean"], abs=1e-5)
    assert found.kl == pytest.approx(1, abs=1e-6)


def test_a_coder_that_writes_zero_or_the_mean_is_that_ablation(model: interp.Model) -> None:
    d = model.d_model or 0
    zero = sae.loss_recovered(silent(d), model, ids(model), SITE)
    assert (zero.ce_against_zero, zero.kl_against_zero) == (pytest.approx(0, abs=1e-9),) * 2
    assert zero.losses["ce_spliced"] == pytest.approx(zero.losses["ce_zero"], abs=1e-12)
    mean = model.capture(ids(model), SITE).rows(SITE).mean(0)
    found = sae.loss_recovered(silent(d, mean), model, ids(model), SITE)
    assert found.value == pytest.approx(0, abs=1e-4)
    assert found.kl == pytest.approx(0, abs=1e-4)


def test_losses_equal_those_of_logits_edited_by_hand_with_padding_left_out(model: interp.Model) -> None:
    coder = sae.Coder(model.d_model or 0, 40, 3, seed=1)
    short = [[5, 6, 7, 8, 9], [3, 2, 1]]
    tokens = model.tokens(short)
    found = sae.loss_recovered(coder, model, tokens, SITE, batch_size=1)
    spliced, clean, n = 0.0, 0.0, 0
    for row in short:
        one = torch.tensor([row])
        for name, edits in (("clean", []), ("spliced", [interp.edit(SITE, coder)])):
            logp = model.logits(one, edits=edits)[0, :-1].double().log_softmax(-1)
            loss = float(-logp[torch.arange(len(row) - 1), one[0, 1:]].sum())
            clean, spliced = (clean + loss, spliced) if name == "clean" else (clean, spliced + loss)
        n += len(row) - 1
    assert found.n == n == 6
    assert found.losses["ce_clean"] == pytest.approx(clean / n, rel=1e-5)
    assert found.losses["ce_spliced"] == pytest.approx(spliced / n, rel=1e-5)
    np.testing.assert_array_equal(found.text_tokens, [4, 2])


def test_the_first_token_is_left_alone_when_asked(model: interp.Model) -> None:
    coder, tokens = silent(model.d_model or 0), model.tokens([[5, 6, 7], [3, 2]], padding_side="left")
    edit = splice(coder, SITE, skip_first=True)
    before = model.capture(tokens, SITE)[SITE]
    after = model.capture(tokens, SITE, edits=[edit])[SITE]
    first = torch.tensor([[True, False, False], [False, True, False]])
    torch.testing.assert_close(after[first], before[first])
    assert float(after[~first & tokens.mask].abs().max()) == 0


def test_keeping_the_error_changes_nothing_until_a_code_changes(model: interp.Model) -> None:
    coder = sae.Coder(model.d_model or 0, 40, 3, seed=1)
    before = model.capture(ids(model), SITE)[SITE]
    same = model.capture(ids(model), SITE, edits=[splice(coder, SITE, keep_error=True)])[SITE]
    assert torch.equal(same, before)
    doubled = splice(coder, SITE, keep_error=True, codes=lambda z: 2 * z)
    after = model.capture(ids(model), SITE, edits=[doubled])[SITE]
    torch.testing.assert_close(
        after - before, coder.encode(before) @ coder.W_dec.detach(), atol=1e-5, rtol=1e-4
    )


def test_a_transcoder_reads_one_site_and_writes_another(model: interp.Model) -> None:
    d = model.d_model or 0
    coder = sae.Coder(d, 40, 3, wiring="skip", seed=1)
    with torch.no_grad():
        coder.W_skip.normal_(generator=torch.Generator().manual_seed(0))
    read, write = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
    after = model.capture(ids(model), [read, write], edits=[splice(coder, read, target=write)])
    torch.testing.assert_close(after[write], coder(after[read]).detach())
    found = sae.loss_recovered(coder, model, ids(model), read, target=write)
    assert found.provenance["target"] == write
    whole = sae.evaluate(coder, ids(model), model=model, site=read, target=write)
    acts = model.capture(ids(model), [read, write])
    assert whole.value == pytest.approx(float(sae.evaluate(coder, (acts.rows(read), acts.rows(write))).value))
    assert whole.recovered["ce"] == pytest.approx(float(found.value))
    with pytest.raises(InputError, match="a skip writes to another site than it reads: say target="):
        sae.evaluate(coder, ids(model), model=model, site=read)


def test_heads_lie_side_by_side(model: interp.Model) -> None:
    site = "blocks.1.attn.hook_z"
    found = sae.loss_recovered(perfect(model.d_model or 0), model, ids(model), site)
    assert found.value == pytest.approx(1, abs=1e-4)


def test_evaluation_reads_rows_and_loss_from_the_model(model: interp.Model) -> None:
    coder = sae.Coder(model.d_model or 0, 40, 3, seed=1)
    through = sae.evaluate(coder, ids(model), model=model, site=SITE)
    rows = model.capture(ids(model), SITE).rows(SITE)
    assert through.value == pytest.approx(float(sae.evaluate(coder, rows).value), rel=1e-6)
    loss = sae.loss_recovered(coder, model, ids(model), SITE)
    assert through.recovered["ce"] == pytest.approx(float(loss.value), rel=1e-9)
    assert through.recovered["kl_zero"] == pytest.approx(loss.losses["kl_zero"], rel=1e-9)
    fewer = sae.evaluate(coder, ids(model), model=model, site=SITE, skip_first=True)
    assert fewer.n == through.n - 6


def test_what_cannot_be_measured_is_named(model: interp.Model) -> None:
    with pytest.raises(
        InputError, match=r"reads rows of width 5; blocks.0.hook_resid_post holds .*another site"
    ):
        sae.loss_recovered(perfect(5), model, ids(model), SITE)
    with pytest.raises(InputError, match="say site="):
        sae.evaluate(perfect(model.d_model or 0), ids(model), model=model)
    with pytest.raises(InputError, match="no text has two tokens"):
        sae.loss_recovered(perfect(model.d_model or 0), model, torch.tensor([[1], [2]]), SITE)
    plain = interp.load(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))
    with pytest.raises(ModelError, match="its input is not tokens"):
        sae.loss_recovered(perfect(4), plain, torch.ones(3, 4, dtype=torch.long), "0")
    body = interp.load(random_model("gpt2").transformer)
    with pytest.raises(ModelError, match="it has no unembedding"):
        sae.loss_recovered(perfect(model.d_model or 0), body, ids(model), SITE)
