"""Group networks taken apart: hand-written weights whose algorithm is known, memorisers, and slow obvious oracles."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import circuits
import interp
from circuits.groups import coset_reading, reverse_engineer, subject_of
from circuits.groups.similarity import logit_irreps
from circuits.groups.spectra import answer_projection, hidden_shares, table_shares
from circuits.groups.tally import tally
from interp.errors import InputError
from interp.report import page
from interp.toys import (
    Group,
    Perceptron,
    PerceptronShape,
    embedded,
    grok,
    irrep_network,
    lookup_network,
)
from interp.toys.train_group import pairs, split

NAMES = ("C7", "D5", "Q8", "S3", "S4", "A4", "C3xC5", "F21", "SL(2,3)")


def random_perceptron(group: Group, *, activation: str = "relu", seed: int = 0) -> Perceptron:
    shape = PerceptronShape(order=group.order, d_embed=6, d_hidden=9, activation=activation)
    return Perceptron(shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_implement_an_irrep_have_similarity_one_with_it(name: str) -> None:
    group = Group(name)
    for irrep in group.irreps()[1:]:
        found = reverse_engineer(irrep_network(group, [irrep.label]), group)
        assert found.key == (irrep.label,)
        similarity = dict(zip(found.irreps, found.value, strict=True))
        assert similarity.pop(irrep.label) == pytest.approx(1, abs=1e-12)
        similarity.pop("trivial")
        assert all(abs(value) < 1e-12 for value in similarity.values())
        assert found.logits["residual"] == pytest.approx(0, abs=1e-12)
        for share in found.tables.values():
            assert share.sum() == pytest.approx(1, abs=1e-9)
            assert share[group.irreps().index(irrep)] == pytest.approx(1, abs=1e-12)


def test_similarities_of_several_irreps_are_as_their_weights() -> None:
    group = Group("Q8xC3")
    labels, weights = ["sign x f1", "h1 x f1+"], [3.0, 1.0]
    labels = [irrep.label for irrep in group.irreps() if irrep.dim in (2, 4)][-2:]
    e = [group.irrep(label).endomorphism_dim for label in labels]
    found = reverse_engineer(irrep_network(group, labels, weights=weights), group)
    total = sum(w * w * x for w, x in zip(weights, e, strict=True))
    for label, weight, x in zip(labels, weights, e, strict=True):
        expected = weight * x**0.5 / total**0.5
        assert found.value[found.irreps.index(label)] == pytest.approx(expected, abs=1e-12)
    assert found.logits["explained"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["C7", "D5", "S4", "Q8xC3"])
@pytest.mark.parametrize("fraction", [1.0, 0.6, 0.3])
def test_a_memorising_network_has_no_irrep_above_the_null(name: str, fraction: float) -> None:
    group = Group(name)
    n = group.order**2
    known = torch.randperm(n, generator=torch.Generator().manual_seed(1))[: int(fraction * n)]
    found = reverse_engineer(lookup_network(group, known=known), group)
    assert found.key == ()
    assert found.accuracy["all"] >= len(known) / n
    if fraction == 1:  # its similarities are the null's, d / sqrt(e (order - 1)), and explain everything
        torch.testing.assert_close(torch.as_tensor(found.value[1:]), torch.as_tensor(found.chance[1:]))
        assert found.logits["explained"] == pytest.approx(1, abs=1e-9)


def test_noise_on_wrong_answers_has_the_null_s_mean_and_spread() -> None:
    group = Group("S3")
    generator = torch.Generator().manual_seed(0)
    _, answers = pairs(group)
    one_hot = nn.functional.one_hot(answers, 6).double().view(6, 6, 6)
    noise = torch.randn(6, 6, 6, dtype=torch.float64, generator=generator)
    z = []
    for _ in range(300):
        order = torch.rand(6, 6, 6, generator=generator).argsort(-1)
        wrong = noise.gather(-1, order)
        logits = torch.where(one_hot > 0, 4.0, wrong)
        # shuffles of the wrong answers of one fixed set of rows
        keep = (one_hot == 0).double()
        fixed = noise * keep
        values = torch.stack(
            [row[torch.randperm(len(row), generator=generator)] for row in fixed[keep > 0].view(36, 5)]
        )
        logits = 4.0 * one_hot
        logits[one_hot == 0] = values.flatten()
        sums, _ = tally(subject_of(lambda a, b, logits=logits: logits[a, b], group))
        read = logit_irreps(group, sums)
        mean = (logits - logits.mean(-1, keepdim=True))[one_hot > 0].sum()
        # exact mean under shuffling: the right answer's sum, spread evenly over the wrong ones
        e = torch.tensor([irrep.endomorphism_dim for irrep in group.irreps()]).double()
        d = torch.tensor([irrep.dim for irrep in group.irreps()]).double()
        centre = mean * d * 6 / 5 / (sums.total**0.5 * 6**1.5 * e.sqrt())
        z.append(((read.similarity - centre) / read.null_sd)[1:])
    z = torch.stack(z)
    # 300 draws: a mean of 0 within 4/sqrt(300), a variance of 1 within 4 sqrt(2/300)
    assert z.mean(0).abs().max() < 0.24
    assert (z.var(0) - 1).abs().max() < 0.33


def cube(group: Group, irrep, word_values: Tensor) -> Tensor:
    """chi(w(a,b) c^-1) over all a, b, c, entry by entry."""
    out = torch.zeros(group.order, group.order, group.order, dtype=torch.float64)
    for a in range(group.order):
        for b in range(group.order):
            for c in range(group.order):
                out[a, b, c] = irrep.character[group.table[word_values[a, b], group.inverse[c]]]
    return out


@pytest.mark.parametrize(
    ("name", "word"), [("S3", "ab"), ("Q8", "ab"), ("C3xC5", "ab"), ("S3", "aba^-1"), ("D5", "[a,b]")]
)
def test_similarities_are_cosines_with_the_character_cubes(name: str, word: str) -> None:
    group = Group(name)
    module = random_perceptron(group)
    _, answers = pairs(group, word)
    grid = answers.view(group.order, group.order)
    ids = torch.cartesian_prod(torch.arange(group.order), torch.arange(group.order))
    logits = module(ids)[:, -1].detach().view(*grid.shape, -1)
    centred = logits - logits.mean(-1, keepdim=True)
    found = reverse_engineer(module, group, word=word)
    for i, irrep in enumerate(group.irreps()[1:], start=1):
        chi = cube(group, irrep, grid)
        expected = (centred * chi).sum() / centred.norm() / chi.norm()
        assert found.value[i] == pytest.approx(float(expected), abs=1e-12)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), answers)
    assert found.losses["all"] == pytest.approx(float(loss), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_weights_over_all_irreps_sum_to_one_on_any_network(name: str) -> None:
    group = Group(name)
    module = random_perceptron(group, activation="gelu", seed=3)
    for table in (*module.inputs(), module.unembed.weight):
        share = table_shares(group, table.detach())
        assert float(share.sum()) == pytest.approx(1, abs=1e-9)
        assert (share >= 0).all()


def test_hidden_shares_are_projections_onto_functions_of_pairs() -> None:
    group = Group("S3")
    module = random_perceptron(group)
    subject = subject_of(module, group)
    _, sums = tally(subject)
    shares, rest = hidden_shares(group, sums)
    a, b = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    hidden = module.act(module.inputs()[0][a] + module.inputs()[1][b]).detach()
    centred = hidden - hidden.mean(0)
    spanned = []
    for name, index in (("a", a), ("b", b), ("ab", group.table[a, b])):
        for i, irrep in enumerate(group.irreps()):
            if irrep.label == "trivial":
                continue
            q = torch.linalg.qr(irrep.basis[index]).Q
            spanned.append(q)
            expected = float((q.T @ centred).square().sum() / centred.square().sum())
            assert float(shares[name][i]) == pytest.approx(expected, abs=1e-12)
    joint = torch.linalg.qr(torch.cat(spanned, 1)).Q
    outside = 1 - float((joint.T @ centred).square().sum() / centred.square().sum())
    assert rest == pytest.approx(outside, abs=1e-12)


def test_the_projection_onto_the_answer_is_one_where_answers_are_not_equally_frequent() -> None:
    group = Group("S3")
    module = random_perceptron(group)
    subject = subject_of(module, group, word="[a,b]")
    _, sums = tally(subject)
    key = torch.tensor([irrep.label == "sign" for irrep in group.irreps()]) | (
        torch.tensor([irrep.dim == 2 for irrep in group.irreps()])
    )
    table = answer_projection(group, sums, key)
    a, b = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    answer = subject.answers[a, b]
    hidden = subject.parts.hidden(a, b).detach()
    centred = hidden - hidden.mean(0)
    basis = torch.cat([i.basis for i, k in zip(group.irreps(), key.tolist(), strict=True) if k], 1)[answer]
    expected = basis @ torch.linalg.pinv(basis) @ centred
    torch.testing.assert_close(table[answer], expected, atol=1e-10, rtol=0)


def test_excluded_and_restricted_losses_are_those_of_the_edited_hidden_layer() -> None:
    group = Group("S4")
    made = embedded("group:S4")
    train, _ = split(group, made.card["recipe"]["train_fraction"], seed=0)
    found = reverse_engineer(made.module, group, train=train)
    a, b = torch.cartesian_prod(torch.arange(24), torch.arange(24)).T
    answer = group.table[a, b]
    module = made.module
    hidden = module.act(module.inputs()[0][a] + module.inputs()[1][b]).detach().double()
    q = torch.linalg.qr(torch.cat([group.irrep(label).basis for label in found.key], 1)[answer]).Q
    part = q @ (q.T @ (hidden - hidden.mean(0)))
    out = module.unembed.weight.detach().double()
    loss = lambda h, rows: float(nn.functional.cross_entropy((h @ out.T)[rows], answer[rows]))  # noqa: E731
    # float32 weights and activations
    assert found.losses["excluded"] == pytest.approx(loss(hidden - part, train), rel=1e-4)
    assert found.losses["restricted"] == pytest.approx(loss(part, torch.arange(576)), rel=1e-3)
    assert found.losses["excluded"] > 100 * found.losses["all"] > 0
    assert found.losses["restricted"] < found.losses["test"]
    assert found.losses["train"] == pytest.approx(made.card["train_loss"], rel=1e-3)
    assert found.losses["test"] == pytest.approx(made.card["test_loss"], rel=1e-3)


@pytest.mark.parametrize("name", ["group:S4", "group:S5", "group:D15", "group:C59"])
def test_a_shipped_network_is_taken_apart_and_the_ablations_confirm_it(name: str) -> None:
    made = embedded(name)
    found = reverse_engineer(interp.load(made.module), made.group)
    assert 1 <= len(found.key) < len(found.irreps) / 2 + 1
    assert found.ablations["whole"]["accuracy"] == 1
    assert found.ablations["only key"]["accuracy"] > 0.97
    assert found.ablations["without key"]["accuracy"] < 0.35
    assert found.ablations["without others"]["accuracy"] > 0.97
    assert found.seconds < 5
    total = found.logits["explained"] + found.logits["other_symmetric"] + found.logits["residual"]
    assert total == pytest.approx(1, abs=1e-12)
    if found.triples:
        assert found.triples["shares"].sum() == pytest.approx(1, abs=1e-9)


def test_a_bare_function_is_read_as_far_as_it_goes_and_the_rest_is_named() -> None:
    made = embedded("group:C59")
    ids, _ = pairs(made.group)
    table = made.module(ids)[:, -1, :59].detach().view(59, 59, 59)
    plain = reverse_engineer(lambda a, b: table[a, b], made.group)
    whole = reverse_engineer(made.module, made.group)
    torch.testing.assert_close(torch.as_tensor(plain.value), torch.as_tensor(whole.value), equal_nan=True)
    assert plain.key == whole.key
    assert plain.losses["excluded_logits"] == pytest.approx(whole.losses["excluded_logits"], rel=1e-5)
    assert plain.clock["distance_irrelevance"] == pytest.approx(whole.clock["distance_irrelevance"], rel=1e-5)
    assert plain.tables == {} == plain.neurons
    assert any("bare function" in reason for reason in plain.absent.values())


def test_any_module_that_answers_a_b_equals_is_read() -> None:
    group = Group("S3")
    inner = irrep_network(group, ["sign"])

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, ids: Tensor) -> Tensor:
            assert (ids[:, 2] == 6).all()
            return self.inner(ids)

    assert reverse_engineer(Foreign(), group).key == ("sign",)
    assert reverse_engineer(interp.load(Foreign(), prove=False), "S3").key == ("sign",)


def test_twin_groups_are_told_apart_by_irrep_and_by_coset() -> None:
    """D52 and Dic26 have one character table; a network for one is none for the other."""
    for name, twin in (("D52", "Dic26"), ("Dic26", "D52")):
        group, other = Group(name), Group(twin)
        label = "f1" if name == "D52" else "h1"
        network = irrep_network(group, [label])
        own, foreign = (
            reverse_engineer(network, group, with_cosets=False),
            reverse_engineer(network, other, with_cosets=False),
        )
        assert own.key == (label,)
        assert own.logits["explained"] == pytest.approx(1, abs=1e-9)
        assert foreign.logits["explained"] < 0.5
        assert foreign.accuracy["all"] < own.accuracy["all"] == 1
    # the stabiliser of a reflection's axis exists in D52 only: the faithful matrix entries are constant on cosets there
    best = {}
    for name, label in (("D52", "f1"), ("Dic26", "h1")):
        group = Group(name)
        read = coset_reading(group, group.irrep(label).matrices.flatten(1), side="right", seed=0)
        best[name] = int(read.order.max())
    assert best == {"D52": 2, "Dic26": 0}


def test_a_run_knows_its_group_word_and_split(tmp_path) -> None:
    run = grok("D15")
    found = reverse_engineer(run)
    assert found.losses["train"] == pytest.approx(run.card["train_loss"], rel=1e-3)
    assert found.losses["test"] == pytest.approx(run.card["test_loss"], rel=1e-3)
    again = circuits.groups.GroupReading.load(found.save(tmp_path / "d15.safetensors"))
    assert again.key == found.key
    assert json.dumps(again.to_json(), allow_nan=False) == json.dumps(found.to_json(), allow_nan=False)
    html = found.report(tmp_path / "d15.html")
    record = page.read(tmp_path / "d15.json")
    assert record["sections"][0]["numbers"]["key"] == list(found.key)
    assert len(record["sections"][0]["plates"]) == 5
    assert "<script" in html.read_text("utf-8")
    frame = found.to_frame()
    assert frame["similarity"].notna().sum() == len(found.irreps) - 1
    assert found.key[0] in repr(found)


def test_bad_input_is_refused() -> None:
    group = Group("S3")
    for call, message in (
        (
            lambda: reverse_engineer(random_perceptron(group), Group("D5")),
            "has 6 answers; D5, of order 10, needs 10",
        ),
        (lambda: reverse_engineer(embedded("group:C59").module, "C31"), "60 tokens .* needs 32"),
        (
            lambda: reverse_engineer(lambda a, b: torch.zeros(len(a), 5), group),
            r"gives \[36, 5\] for 36 pairs",
        ),
        (lambda: reverse_engineer(lambda a, b: torch.full((len(a), 6), torch.nan), group), "not finite"),
        (lambda: reverse_engineer(7, group), "cannot read a int"),
        (lambda: reverse_engineer(random_perceptron(group)), "give the group"),
        (lambda: reverse_engineer(random_perceptron(group), "X3"), "unknown group"),
        (lambda: reverse_engineer(random_perceptron(group), group, train=torch.tensor([36])), "from 0 to 35"),
        (lambda: irrep_network(group, ["sing"]), "did you mean 'sign'"),
        (lambda: irrep_network(group, []), "give at least one"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_constant_network_has_no_irreps_and_says_so() -> None:
    group = Group("S3")
    found = reverse_engineer(lambda a, b: torch.zeros(len(a), 6), group)
    assert found.key == ()
    assert found.logits["explained"] == 0
