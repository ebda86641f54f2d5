"""The trained induction network, repeated sequences, and the scores of heads on them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp.errors import InputError, ModelError
from interp.study.job import prepare
from interp.toys import (
    InductionRecipe,
    Shape,
    Transformer,
    collection,
    copy_loss,
    embedded,
    head_scores,
    planted,
    repeated,
    train_induction_network,
)
from interp.toys.train_induction import main, measure


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 5), st.integers(1, 12), st.booleans(), st.integers(0, 99))
def test_repeated_rows_are_a_first_token_and_a_block_twice(
    n: int, period: int, distinct: bool, seed: int
) -> None:
    ids = repeated(n, period, d_vocab=20, generator=seeded(seed), distinct=distinct)
    assert ids.shape == (n, 2 * period + 1)
    assert (ids[:, 0] == 0).all()
    assert torch.equal(ids[:, 1 : period + 1], ids[:, period + 1 :])
    assert ids[:, 1:].min() > 0
    assert ids.max() < 20
    if distinct:
        assert all(len(set(row)) == period for row in ids[:, 1 : period + 1].tolist())


def test_the_copy_loss_of_a_uniform_guess_is_the_log_of_the_vocabulary_and_of_an_oracle_zero() -> None:
    ids = repeated(3, 5, d_vocab=11, generator=seeded())
    first, second = copy_loss(torch.zeros(3, 11, 11), ids)
    torch.testing.assert_close(
        torch.stack([first, second]), torch.full((2, 3), math.log(11), dtype=torch.float64)
    )
    knowing = torch.zeros(3, 11, 11)
    knowing[:, 6:10].scatter_(2, ids[:, 7:, None], 100.0)  # the second copy, from its second token on
    first, second = copy_loss(knowing, ids)
    assert second.abs().max() < 1e-9
    assert first.min() > 2


def test_head_scores_are_the_mean_attention_to_the_named_places() -> None:
    shape = Shape(d_vocab=9, n_ctx=11, n_layers=2, d_model=8, n_heads=2, d_mlp=4)
    model = interp.load(Transformer(shape, generator=seeded(1)))
    ids = repeated(7, 5, d_vocab=9, generator=seeded(2))
    scores = head_scores(model, ids, batch_size=3)
    acts = model.capture(ids, "blocks.*.attn.hook_pattern")
    for layer in range(2):
        pattern = acts[f"blocks.{layer}.attn.hook_pattern"].double()
        for head in range(2):
            places = {"previous": -1, "induction": -4, "duplicate": -5}
            for kind, offset in places.items():
                paid = [pattern[row, head, i, i + offset].item() for row in range(7) for i in range(6, 11)]
                assert getattr(scores, kind)[layer, head] == pytest.approx(sum(paid) / len(paid), abs=1e-6)
            paid = pattern[:, head, 6:, 0].mean()
            assert float(scores.first[layer, head]) == pytest.approx(float(paid), abs=1e-6)
    layer, head, value = scores.best("duplicate")
    assert value == scores.duplicate.max() == scores.duplicate[layer, head]


def test_head_scores_find_the_planted_heads_and_nobody_in_a_random_network() -> None:
    circuit = planted("induction")
    block = torch.stack([torch.randperm(11, generator=seeded(i))[:4] + 1 for i in range(50)])
    ids = torch.cat([torch.zeros(50, 1, dtype=torch.int64), block, block], dim=1)
    scores = head_scores(interp.load(circuit.name), ids)
    assert scores.best("previous")[:2] == (0, 0)
    assert scores.best("induction")[:2] == (1, 0)
    assert min(scores.best("previous")[2], scores.best("induction")[2]) > 0.6
    blank = head_scores(interp.load(Transformer(circuit.module.shape, generator=seeded())), ids)
    assert max(blank.best("previous")[2], blank.best("induction")[2]) < 0.4


def test_what_is_not_repeated_is_refused() -> None:
    model = interp.load("planted:induction")
    with pytest.raises(InputError, match="the same block"):
        head_scores(model, torch.arange(9)[None])
    with pytest.raises(InputError, match="12 distinct tokens were asked for; the vocabulary has 11"):
        repeated(1, 12, d_vocab=12, generator=seeded(), distinct=True)
    with pytest.raises(InputError, match="must be at least 1"):
        repeated(0, 3, d_vocab=12, generator=seeded())
    with pytest.raises(ModelError, match="no attention patterns"):
        head_scores(
            interp.load(torch.nn.Sequential(torch.nn.Embedding(9, 4)), prove=False), torch.ones(1, 5).long()
        )


def test_the_shipped_network_does_what_its_name_says() -> None:
    network = embedded("induction")
    module, card = network.module, network.card
    assert (module.shape.n_layers, module.shape.d_mlp) == (2, 0)
    files = [collection.WEIGHTS / f"induction{end}" for end in (".safetensors", ".json")]
    assert sum(file.stat().st_size for file in files) < 300_000
    measured = measure(
        module, InductionRecipe(**{**card["recipe"], "betas": (0.9, 0.98)}), seed=card["seed"], n=300
    )
    # a third of the card's sequences, drawn the same way: equal within sampling
    assert measured["loss_ratio"] == pytest.approx(card["loss_ratio"], rel=0.2)
    assert measured["loss_ratio"] <= 0.1
    assert measured["distinct_second_copy_accuracy"] > 0.99
    scores = {kind: torch.tensor(measured[f"{kind}_scores"]) for kind in ("previous", "induction")}
    assert scores["previous"][0].max() > 0.6
    assert scores["induction"][1].max() > 0.6
    # and nobody does it in the other layer
    assert scores["previous"][1].max() < 0.2
    assert scores["induction"][0].max() < 0.2


def test_without_its_previous_token_heads_the_network_repeats_nothing() -> None:
    network = embedded("induction")
    model = interp.load("induction")
    ids = network.inputs(100, seed=5)
    previous = torch.tensor(network.card["previous_scores"])[0] > 0.3
    reference = model.capture(ids, "blocks.0.attn.hook_z")
    edits = [
        interp.ablate("blocks.0.attn.hook_z", head=head, how="mean", reference=reference)
        for head in previous.nonzero().flatten().tolist()
    ]
    _, before = copy_loss(model.logits(ids), ids)
    _, after = copy_loss(model.logits(ids, edits=edits), ids)
    assert before.mean() < 0.1
    assert after.mean() > 2


def test_the_network_knows_no_fixed_distance() -> None:
    model = interp.load("induction")
    for period in (5, 11, 19):  # one network for all periods: it finds the earlier occurrence by content
        ids = repeated(100, period, d_vocab=64, generator=seeded(period), distinct=True)
        right = (model.logits(ids)[:, period + 1 : -1].argmax(-1) == ids[:, period + 2 :]).double().mean()
        assert right > 0.97, period


def test_labels_say_what_must_follow_what_came_before_and_which_copy() -> None:
    network = embedded("induction")
    ids = torch.tensor([[0, 5, 7, 9, 5, 7, 9]])
    labels = network.labels(ids)
    assert labels["answer"].tolist() == [[-100, -100, -100, -100, 7, 9, -100]]
    assert labels["previous"].tolist() == [[-100, 0, 5, 7, 9, 5, 7]]
    assert labels["copy"].tolist() == [[-100, 0, 0, 0, 1, 1, 1]]
    with pytest.raises(InputError, match="the same block"):
        network.labels(torch.arange(7)[None])
    job = prepare("induction", max_tokens=1000)
    assert job.material.tokens.strings[0][0] == "<s>"
    assert "random blocks of" in job.material.notes[0]


def test_training_is_deterministic_lowers_the_loss_and_is_honest_about_failure(tmp_path) -> None:
    recipe = InductionRecipe(
        d_vocab=8, n_ctx=16, d_model=8, n_heads=2, shortest=3, longest=5, steps=60, warmup=5
    )
    first, card = train_induction_network(seed=1, recipe=recipe)
    second, _ = train_induction_network(seed=1, recipe=recipe)
    other, _ = train_induction_network(seed=2, recipe=recipe)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.embed.weight, other.embed.weight)
    assert card["second_copy_loss"] < 1.1 * math.log(8)
    assert main(["--steps", "2", "--out", str(tmp_path)]) == 1
    assert json.loads((tmp_path / "induction.json").read_text())["loss_ratio"] > 0.5


def test_a_recipe_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="do not fit a context of 16"):
        InductionRecipe(n_ctx=16)
    with pytest.raises(InputError, match="must be at least 1"):
        InductionRecipe(steps=0)
    with pytest.raises(InputError, match="positions must be one of"):
        Shape(d_vocab=5, n_ctx=3, positions="rotary")


def test_distances_beyond_the_longest_share_its_bias() -> None:
    shape = Shape(d_vocab=7, n_ctx=4, n_layers=1, d_model=8, n_heads=2, d_mlp=0, positions="distance")
    module = Transformer(shape, generator=seeded())
    with torch.no_grad():
        module.blocks[0].attn.distance.copy_(torch.randn(2, 4, generator=seeded(1)))
        module.blocks[0].attn.q.weight.zero_()  # scores are the biases alone
    model = interp.load(module)
    scores = model.capture(torch.arange(7)[None], "blocks.0.attn.hook_attn_scores")
    (found,) = scores.tensors.values()
    for query in range(7):
        for key in range(query + 1):
            expected = module.blocks[0].attn.distance[:, min(query - key, 3)]
            assert torch.equal(found[0, :, query, key], expected)
    assert "hook_pos_embed" not in {str(site) for site in model.sites}


@pytest.mark.slow
def test_the_shipped_recipe_learns_again_with_another_seed() -> None:
    _, card = train_induction_network(seed=1)
    assert card["loss_ratio"] <= 0.1
    assert min(max(map(max, card[f"{kind}_scores"])) for kind in ("previous", "induction")) > 0.6
