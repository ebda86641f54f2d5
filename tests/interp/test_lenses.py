"""Lenses: exact sums, exact last layers, planted futures found, and what has no future not found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError, ModelError, StoreError
from interp.lenses import (
    Translators,
    direct_logit_attribution,
    future_lens,
    future_prompt,
    logit_lens,
    train_translators,
    tuned_lens,
)
from interp.results import Result
from interp.tokens import Tokens
from interp.toys import Shape, Transformer
from tests.models import ids, loaded

DECODERS = ("gpt2", "llama", "gpt_neox", "gemma2")


def toy():
    module = Transformer(
        Shape(d_vocab=11, n_ctx=12, n_layers=2, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    return interp.load(module)


def decoder(family: str):
    return toy() if family == "toy" else loaded(family, "transformers")


def some(family: str, rows: int = 4, columns: int = 6) -> Tokens:
    return Tokens.full(ids(rows, columns) % (11 if family == "toy" else 50))


@pytest.mark.parametrize("family", [*DECODERS, "toy"])
def test_the_last_layer_reads_out_as_the_model(family: str) -> None:
    model, tokens = decoder(family), some(family)
    lens = logit_lens(model, tokens)
    assert np.asarray(lens.value)[-1] == pytest.approx(0, abs=1e-6)
    assert lens.agreement[-1] == 1
    assert (np.asarray(lens.value)[:-1] > 1e-4).all()
    assert lens.divergence.shape == (model.n_layers + 1, 4, 6)
    np.testing.assert_array_equal(lens.top[-1], model.logits(tokens).argmax(-1))


def test_the_norm_is_recomputed_at_every_layer() -> None:
    model, tokens = decoder("gpt2"), some("gpt2")
    site = "blocks.0.hook_resid_pre"
    stream = model.capture(tokens, site)[site]
    logp = model.module.lm_head(model.module.transformer.ln_f(stream)).log_softmax(-1)
    lens = logit_lens(model, tokens, site)
    np.testing.assert_allclose(lens.entropy[0], -(logp.exp() * logp).sum(-1).detach(), rtol=1e-4)
    # with the last layer's scale instead, a short early stream reads as nearly uniform: another number
    last = model.capture(tokens, "ln_final.hook_scale")["ln_final.hook_scale"]
    wrong = model.module.lm_head(
        (stream - stream.mean(-1, keepdim=True)) / last * model.module.transformer.ln_f.weight
    )
    flat = wrong.detach().log_softmax(-1)
    assert float(-(flat.exp() * flat).sum(-1).mean()) > float(np.nanmean(lens.entropy)) + 0.05


def test_padding_is_left_out_and_the_result_comes_back_from_disk(tmp_path: Path) -> None:
    model = decoder("gpt2")
    tokens = Tokens.of([[5, 6, 7, 8], [9, 10]])
    lens = logit_lens(model, tokens)
    assert lens.n == 6
    assert np.isnan(lens.entropy[:, 1, 2:]).all()
    assert (lens.top[:, 1, 2:] == -1).all()
    again = Result.load(lens.save(tmp_path / "lens.safetensors"))
    np.testing.assert_array_equal(again.top, lens.top)  # type: ignore[attr-defined]
    figure = lens.figure(0)
    assert len(figure.layout.annotations) == 4 * 4
    with pytest.raises(InputError, match="example 2 of 2"):
        lens.figure(2)


@pytest.mark.parametrize("family", [*DECODERS, "toy"])
@pytest.mark.parametrize("by", ["layer", "head"])
def test_components_sum_to_the_logit_difference(family: str, by: str) -> None:
    model, tokens = decoder(family), some(family)
    answers, wrong = torch.tensor([3, 4, 5, 6]), torch.tensor([7, 8, 9, 10])
    result = direct_logit_attribution(model, tokens, answers, wrong, by=by)
    logits = model.capture(tokens, "unembed.hook_out", positions="last")["unembed.hook_out"][:, 0].double()
    rows = torch.arange(4)
    difference = logits[rows, answers] - logits[rows, wrong]
    per_example = np.array(result.provenance["per_example"])
    # float32 passes: the stream is a rounded sum of what was written
    np.testing.assert_allclose(per_example.sum(1), difference, atol=2e-4)
    assert result.provenance["residue"] < 1e-3
    assert np.asarray(result.value).sum() == pytest.approx(float(difference.mean()), abs=2e-4)
    heads = [t for t in result.ticks[0] if ".head." in t]
    assert len(heads) == (model.n_layers * model.n_heads if by == "head" else 0)


def test_without_a_wrong_answer_the_reference_is_the_mean_logit() -> None:
    model, tokens = toy(), some("toy")
    answers = torch.tensor([1, 2, 3, 4])
    logits = model.logits(tokens)[:, -1].double()
    expected = logits[torch.arange(4), answers] - logits.mean(-1)
    total = np.array(direct_logit_attribution(model, tokens, answers).provenance["per_example"]).sum(1)
    np.testing.assert_allclose(total, expected, atol=1e-4)


def test_at_every_token_each_one_is_attributed_as_the_last_of_its_own_text(tmp_path: Path) -> None:
    model, tokens = decoder("gpt2"), Tokens.of([[5, 6, 7, 8], [9, 10]])
    answers = model.logits(tokens).argmax(-1)
    every = direct_logit_attribution(model, tokens, answers, by="head")
    assert every.n == 6
    assert np.isnan(every.grid[:, 1, 2:]).all()
    cut = direct_logit_attribution(
        model, Tokens.of([[5, 6, 7], [9, 10]]), torch.stack([answers[0, 2], answers[1, 1]]), by="head"
    )
    assert cut.ticks == every.ticks
    np.testing.assert_allclose(every.grid[:, 0, 2], cut.grid[:, 0, 2], atol=1e-5)
    np.testing.assert_allclose(every.grid[:, 1, 1], cut.grid[:, 1, 1], atol=1e-5)
    again = Result.load(every.save(tmp_path / "shares.safetensors"))
    np.testing.assert_array_equal(again.grid, every.grid)  # type: ignore[attr-defined]
    assert np.shape(every.figure(1).data[0].z) == (len(every.ticks[0]), 2)
    assert np.shape(cut.figure(0).data[0].z) == (len(cut.ticks[0]), 1)
    with pytest.raises(InputError, match=r"\[2, 4\], one a token"):
        direct_logit_attribution(model, tokens, answers[:, :3])


def test_answers_of_another_shape_are_refused() -> None:
    model, tokens, answers = toy(), some("toy"), torch.tensor([1, 2, 3, 4])
    with pytest.raises(InputError, match=r"wrong must be \[4\], as answers are; got \[4, 6\]"):
        direct_logit_attribution(model, tokens, answers, answers[:, None].expand(4, 6))
    with pytest.raises(InputError, match=r"wrong must be \[4, 6\], as answers are; got \[4\]"):
        direct_logit_attribution(model, tokens, model.logits(tokens).argmax(-1), answers)
    for odd in (answers[:3], answers[:, None].expand(4, 5)):
        with pytest.raises(InputError, match="answers must be"):
            direct_logit_attribution(model, tokens, odd)


def test_on_ragged_texts_the_error_is_that_of_the_mean_over_tokens() -> None:
    model, tokens = decoder("gpt2"), Tokens.of([[5, 6, 7, 8, 9, 1], [9, 10], [3, 4, 5]])
    keep = tokens.mask.numpy()
    text = np.nonzero(keep)[0]
    lens = logit_lens(model, tokens)
    every = direct_logit_attribution(model, tokens, model.logits(tokens).argmax(-1))
    for result, values in ((lens, lens.divergence[:, keep]), (every, every.grid[:, keep])):
        mean = values.mean(1)
        np.testing.assert_allclose(np.asarray(result.value), mean, atol=1e-12)
        # the mean is a ratio of totals: its linearised error sums each text's deviations from it
        totals = np.stack([(values - mean[:, None])[:, text == t].sum(1) for t in range(3)])
        expected = np.sqrt(3 / 2 * (totals**2).sum(0)) / len(text)
        np.testing.assert_allclose(np.asarray(result.stderr), expected, rtol=1e-9, atol=1e-15)


def test_a_fresh_tuned_lens_is_the_logit_lens_exactly() -> None:
    for family in ("gpt2", "llama", "toy"):
        model, tokens = decoder(family), some(family)
        tuned, plain = tuned_lens(model, tokens), logit_lens(model, tokens)
        np.testing.assert_array_equal(tuned.divergence, plain.divergence)
        np.testing.assert_array_equal(tuned.top, plain.top)


def test_training_brings_the_lens_closer_to_the_model_on_tokens_it_has_not_seen(tmp_path: Path) -> None:
    model = decoder("gpt2")
    seen, unseen = Tokens.full(ids(48, 8, seed=1)), Tokens.full(ids(12, 8, seed=2))
    maps = train_translators(model, seen, steps=60, lr=3e-3, batch_size=12)
    assert maps.card["loss_last"] < 0.6 * maps.card["loss_first"]
    before, after = (
        np.asarray(logit_lens(model, unseen).value),
        np.asarray(tuned_lens(model, unseen, maps).value),
    )
    assert (after[:-1] < 0.8 * before[:-1]).all()
    again = Translators.load(maps.save(tmp_path / "maps.safetensors"))
    np.testing.assert_array_equal(
        tuned_lens(model, unseen, again).divergence, tuned_lens(model, unseen, maps).divergence
    )
    with pytest.raises(StoreError, match="no translators at"):
        Translators.load(tmp_path / "none")
    (tmp_path / "torn").write_bytes(b"x" * 20)
    with pytest.raises(StoreError, match="torn"):
        Translators.load(tmp_path / "torn")
    with pytest.raises(InputError, match="16 wide"):
        tuned_lens(model, unseen, Translators.zeros(toy()))


N_WORDS = 12


def counter():
    """A network that says x + 1 after x, and x + 2 once its gate coordinate (never set by a token) is on.

    The stream holds the token one-hot, and the gate, which uniform attention averages in; the MLP moves the one-hot
    on by one where the gate is on.
    """
    d = N_WORDS + 1
    module = Transformer(Shape(d_vocab=N_WORDS, n_ctx=16, n_layers=1, d_model=d, n_heads=1, d_mlp=N_WORDS))
    eye, step = torch.eye(N_WORDS), torch.eye(N_WORDS).roll(1, 0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.embed.weight[:, :N_WORDS] = eye
        module.blocks[0].attn.v.weight[N_WORDS, N_WORDS] = 2.0
        module.blocks[0].attn.o.weight[N_WORDS, N_WORDS] = 1.0
        up = module.blocks[0].mlp.up.weight
        up[:, :N_WORDS] = (
            1.1 * eye - 1
        )  # for a one-hot x: 0.1 at its own unit, which is alive, -1 at the others
        up[:, N_WORDS] = 1.0
        module.blocks[0].mlp.down.weight[:N_WORDS] = 2 * (step - eye)
        module.unembed.weight[:, :N_WORDS] = step
    return interp.load(module, prove=False)


def counting(rows: int = 40, columns: int = 10) -> Tokens:
    start = torch.arange(rows)[:, None] * 5
    return Tokens.full((start + torch.arange(columns)) % N_WORDS)


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_planted_future_is_read_off_one_state_and_random_text_has_none(ahead: int) -> None:
    model = counter()
    found = future_lens(model, counting(), ahead=ahead)
    np.testing.assert_array_equal(np.asarray(found.value), 1.0)
    assert (np.asarray(found.chance) < 0.3).all()
    given = np.array([[int(word) for word in row] for row in found.words])
    assert given.shape == (10, 10 - ahead)  # a quarter of the texts, and what lies behind their ends
    for top in found.top:
        np.testing.assert_array_equal(top, (given + ahead + 1) % N_WORDS)
    assert len(found.figure(3).layout.annotations) == found.top[:, 3].size
    if ahead:
        random = Tokens.full(torch.randint(N_WORDS, (60, 10), generator=torch.Generator().manual_seed(0)))
        nothing = future_lens(model, random, ahead=ahead)
        assert (np.asarray(nothing.value) < 0.25).all()  # 1 / 12, and some


def test_a_learned_prompt_makes_the_network_say_the_token_after_next() -> None:
    model, tokens, site = counter(), counting(), "blocks.0.hook_resid_pre"
    options = {"ahead": 1, "how": "at_once", "n_prompt": 4, "lr": 0.1}
    untrained = future_prompt(model, tokens, site, steps=0, **options)
    trained = future_prompt(model, tokens, site, steps=80, batch_size=32, **(options | {"lr": 0.4}))
    assert untrained.value < 0.2  # without the gate it says the next one
    assert trained.value == 1.0
    assert trained.chance < 0.3
    assert trained.provenance["losses"][-1] < 0.5 * trained.provenance["losses"][0]
    now = future_prompt(model, tokens, site, steps=0, **(options | {"ahead": 0}))
    assert now.value == 1.0


def test_in_turn_the_network_counts_on_from_a_state_it_is_given() -> None:
    model, tokens, site = counter(), counting(), "blocks.0.hook_resid_pre"
    found = future_prompt(model, tokens, site, ahead=2, n_prompt=4, steps=0)
    assert found.value == 1.0  # x + 1, x + 2, x + 3, each from the one before
    assert found.chance < 0.3
    assert found.provenance["tokens_alone"] == 1.0  # and the tokens between say it without the state
    random = Tokens.full(torch.randint(N_WORDS, (3, 6), generator=torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match="such as the model predicts"):
        future_prompt(model, random, site, ahead=3, n_prompt=4)


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(ModelError, match="no causal pre-norm decoder"):
        logit_lens(loaded("bert", "transformers"), some("gpt2"))
    with pytest.raises(ModelError, match="no known unembedding"):
        logit_lens(interp.load(torch.nn.Sequential(torch.nn.Embedding(5, 3))), torch.zeros(2, 3).long())
    model = toy()
    with pytest.raises(InputError, match=r"token ids below 11"):
        direct_logit_attribution(model, some("toy"), torch.tensor([1, 2, 3, 40]))
    with pytest.raises(InputError, match="ahead = 9 in sequences of 6"):
        future_lens(model, some("toy"), ahead=9)
    with pytest.raises(InputError, match="leave none to fit on"):
        future_lens(model, some("toy", rows=1))
    with pytest.raises(InputError, match="at least 2"):
        future_prompt(model, some("toy"), "blocks.0.hook_resid_pre", n_prompt=1)


def test_lenses_run_on_the_shared_story_model(shared: Path) -> None:
    model = interp.load(str(shared / "models" / "stories260k"))
    tokens = model.tokens(
        ["Once upon a time, there was a little girl named Lily. She loved to play in the park."]
    )
    lens = logit_lens(model, tokens)
    value = np.asarray(lens.value)
    assert value[-1] < 1e-6 < value[0]
    assert lens.agreement[-2] > lens.agreement[0]


def test_the_embedded_language_model_says_its_next_but_one_token_beforehand() -> None:
    model = interp.load("mini")
    tokens = interp.toys.embedded("mini").sample(64 * 96, seed=3).tokens
    lens = logit_lens(model, tokens)
    assert (np.diff(np.asarray(lens.value, dtype=float)) < 0).all()  # layer by layer closer to what it says
    assert (np.diff(lens.agreement) > 0).all()
    future = future_lens(model, tokens, ahead=1)
    value, chance, error = (np.asarray(a) for a in (future.value, future.chance, future.stderr))
    assert (value > chance + 5 * error).all()
    assert value[2:].max() > 0.2 > 2 * chance.max()
    assert value[2] > value[0]  # more than the token itself tells


@pytest.mark.slow
def test_a_prompt_reads_the_next_but_one_token_of_the_embedded_model_from_one_state() -> None:
    model = interp.load("mini")
    tokens = interp.toys.embedded("mini").sample(64 * 96, seed=3).tokens
    site = "blocks.1.hook_resid_post"
    before = future_prompt(model, tokens, site, steps=0)
    after = future_prompt(model, tokens, site, steps=150, batch_size=32, lr=0.3)
    assert after.value > max(before.value, after.chance) + 4 * after.stderr
    assert np.mean(after.provenance["losses"][-10:]) < 0.6 * after.provenance["losses"][0]
