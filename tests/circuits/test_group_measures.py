"""Cosets, triples of irreps, margins, Fourier view, clock and pizza: planted answers and closed forms."""

from __future__ import annotations

import pytest
import torch

from circuits.groups import coset_reading, reverse_engineer, subject_of, word_triples
from circuits.groups.clocks import distance_irrelevance, gradient_symmetricity
from circuits.groups.fourier import gini, phases
from circuits.groups.tally import tally
from interp.errors import InputError
from interp.toys import Group, Shape, Transformer, irrep_network
from interp.toys.train_group import pairs


def test_planted_cosets_are_found_and_shuffled_ones_are_not() -> None:
    group = Group("S4")
    generator = torch.Generator().manual_seed(0)
    columns, expected = [], []
    for subgroup in group.subgroups():
        if subgroup.order in (3, 4, 6, 8, 12):
            level = torch.randn(subgroup.index, dtype=torch.float64, generator=generator)
            columns.append(level[subgroup.right_cosets()])
            expected.append(subgroup.members.tolist())
    table = torch.stack(columns, 1)
    read = coset_reading(group, table, side="right")
    for number, members in zip(read.subgroup.tolist(), expected, strict=True):
        assert group.subgroups()[number].members.tolist() == members
    assert torch.allclose(read.explained, torch.ones(len(columns), dtype=torch.float64))
    assert read.null.mean() < 0.7
    # on the other side only normal subgroups and luck of conjugates remain
    left = coset_reading(group, table, side="left")
    assert (left.order[: len(expected)] < read.order).any()
    noise = torch.randn(24, 200, dtype=torch.float64, generator=generator)
    random = coset_reading(group, noise, side="right")
    assert (random.order == 0).double().mean() > 0.95
    # the correction makes the best share of noise that of shuffled noise
    assert float(random.best.mean()) == pytest.approx(float(random.null.mean()), abs=0.05)
    with pytest.raises(InputError, match="side 'up'"):
        coset_reading(group, noise, side="up")


@pytest.mark.parametrize(
    ("name", "counts"),
    [("S3", (3, 5, 11, 5)), ("S4", (5, 13, 43, 13)), ("Q8", (5, 8, 20, 8)), ("D5", (4, 8, 20, 8))],
)
def test_words_live_on_the_triples_that_fusion_allows(name: str, counts: tuple[int, ...]) -> None:
    group = Group(name)
    for word, count in zip(("ab", "aba^-1", "[a,b]", "a^2b"), counts, strict=True):
        made = word_triples(group, word)
        assert made.norm == pytest.approx(group.order**2, abs=1e-6)
        assert int(made.support().sum()) == count
        assert made.inside == pytest.approx(1, abs=1e-12)
    diagonal = word_triples(group, "ab").shares
    for i, irrep in enumerate(group.irreps()):
        assert float(diagonal[i, i, i]) == pytest.approx(irrep.rank / group.order, abs=1e-12)


def test_triples_above_order_200_are_refused() -> None:
    with pytest.raises(InputError, match="up to order 200"):
        word_triples(Group("S6"))


@pytest.mark.parametrize("n", [5, 7, 11])
def test_the_margin_of_all_frequencies_is_the_largest_there_can_be(n: int) -> None:
    """The closed form of the maximal L(2,3) margin, reached by hand-written cosines and by no part of them."""
    group = Group(f"C{n}")
    labels = [irrep.label for irrep in group.irreps()[1:]]
    best = reverse_engineer(irrep_network(group, labels), group).margins
    assert best["normalised"] == pytest.approx(best["largest"], rel=1e-9)
    assert best["uniformity"] == pytest.approx(1, abs=1e-9)
    fewer = reverse_engineer(irrep_network(group, labels[:-1]), group).margins
    assert fewer["normalised"] < 0.999 * best["largest"]


def test_hand_written_clocks_have_exact_frequencies_phases_and_read_outs() -> None:
    group = Group("C13")
    found = reverse_engineer(irrep_network(group, ["f2", "f5"]), group)
    assert set(found.fourier["neurons"]["frequency"]) == {2, 5}
    assert abs(found.fourier["phases"]["error"]).max() < 1e-9
    (plate,) = [
        plate for plate in found.section().plates if plate.title == "Frequencies of the weight tables"
    ]
    shown = plate.figure.data[0].y  # all the variance at the two frequencies, in halves
    assert [k + 1 for k, share in enumerate(shown) if share > 1e-9] == [2, 5]
    assert sum(shown) == pytest.approx(1)
    assert found.fourier["left_gini"] > 0.6
    assert gini(torch.ones(5, dtype=torch.float64)) == pytest.approx(0, abs=1e-12)
    assert gini(torch.tensor([0.0, 0.0, 0.0, 3.0], dtype=torch.float64)) == pytest.approx(0.75)
    row = torch.arange(13).double()[:, None] * 2 * torch.pi * 3 / 13
    read = phases((row + 0.5).cos(), (row - 0.2).cos(), (row + 0.3).cos())
    assert read["frequency"].tolist() == [3]
    assert abs(float(read["error"])) < 1e-9


def test_pizza_and_clock_are_told_apart() -> None:
    """cos w(a+b-c) alone is a clock; |cos w(a-b)/2| cos w(a+b-c) is a pizza (Zhong et al., section 3)."""
    n, w = 31, 2 * torch.pi * 3 / 31
    group = Group(f"C{n}")
    a, b, c = torch.meshgrid(*(torch.arange(n).double(),) * 3, indexing="ij")
    clock = (w * (a + b - c)).cos()
    pizza = (w * (a - b) / 2).cos().abs() * clock
    read = lambda cube: tally(subject_of(lambda x, y: cube[x, y], group))[0]  # noqa: E731
    assert distance_irrelevance(read(pizza)) < 1e-6
    bump = clock * (1 + 0.1 * torch.cos(w * (a + b)))  # varies with the sum alone
    assert distance_irrelevance(read(bump)) == pytest.approx(1, abs=1e-6)
    # one embedding for both operands and nothing but their sum: gradients are the same
    shape = Shape(d_vocab=n + 1, n_ctx=3, d_model=8, n_heads=2, d_mlp=16)
    module = Transformer(shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        module.pos_embed.weight.zero_()
        module.blocks[0].attn.q.weight.zero_()  # uniform attention
    assert gradient_symmetricity(subject_of(module, group)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("n_layers", "positions"), [(1, "embedding"), (2, "embedding"), (1, "distance")])
def test_a_transformer_s_parts_compute_what_the_transformer_does(n_layers: int, positions: str) -> None:
    group = Group("D5")
    shape = Shape(
        d_vocab=11, n_ctx=3, n_layers=n_layers, d_model=12, n_heads=3, d_mlp=20, positions=positions
    )
    module = Transformer(shape, generator=torch.Generator().manual_seed(0)).double()
    ids, _ = pairs(group)
    hidden, logits = subject_of(module, group).parts.both(ids[:, 0], ids[:, 1])
    torch.testing.assert_close(logits, module(ids)[:, -1, :10], atol=1e-12, rtol=0)
    kept = {}
    module.blocks[-1].mlp.act.register_forward_hook(lambda m, given, out: kept.update(hidden=out))
    module(ids)
    torch.testing.assert_close(hidden, kept["hidden"][:, -1], atol=1e-12, rtol=0)
    assert -1 <= gradient_symmetricity(subject_of(module, group)) <= 1
