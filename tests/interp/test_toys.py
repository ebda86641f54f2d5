"""Groups, the small transformer, and the networks that ship with the toolkit."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp.errors import CheckError, InputError, ModelError
from interp.toys import (
    Group,
    Recipe,
    Shape,
    Transformer,
    collection,
    embedded,
    group_networks,
    names,
    train_group,
)
from interp.toys.train_group import main, pairs, train_group_network


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


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0, 1], [1, 1]], "no Latin square"),
        ([[1, 2, 0], [0, 1, 2], [2, 0, 1]], "no identity"),
        (
            [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]],
            "not associative",
        ),
        ([[0, 1]], "square"),
    ],
)
def test_a_table_that_is_no_group_is_refused_with_the_axiom(table: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Group.from_table(torch.tensor(table))


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
    assert {"group:C59", "group:D15"} <= set(names())
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
    _, card = train_group_network(Group("C59"), seed=0, recipe=train_group.RECIPES["C59"])
    assert card["test_accuracy"] == 1
