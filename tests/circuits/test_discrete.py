"""The discrete-SAE method: its scores are the published ones, its null is one, and it sees what it can see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
import interp
import sae
from circuits.discrete import _unique, _votes, _weaker_end
from circuits.nulls import against_chance, paired_swaps
from interp.errors import InputError
from interp.toys import planted


def test_unique_codes_are_those_that_only_clean_prompts_have():
    codes = np.array([[0, 5], [1, 5], [1, 6], [2, 5], [1, 5], [2, 5]])
    assert _unique(codes).tolist() == [1, 1]  # of part 0 code 0, of part 1 code 6


def test_votes_are_the_places_of_heads_among_the_first_pairs():
    """As published: pairs sorted by unique code pairs, both orders, the first n^2 / 2 places of the flattened list."""
    layout = circuits.Layout.plain(2, 3)
    codes = np.random.default_rng(0).integers(0, 4, (12, 6))
    counts = {}
    for a in range(6):
        for b in range(6):
            seen = {(x, y) for x, y in codes[:6, [a, b]].tolist()}
            counts[a, b] = len(seen - {(x, y) for x, y in codes[6:, [a, b]].tolist()}) if a != b else 0
    votes = _votes(codes, layout)
    assert votes.sum() == 3**2 // 2
    # 4 places are two pairs: no pair that was left out has more unique code pairs than the best heads' best
    best = sorted(counts.values(), reverse=True)[:2]
    voted = [h for h in range(6) if votes[h]]
    assert max(counts[a, b] for a in voted for b in voted) == best[0]


def test_an_edge_is_worth_its_weaker_end_so_that_a_node_is_worth_its_own_score():
    layout = circuits.Layout.plain(2, 2)
    score = np.arange(len(layout.sources), dtype=float)
    graph = circuits.Graph(layout=layout, scores=-_weaker_end(layout, score))
    for i, name in enumerate(layout.sources[1:], start=1):
        edges = [e for e in graph.edges if e.startswith(f"{name}->") or f"->{name}" in e]
        assert max(-graph.score(e) for e in edges) == score[i]


def code_table(n: int, *, seed: int = 0) -> tuple[circuits.Layout, np.ndarray]:
    """Two blocks of a head each and no MLP; head a0.h0 tells clean prompts from corrupted, a1.h0 does not."""
    layout, rng = circuits.Layout.plain(2, 1, mlp=False), np.random.default_rng(seed)
    codes = rng.integers(0, 6, (2 * n, 3))
    codes[:n, 1] = rng.integers(6, 12, n)
    return layout, codes


@pytest.mark.parametrize("statistic", ["unique", "information"])
def test_the_null_tells_a_part_that_knows_the_label_from_one_that_does_not(statistic):
    layout, codes = code_table(40)
    null = against_chance(codes, paired_swaps(40, 200, 0), layout=layout, statistic=statistic)
    assert null.p[1] == pytest.approx(1 / 201)
    assert null.score[1] > 5
    assert max(abs(null.score[0]), abs(null.score[2])) < 3
    if statistic == "information":
        assert null.observed[1] == pytest.approx(np.log(2))  # the codes say which prompt it is
    # an edge from the one that knows to the one that does not is worth no more than the latter
    edges = dict(zip(layout.names, null.edges, strict=True))
    assert edges["a0.h0->logits"] > edges["a0.h0->a1.h0<q>"] == edges["a0.h0->a1.h0<v>"]


def test_p_values_of_parts_that_know_nothing_are_uniform():
    """250 of them: the share at or below 0.1 within 4 standard errors of 0.1."""
    layout = circuits.Layout.plain(1, 1, mlp=False)
    found = []
    for seed in range(125):
        codes = np.random.default_rng(seed).integers(0, 5, (40, 2))
        null = against_chance(codes, paired_swaps(20, 99, seed), layout=layout, statistic="information")
        found += null.p.tolist()
    assert abs(np.mean(np.array(found) <= 0.1) - 0.1) < 4 * (0.1 * 0.9 / 250) ** 0.5


class Nearest:
    """A coder that names the nearest of some rows."""

    def __init__(self, rows):
        self.rows = torch.unique(rows, dim=0)

    def encode(self, x):
        return -torch.cdist(x, self.rows)

    def decode(self, codes):
        return self.rows[codes.argmax(-1)]


def test_a_trainer_or_a_trained_dictionary_is_taken_and_the_graph_says_what_was_done():
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(12)
    seen = []

    def train(rows):
        seen.append(rows.shape)
        return Nearest(rows)

    assert isinstance(Nearest(torch.zeros(2, 3)), interp.Dictionary)
    graph = circuits.sae_circuit(model, trials, train, mode="published")
    assert seen == [(10 * 8, model.d_model)]  # 10 prompts of 8 heads
    assert set(graph.provenance["nodes"]) == {f"a{layer}.h{head}" for layer in range(2) for head in range(4)}
    assert graph.n == 12
    honest = circuits.sae_circuit(model, trials, train, n_draws=20)
    assert seen[-1] == (12 * 11, model.d_model)  # one half of the pairs, both prompts, all parts
    assert honest.provenance["nodes"]["m0"].keys() == {"score", "observed", "chance", "p"}
    given = circuits.sae_circuit(model, trials, Nearest(torch.eye(model.d_model)), n_draws=20)
    assert np.isfinite(given.scores).all()
    both = circuits.sae_circuit(model, trials, train, n_draws=20, ensemble=graph)
    assert both.method == "discrete SAE (honest) with discrete SAE (published)"
    assert -1 <= both.scores.min() <= both.scores.max() <= 0


def test_the_published_autoencoder_learns_and_keeps_its_norms():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 8, generator=generator)[torch.randint(3, (60,), generator=generator)]
    coder = circuits.discrete_coder(rows, n_codes=16, epochs=400, lr=1e-2)
    ones = torch.ones(16), torch.ones(8)
    torch.testing.assert_close(coder.W_enc.norm(dim=1), ones[0])
    torch.testing.assert_close(coder.W_dec.norm(dim=1), ones[1])
    error = (coder.decode(coder.encode(rows)) - rows).square().mean() / rows.var()
    assert error < 0.2
    # the three rows get codes of their own
    assert len(torch.unique(coder.encode(rows).argmax(-1))) == 3


def test_a_codebook_from_the_sae_package_does_as_well():
    circuit = planted("distractor")
    model, trials = interp.load(circuit.module), circuit.task(16)

    def train(rows):
        config = sae.TrainConfig(kind="codebook", d_sae=24, k=1, steps=60, batch_size=64, lr=1e-3)
        return sae.train(rows, config).coder

    graph = circuits.sae_circuit(model, trials, train, n_draws=30)
    assert 1 < graph.provenance["n_codes"] <= 24


def test_prompts_that_are_exchangeable_tell_the_method_nothing():
    """The planted corruptions exchange two symbols of the same language: no code is of one kind of prompt only."""
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(64)
    graph = circuits.sae_circuit(model, trials, Nearest, statistic="information", n_draws=100)
    p = [node["p"] for node in graph.provenance["nodes"].values()]
    assert np.median(p) > 0.1
    assert sorted(p)[2] > 0.01


def test_what_cannot_be_coded_is_refused():
    circuit = planted("previous")
    model, trials = interp.load(circuit.module), circuit.task(8)
    for wrong in ({"mode": "publishd"}, {"position": "first"}, {"statistic": "uniqe"}):
        with pytest.raises(InputError, match="it is one of"):
            circuits.sae_circuit(model, trials, Nearest, **wrong)
    with pytest.raises(InputError, match="too few"):
        circuits.sae_circuit(model, circuit.task(2), Nearest)
    other = circuits.Graph(layout=circuits.Layout.plain(3, 3))
    with pytest.raises(InputError, match="another network"):
        circuits.sae_circuit(model, trials, Nearest, ensemble=other)
    with pytest.raises(InputError, match="need rows"):
        circuits.discrete_coder(torch.zeros(0, 3))
