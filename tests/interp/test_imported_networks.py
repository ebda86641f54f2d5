"""State dicts with the published layouts become networks of ours that compute the same, entry by entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from circuits.groups import reverse_engineer
from interp.errors import InputError
from interp.toys import Group, Perceptron, Transformer, import_network, irrep_network


def published_mlp(order: int, d_embed: int = 256, d_hidden: int = 128) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "W_x": normal(order, d_embed) / 16,
        "W_y": normal(order, d_embed) / 16,
        "W": normal(2 * d_embed, d_hidden) / 22,
        "W_U": normal(d_hidden, order) / 11,
    }


def published_transformer(order: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator) / shape[-2] ** 0.5  # noqa: E731
    state = {f"blocks.0.attn.W_{name}": normal(4, 128, 32) for name in "QKV"}
    return state | {
        "embed.W_E": normal(order + 1, 128),
        "pos_embed.W_pos": normal(3, 128),
        "blocks.0.attn.W_O": normal(4, 32, 128),
        "blocks.0.attn.b_Q": torch.zeros(4, 32),
        "blocks.0.attn.mask": torch.ones(3, 3),
        "blocks.0.mlp.W_in": normal(128, 512),
        "blocks.0.mlp.b_in": torch.zeros(512),
        "blocks.0.mlp.W_out": normal(512, 128),
        "unembed.W_U": normal(128, order + 1),
    }


def test_a_published_perceptron_gives_the_logits_of_its_formula() -> None:
    state, group = published_mlp(24), Group("S4")
    module = import_network(state, group)
    assert isinstance(module, Perceptron)
    a, b = torch.cartesian_prod(torch.arange(24), torch.arange(24)).T
    expected = torch.relu(torch.cat([state["W_x"][a], state["W_y"][b]], 1) @ state["W"]) @ state["W_U"]
    torch.testing.assert_close(module.logits(a, b), expected, atol=1e-5, rtol=1e-5)


def test_a_published_transformer_gives_the_logits_of_its_formula(tmp_path: Path) -> None:
    state, group = published_transformer(10), Group("D5")
    path = tmp_path / "model.safetensors"
    save_file({f"model.{key}": value for key, value in state.items()}, path)
    module = import_network(path, group)
    assert isinstance(module, Transformer)
    a, b = torch.cartesian_prod(torch.arange(10), torch.arange(10)).T
    ids = torch.stack([a, b, torch.full_like(a, 10)], 1)
    x = state["embed.W_E"][ids] + state["pos_embed.W_pos"]
    q, k, v = (torch.einsum("bpm,hmd->bhpd", x, state[f"blocks.0.attn.W_{name}"]) for name in "QKV")
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / 32**0.5
    pattern = scores.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf).softmax(-1)
    x = x + torch.einsum("bhqk,bhkd,hdm->bqm", pattern, v, state["blocks.0.attn.W_O"])
    x = x + torch.relu(x @ state["blocks.0.mlp.W_in"]) @ state["blocks.0.mlp.W_out"]
    torch.testing.assert_close(module(ids), x @ state["unembed.W_U"], atol=2e-5, rtol=1e-5)
    found = reverse_engineer(module, group)
    assert found.n == 100
    assert abs(float(found.tables["unembed"].sum()) - 1) < 1e-9


def test_another_numbering_of_the_elements_is_undone() -> None:
    group = Group("S4")
    network = irrep_network(group, ["(3,1)"])
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))  # their symbol i is our order[i]
    theirs = {
        "W_x": network.left.weight[order],
        "W_y": network.right.weight[order],
        "W": network.mix.weight.T,
        "W_U": network.unembed.weight[order].T,
    }
    theirs = {key: value.detach().clone() for key, value in theirs.items()}
    undone = import_network(theirs, group, activation="square", elements=order)
    assert reverse_engineer(undone, group).key == ("(3,1)",)
    assert (
        reverse_engineer(import_network(theirs, group, activation="square"), group).logits["explained"] < 0.5
    )


def test_what_does_not_fit_a_layout_is_refused(tmp_path: Path) -> None:
    group, state = Group("S4"), published_mlp(24)
    broken = published_transformer(24)
    for given, message in (
        ({**state, "W_x": state["W_x"][:5]}, r"W_x has shape \[5, 256\]; \[24, 256\]"),
        ({key: value for key, value in state.items() if key != "W_U"}, "no 'W_U'"),
        ({**state, "W_Z": state["W"]}, "'W_Z', which neither layout knows"),
        ({**state, "W": state["W"] * torch.nan}, "W holds values that are not finite"),
        ({**broken, "blocks.0.mlp.b_in": torch.ones(512)}, "b_in is not zero"),
        (published_transformer(10), r"embed.W_E has shape \[11, 128\]; \[25, 128\]"),
    ):
        with pytest.raises(InputError, match=message):
            import_network(given, group)
    with pytest.raises(InputError, match="permutation of 0..23"):
        import_network(state, group, elements=[0] * 24)
    with pytest.raises(InputError, match="no state dict at"):
        import_network(tmp_path / "none.pt", group)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="cannot be read as weights only"):
        import_network(tmp_path / "text.pt", group)
