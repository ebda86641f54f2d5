"""Planted circuits: what each method finds of a known truth, at the level of directed edges, and what chance finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import circuits
import interp
from circuits.exact import benches
from circuits.stream import Stream
from interp.errors import InputError
from interp.toys import planted
from tests import oracles

PLAIN = ("previous", "induction", "two-hop", "distractor")
METHODS = {"eap": 1, "eap-ig": 20, "eap-ig-activations": 5, "clean-corrupted": 1, "exact": 1}


def opened(name: str, n: int = 16):
    circuit = planted(name)
    return circuit, interp.load(circuit.module), circuit.task(n)


def area(graph, truth) -> float:
    return float(circuits.compare(graph, truth, without=[str(e) for e in truth.still]).value)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("method", METHODS)
def test_without_redundancy_every_method_ranks_all_true_edges_first(name, method):
    circuit, model, trials = opened(name)
    graph = circuits.attribute(model, trials, method=method, steps=METHODS[method])
    assert area(graph, circuit.graph) == 1.0


def test_with_two_paths_that_back_each_other_up_single_edges_show_neither():
    circuit, model, trials = opened("backup")
    found = {
        m: area(circuits.attribute(model, trials, method=m, steps=s), circuit.graph)
        for m, s in METHODS.items()
    }
    # at the clean end either path is enough: cutting one edge changes nothing, and neither does its slope
    assert found["exact"] == found["eap"] == found["clean-corrupted"] < 0.6
    # between the ends neither is
    assert found["eap-ig"] == found["eap-ig-activations"] == 1.0


def test_decoys_carry_the_answer_and_get_no_score():
    circuit, model, trials = opened("distractor")
    for method in ("eap-ig", "exact"):
        graph = circuits.attribute(model, trials, method=method)
        assert max(abs(graph.node_scores()[decoy]) for decoy in circuit.graph.decoys) < 1e-6


def test_random_scores_rank_true_edges_by_chance():
    circuit, _, _ = opened("two-hop")
    layout, rng = circuits.Layout.plain(2, 4), np.random.default_rng(0)
    empty = circuits.Graph(layout=layout)
    areas = [area(replace(empty, scores=rng.normal(size=layout.n_edges)), circuit.graph) for _ in range(1000)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["two-hop", "backup"])
def test_any_set_of_edges_is_patched_exactly(name):
    circuit = planted(name)
    model, trials = interp.load(circuit.module.double()), circuit.task(3)
    stream = Stream(model)
    bench = next(benches(stream, trials))
    shares = torch.tensor([0, 0.02, 0.1, 0.5, 0.9, 1.0])[:, None]
    cut = torch.rand(6, stream.layout.n_edges, generator=torch.Generator().manual_seed(0)) < shares
    got = bench.cut(cut)
    for row, mask in zip(got, cut.tolist(), strict=True):
        left = [name for name, gone in zip(stream.layout.names, mask, strict=True) if not gone]
        want = oracles.edge_forward(circuit.module, trials.clean.ids, left, foreign=trials.corrupted.ids)
        torch.testing.assert_close(row, trials.metric(want).double(), atol=1e-10, rtol=0)


def test_a_circuit_of_the_true_edges_is_faithful_complete_and_minimal():
    circuit, model, trials = opened("two-hop")
    true = [str(edge) for edge in circuit.graph.edges]
    graph = circuits.attribute(model, trials, method="exact")
    found = circuits.evaluate(model, graph, trials, sizes=[5, len(true), 110], n_random=20)
    assert set(graph.top(len(true)).circuit()) == set(true)
    np.testing.assert_allclose(found.value[1:], 1.0, atol=1e-4)
    np.testing.assert_allclose(found.completeness[1:], 0.0, atol=1e-4)
    # 5 edges at random never do it, 10 now and then: see the next test for which
    assert found.control[:, 0].max() < 0.1
    assert found.control[:, 1].mean() < 0.2
    assert found.smallest(0.9) == 5 or found.value[0] < 0.9
    assert circuits.minimality(model, graph.top(len(true)), trials).value.min() > 0.5


def test_a_faithful_circuit_need_not_be_the_whole_one() -> None:
    """Keys and queries are corrupted together, so the pattern stays: the path of values alone keeps the answer."""
    circuit, model, trials = opened("two-hop")
    values = ["input->a0.h1<v>", "a0.h1->a1.h0<v>", "a1.h0->logits"]
    assert len(circuit.graph.edges) == 10
    rest = [name for name in circuits.Layout.plain(2, 4).names if name not in values]
    found = circuits.path_patch(model, trials, rest)
    np.testing.assert_allclose(found.patched[0], found.clean, atol=1e-5)
    # yet each of the others matters when it alone is cut
    singles = circuits.path_patch(model, trials, [[str(edge)] for edge in circuit.graph.edges])
    assert max(singles.value) < -1


def test_areas_are_those_of_the_benchmark():
    """MIB: sizes are fractions rounded down, the x axis keeps the fractions, trapezoids from 0.001 to 1."""
    circuit, model, trials = opened("two-hop", 4)
    graph = circuits.attribute(model, trials, method="eap")
    found = circuits.evaluate(model, graph, trials, n_random=0)
    assert found.sizes.tolist() == [0, 0, 0, 1, 2, 5, 11, 22, 55, 110]
    x, f = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], found.value.tolist()
    assert f[:3] == [0, 0, 0]
    pairs = list(zip(zip(x, x[1:], strict=False), zip(f, f[1:], strict=False), strict=True))
    assert found.cpr == pytest.approx(sum((b - a) * (y + z) / 2 for (a, b), (y, z) in pairs))
    assert found.cmd == pytest.approx(
        sum((b - a) * (abs(1 - y) + abs(1 - z)) / 2 for (a, b), (y, z) in pairs)
    )
    over_logs = sum((np.log(b) - np.log(a)) * (y + z) / 2 for (a, b), (y, z) in pairs)
    assert found.log_area == pytest.approx(over_logs / np.log(1000))
    ideal = replace(found, value=np.ones(len(x)))
    assert (ideal.cmd, ideal.log_gap) == (0.0, 0.0)
    assert ideal.cpr == pytest.approx(0.999)
    assert ideal.log_area == pytest.approx(1.0)
    chance = replace(found, value=np.array([0.0] * 9 + [1.0]))
    assert (chance.cpr, chance.cmd) == pytest.approx((0.25, 0.749))


def test_every_share_of_the_curve_is_the_ratio_of_means():
    circuit, model, trials = opened("two-hop", 4)
    graph = circuits.attribute(model, trials, method="exact")
    found = circuits.evaluate(model, graph, trials, sizes=[3, 8], by="signed", n_random=0)
    for i, k in enumerate((3, 8)):
        keep = set(graph.top(k, by="signed").circuit())
        left = circuits.path_patch(model, trials, [e for e in graph.edges if e not in keep]).patched[0]
        empty = circuits.path_patch(model, trials, graph.edges).patched[0]
        clean = trials.metric(model.logits(trials.clean)).numpy()
        want = (left.mean() - empty.mean()) / (clean.mean() - empty.mean())
        assert found.value[i] == pytest.approx(want, abs=1e-5)
    assert "most harmful to cut first" in found.convention
    assert found.ablation == "corrupted"


@pytest.mark.parametrize("measure", ["kl", "metric"])
def test_acdc_decides_in_batches_as_one_by_one(measure):
    circuit, model, trials = opened("two-hop")
    single, batched = (
        circuits.acdc(model, trials, tau=0.05, measure=measure, window=window) for window in (1, 64)
    )
    np.testing.assert_array_equal(single.chosen, batched.chosen)
    assert set(batched.circuit()) == {str(edge) for edge in circuit.graph.edges}
    assert batched.provenance["block_runs"] < 2 * 110  # less than a full pass for each of the 110 edges


def test_acdc_equals_the_plain_greedy_loop_over_all_edges():
    circuit, model, trials = opened("backup", 6)
    found = circuits.acdc(model, trials, tau=0.02, measure="metric")
    layout = found.layout
    bench = next(benches(Stream(model), trials))
    clean, cut, now = bench.ends().mean(), torch.zeros(1, layout.n_edges, dtype=torch.bool), 0.0
    mlps_first = sorted(
        range(len(layout.destinations)),
        key=lambda d: (layout.layer[d], layout.destinations[d][0] == "m", d),
        reverse=True,
    )
    for d in mlps_first:
        for edge in range(layout.offsets[d + 1] - 1, layout.offsets[d] - 1, -1):
            cut[0, edge] = True
            then = float((bench.cut(cut).mean() - clean).abs())
            if then - now < 0.02:
                now = then
            else:
                cut[0, edge] = False
    np.testing.assert_array_equal(found.chosen, ~cut[0].numpy())


def test_a_path_is_patched_alone_and_a_broken_one_does_nothing():
    circuit, model, trials = opened("two-hop")
    paths = [
        ["input->a0.h1<v>", "a0.h1->a1.h0<v>", "a1.h0->logits"],
        ["input->a0.h1<v>", "a0.h1->logits"],
        ["input->a0.h1<v>"],
    ]
    found = circuits.path_patch(model, trials, paths, mode="paths")
    assert found.value[0] < -1
    np.testing.assert_allclose(found.value[1:], 0, atol=1e-5)
    # with every edge on the path, the whole corrupted run arrives
    every = circuits.path_patch(model, trials, circuits.Layout.plain(2, 4).names, mode="paths")
    want = trials.metric(model.logits(trials.corrupted))
    np.testing.assert_allclose(every.patched[0], want.numpy(), atol=1e-4)


def test_positions_confine_a_patch():
    circuit, model, trials = opened("two-hop")
    edge = ["a1.h0->logits"]
    whole, last, first = (
        circuits.path_patch(model, trials, edge, positions=where).value[0] for where in (None, [-1], [0])
    )
    assert whole == pytest.approx(last, abs=1e-5)
    assert first == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="0-9"):
        circuits.path_patch(model, trials, edge, positions=[10])


def test_a_linear_estimate_is_calibrated_only_where_the_network_is_linear():
    circuit, model, trials = opened("two-hop")
    exact = circuits.attribute(model, trials, method="exact")
    top, sample = circuits.calibrate(model, exact, trials, top=10, sample=20)
    assert top.value == pytest.approx(1, abs=1e-6)
    assert sample.r2 == pytest.approx(1, abs=1e-6)
    bent, _ = circuits.calibrate(
        model, circuits.attribute(model, trials, method="eap"), trials, top=10, sample=20
    )
    assert abs(bent.value - 1) > 0.1


def test_stability_is_whole_on_clear_scores_and_chance_on_noise():
    layout, rng = circuits.Layout.plain(2, 4), np.random.default_rng(0)
    noise = rng.normal(size=(40, layout.n_edges))
    clear = np.zeros(layout.n_edges)
    clear[:10] = 100
    graph = circuits.Graph(layout=layout, examples=noise + clear, n=40)
    steady = circuits.stability(graph, k=10)
    assert steady.value == 1.0
    assert steady.inclusion[:10].min() == 1.0
    with pytest.raises(InputError, match="keep=True"):
        circuits.stability(replace(graph, examples=None), k=10)


def test_missing_references_and_sameness_are_named():
    circuit, model, trials = opened("two-hop", 4)
    graph = circuits.attribute(model, trials, method="eap")
    with pytest.raises(InputError, match="no reference circuit"):
        circuits.compare(graph, None)
    with pytest.raises(InputError, match="no behaviour"):
        circuits.evaluate(model, graph, (trials.clean, trials.clean, trials.metric), sizes=[3])
