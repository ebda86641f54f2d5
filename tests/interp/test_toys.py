"""Groups, the small transformer, and the networks that ship with the toolkit."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interp
from interp.errors import CheckError, InputError, ModelError
from interp.toys import (
    Group,
    GroupRun,
    Perceptron,
    PerceptronShape,
    Recipe,
    Shape,
    Transformer,
    collection,
    embedded,
    grok,
    group_networks,
    names,
    published,
    recipe_for,
    train,
    train_group,
)
from interp.toys.train_group import main, pairs, split, train_group_network


@pytest.mark.parametrize(
    ("name", "order", "abelian"), [("C59", 59, True), ("D15", 30, False), ("D4", 8, False), ("S4", 24, False)]
)
def test_a_named_group_satisfies_the_axioms(name: str, order: int, abelian: bool) -> None:
    group = Group(name)
    assert (group.order, group.is_abelian, group.identity) == (order, abelian, 0)
    # from_table checks Latin square, identity and associativity
    again = Group.from_table(group.table, name=name, elements=group.elements)
    assert again.elements == group.elements
    assert len(set(group.elements)) == order


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2000), st.integers(0, 2000))
def test_a_cyclic_product_is_addition_of_exponents(n: int, a: int, b: int) -> None:
    assert Group(f"C{n}").table[a % n, b % n] == (a + b) % n


def test_a_dihedral_group_keeps_its_relations() -> None:
    group = Group("D5")
    product = lambda a, b: group.elements[group.table[group.elements.index(a), group.elements.index(b)]]  # noqa: E731
    assert product("r4", "r1") == "r0"
    assert product("r0s", "r0s") == "r0"
    assert product("r0s", "r1") == "r4s"  # s r = r^-1 s


def test_symmetric_products_compose_as_functions() -> None:
    group = Group("S3")
    index = group.elements.index
    assert group.elements[group.table[index("102"), index("021")]] == "120"


@pytest.mark.parametrize("name", ["X5", "C0", "C", "c5", "C99999", "S8", "D2521", "C5 ", ""])
def test_a_group_that_is_unknown_or_too_large_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="unknown group|tables are made up to order 5040"):
        Group(name)


def test_the_transformer_is_causal_and_has_every_canonical_site() -> None:
    module = Transformer(
        Shape(d_vocab=7, n_ctx=4, n_layers=2, d_model=8, n_heads=2, d_mlp=12), generator=torch.manual_seed(0)
    )
    model = interp.load(module)
    kinds = {site.kind for site in model.sites}
    assert {
        "embed",
        "pos_embed",
        "resid_pre",
        "resid_mid",
        "resid_post",
        "q",
        "k",
        "v",
        "pattern",
        "z",
        "result",
    } <= kinds
    ids = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 3, 5]])
    before, after = model.logits(ids), model.logits(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
    assert not torch.equal(before[:, 3], after[:, 3])
    pattern = model.capture(ids, "blocks.1.attn.hook_pattern")["blocks.1.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(1, 2, 4))
    assert pattern.triu(1).abs().max() == 0


def test_a_shape_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="not divisible by n_heads 3"):
        Shape(d_vocab=5, n_ctx=3, d_model=8, n_heads=3)
    with pytest.raises(InputError, match="n_ctx must be at least 1"):
        Shape(d_vocab=5, n_ctx=0)


@pytest.mark.parametrize("name", group_networks.names())
def test_a_shipped_network_answers_its_whole_table(name: str) -> None:
    made = embedded(name)
    ids = made.inputs(10**6)
    assert len(ids) == made.group.order**2
    answers = made.labels(ids)["answer"][:, -1]
    logits = interp.load(name).logits(ids)[:, -1]
    assert (logits.argmax(-1) == answers).all()
    card = made.card
    assert (card["test_accuracy"], card["train_accuracy"]) == (1.0, 1.0)
    assert card["n_train"] + card["n_test"] == len(ids)
    # the card's split and losses are those of these very weights
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(card["seed"]))
    held_out = order[card["n_train"] :]
    every, right = pairs(made.group)
    logits = made.module(every[held_out])[:, -1].double()
    loss = torch.nn.functional.cross_entropy(logits, right[held_out]).item()
    assert loss == pytest.approx(card["test_loss"], rel=1e-3)


def test_the_networks_that_the_toolkit_promises_are_there_and_small() -> None:
    assert {"group:C59", "group:D15", "group:S4", "group:S5"} <= set(names())
    assert {"induction", "planted:two-hop", "superposition:pairs"} <= set(names())
    assert all(path.stat().st_size < 300_000 for path in collection.WEIGHTS.glob("*.safetensors"))


def test_inputs_are_distinct_seeded_and_labelled_at_the_last_position() -> None:
    made = embedded("group:C59")
    ids = made.inputs(500, seed=3)
    assert torch.equal(ids, made.inputs(500, seed=3))
    assert not torch.equal(ids, made.inputs(500, seed=4))
    assert len(set(map(tuple, ids.tolist()))) == 500
    labels = made.labels(ids)
    assert all((values[:, :-1] == -100).all() for values in labels.values())
    assert torch.equal(labels["answer"][:, -1], (ids[:, 0] + ids[:, 1]) % 59)
    assert made.strings[59] == "="


@pytest.mark.parametrize("ids", [[[0, 1]], [[0, 59, 59]], [[0, 1, 2]], [[-1, 0, 59]]])
def test_labels_of_what_is_no_input_are_refused(ids: list[list[int]]) -> None:
    with pytest.raises(InputError, match="rows 'a b ='"):
        embedded("group:C59").labels(torch.tensor(ids))


def test_a_transformer_without_mlps_has_attention_sites_only() -> None:
    shape = Shape(d_vocab=7, n_ctx=4, n_layers=2, d_model=8, n_heads=2, d_mlp=0)
    model = interp.load(Transformer(shape, generator=torch.Generator().manual_seed(0)))
    kinds = {site.kind for site in model.sites}
    assert "attn_out" in kinds
    assert not kinds & {"mlp_out", "mlp_pre", "mlp_post", "resid_mid"}
    acts = model.capture(torch.tensor([[1, 2, 3]]), "blocks.1.*")
    stream = acts["blocks.1.hook_resid_pre"] + acts["blocks.1.hook_attn_out"]
    torch.testing.assert_close(acts["blocks.1.hook_resid_post"], stream, rtol=0, atol=0)
    with pytest.raises(InputError, match="d_mlp must be at least 0"):
        Shape(d_vocab=5, n_ctx=3, d_mlp=-1)


def test_an_unknown_network_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no embedded network 'group:C95'; did you mean 'group:C59'"):
        embedded("group:C95")


def test_damaged_weights_are_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in collection.WEIGHTS.glob("*.*"):
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:-4] if path.suffix == ".safetensors" else data)
    monkeypatch.setattr(collection, "WEIGHTS", tmp_path)
    with pytest.raises(CheckError, match="do not fit their card"):
        embedded("group:C59")


def test_training_is_deterministic_and_honest_about_failure(tmp_path) -> None:
    recipe = Recipe(epochs=20, d_model=8, n_heads=2, d_mlp=16, check_every=10)
    first, card = train_group_network(Group("C7"), seed=1, recipe=recipe)
    second, _ = train_group_network(Group("C7"), seed=1, recipe=recipe)
    other, _ = train_group_network(Group("C7"), seed=2, recipe=recipe)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.unembed.weight, other.unembed.weight)
    assert card["epochs"] == 20
    assert card["test_accuracy"] < 1
    assert main(["--group", "C7", "--epochs", "10", "--out", str(tmp_path)]) == 1
    assert json.loads((tmp_path / "C7.json").read_text())["test_accuracy"] < 1


def test_training_lowers_the_loss() -> None:
    recipe = Recipe(epochs=200, check_every=50, d_model=16, n_heads=2, d_mlp=32)
    _, card = train_group_network(Group("C7"), seed=0, recipe=recipe)
    assert card["curve"][-1][3] < card["curve"][0][3]
    assert card["curve"][-1][1] > 0.9


def test_a_bad_recipe_or_group_is_refused(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    with pytest.raises(InputError, match="train_fraction"):
        Recipe(train_fraction=1.0)
    with pytest.raises(InputError, match="too few to hold any out"):
        train_group_network(Group("C1"))
    assert main(["--group", "Z9", "--out", str(tmp_path)]) == 1
    assert "unknown group 'Z9'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shipped_recipe_groks_again() -> None:
    _, card = train_group_network(Group("C59"), seed=0, recipe=train_group.RECIPES["C59", "transformer"])
    assert card["test_accuracy"] == 1


def test_the_perceptron_s_two_ways_through_agree_and_every_module_is_a_site() -> None:
    shape = PerceptronShape(order=6, d_embed=5, d_hidden=7, activation="square")
    module = Perceptron(shape, generator=torch.Generator().manual_seed(0))
    ids = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    torch.testing.assert_close(module(ids)[:, -1], module.logits(ids[:, 0], ids[:, 1]))
    model = interp.load(module)
    assert [str(site) for site in model.sites] == ["left", "right", "mix", "act", "unembed"]
    hidden = model.capture(ids, ["act"])["act"]
    torch.testing.assert_close(hidden @ module.unembed.weight.T, model.logits(ids)[:, 0])
    off = model.logits(ids, edits=[interp.ablate("act", how="zero")])
    assert off.abs().max() == 0
    with pytest.raises(InputError, match="no activation 'rule'; did you mean 'relu'"):
        PerceptronShape(order=6, activation="rule")


def test_the_split_is_the_published_one() -> None:
    group = Group("S3")
    torch.manual_seed(5)  # as the published code draws it, from the global generator
    order = torch.randperm(36)
    training, test = split(group, 0.4, seed=5)
    assert torch.equal(torch.cat([training, test]), order)
    assert len(training) == int(0.4 * 36)


@pytest.mark.parametrize("word", ["ab", "aba^-1", "[a,b]", "a^2b"])
def test_the_answers_are_the_values_of_the_word(word: str) -> None:
    ids, answers = pairs(Group("D4"), word)
    table, inverse = Group("D4").table, Group("D4").inverse
    a, b = ids[:, 0], ids[:, 1]
    expected = {
        "ab": table[a, b],
        "aba^-1": table[table[a, b], inverse[a]],
        "[a,b]": table[table[a, b], table[inverse[a], inverse[b]]],
        "a^2b": table[table[a, a], b],
    }[word]
    assert torch.equal(answers, expected)


def test_grokking_d15_live_leaves_a_run_that_can_be_kept(tmp_path) -> None:
    curves = []
    run = grok("D15", watch=lambda curve: curves.append(len(curve)))
    assert run.card["test_accuracy"] == 1
    assert run.card["cpu_seconds"] < 20
    assert curves == list(range(1, len(curves) + 1))
    assert len(run.plot().data) == 2
    again = GroupRun.load(run.save(tmp_path / "run"))
    assert dict(again.card) == json.loads(json.dumps(run.card))
    assert [c.epoch for c in again.checkpoints] == [0, *(int(row[0]) for row in run.card["curve"])]
    ids, answers = pairs(run.group)
    assert (again.module(ids)[:, -1].argmax(-1) == answers).all()
    early = (run.at(run.checkpoints[0])(ids)[:, -1].argmax(-1) == answers).double().mean()
    assert early < 0.2
    with pytest.raises(InputError, match="no multiple of check_every"):
        train(Group("C3"), recipe=Recipe(check_every=10), keep_every=15)


def test_another_word_is_learned_too() -> None:
    recipe = recipe_for("D5", "mlp", word="a^2b", train_fraction=0.8, epochs=2000)
    run = train(Group("D5"), recipe=recipe, seed=0)
    assert run.card["task"] == "a b = -> a^2b"
    assert run.card["train_accuracy"] == 1


def test_recipes_are_found_by_name_and_refused_with_the_nearest() -> None:
    assert published("S5", "mlp").d_embed == 256
    assert published("S6", "transformer").epochs == 20_000
    for call, message in (
        (lambda: recipe_for("S5", "mpl"), "no network 'mpl'; did you mean 'mlp'"),
        (lambda: recipe_for("S5", weight_decai=1), "no field 'weight_decai'; did you mean 'weight_decay'"),
        (lambda: published("S7", "mlp"), "no published recipe for 'S7'; did you mean"),
        (lambda: Recipe(word="abc"), "'abc' is no word"),
    ):
        with pytest.raises(InputError, match=message):
            call()
