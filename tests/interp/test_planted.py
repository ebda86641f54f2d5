"""Planted circuits: the graph each one hands out is the truth, proved edge by edge against a slow oracle."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import InputError, ModelError
from interp.study.analysis import analyze
from interp.study.job import prepare
from interp.tasks.task import Task
from interp.toys import Edge, PlantedGraph, Transformer, Wiring, planted
from interp.toys.planted_circuits import Planted, names
from tests.oracles import all_edges, edge_forward

NAMES = ("induction", "previous", "two-hop", "distractor", "backup")
HARMLESS = 1e-5
"""Logits: the promise for every edge off the circuit (the oracle runs in float64 and finds less than 1e-12)."""
DESTROYED = 0.1
"""Share of the metric left: uniform attention leaves the answer and its rival alike, up to how often each occurs."""


@functools.cache
def known(name: str) -> tuple[Planted, Task, tuple[str, ...], Tensor]:
    """A circuit, its task, every edge of its network, and the logits of the whole."""
    circuit = planted(name)
    task = circuit.task(48, seed=7)
    every = tuple(all_edges(circuit.graph.n_layers, circuit.graph.n_heads))
    return circuit, task, every, edge_forward(circuit.module, task.clean.ids, every)


def without(name: str, *edges: str, patched: bool = False) -> Tensor:
    """The logits with some edges removed, or fed by the corrupted run."""
    circuit, task, every, _ = known(name)
    kept = [edge for edge in every if edge not in edges]
    foreign = task.corrupted.ids if patched else None
    return edge_forward(circuit.module, task.clean.ids, kept, foreign=foreign)


def left(name: str, logits: Tensor) -> float:
    """What is left of the metric, as a share."""
    _, task, _, whole = known(name)
    return float(task.metric(logits).mean() / task.metric(whole).mean())


def test_the_five_circuits_are_embedded_networks() -> None:
    assert {f"planted:{name}" for name in NAMES} == set(names())
    assert set(names()) <= set(interp.toys.names())


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_with_every_edge_is_the_network(name: str) -> None:
    circuit, task, every, whole = known(name)
    assert sorted(map(str, circuit.graph.candidates)) == sorted(every)
    logits = interp.load(f"planted:{name}").logits(task.clean)
    # float32 against float64 on logits up to 8
    torch.testing.assert_close(logits.double(), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_circuit_answers_and_the_corruption_turns_the_answer(name: str) -> None:
    circuit = planted(name)
    task = circuit.task(256, seed=1)
    model = interp.load(circuit.name)
    logits, corrupted = model.logits(task.clean), model.logits(task.corrupted)
    assert (logits[:, -1].argmax(-1) == task.answers[:, 0]).all()
    assert task.metric(logits).min() > 4
    if name == "backup":  # its corruption takes the answer away
        assert task.metric(corrupted).abs().max() < 1e-5
    else:  # and the others' exchanges it for the wrong one
        assert (corrupted[:, -1].argmax(-1) == task.wrong[:, 0]).all()
        # the prompts are each other's mirror image
        assert float(task.metric(corrupted).mean()) == pytest.approx(-float(task.metric(logits).mean()), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_program_gives_the_answers(name: str) -> None:
    circuit, task, _, _ = known(name)
    labels = circuit.labels(task.clean.ids)["answer"]
    assert torch.equal(labels[:, -1], task.answers[:, 0])
    assert (labels[:, :-1] == -100).all()
    if name != "backup":
        assert torch.equal(circuit.labels(task.corrupted.ids)["answer"][:, -1], task.wrong[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_removing_an_essential_edge_destroys_the_behaviour(name: str) -> None:
    circuit, task, _, _ = known(name)
    for edge in circuit.graph.essential:
        logits = without(name, str(edge))
        assert abs(left(name, logits)) < DESTROYED, edge
        assert (logits[:, -1].argmax(-1) == task.answers[:, 0]).double().mean() < 0.6, edge


@pytest.mark.parametrize("name", NAMES)
def test_removing_or_corrupting_any_other_edge_changes_no_logit(name: str) -> None:
    circuit, _, _, whole = known(name)
    others = circuit.graph.others
    assert len(others) + len(circuit.graph.edges) == len(circuit.graph.candidates)
    for edge in others:
        for patched in (False, True):
            assert (without(name, str(edge), patched=patched) - whole).abs().max() < HARMLESS, edge
    # also all of them at once: the circuit is enough
    assert (without(name, *map(str, others)) - whole).abs().max() < HARMLESS


@pytest.mark.parametrize("name", NAMES)
def test_the_edges_off_the_circuit_carry_something(name: str) -> None:
    circuit = planted(name)
    acts = interp.load(circuit.name).capture(circuit.task(16).clean, "blocks.*.attn.hook_result")
    for site, result in acts.tensors.items():
        for head in range(circuit.graph.n_heads):
            assert result[:, :, head].norm(dim=-1).max() > 0.1, (site, head)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "backup"])
def test_the_corruption_moves_every_true_edge_but_those_called_still(name: str) -> None:
    graph = known(name)[0].graph
    for edge in graph.edges:
        share = left(name, without(name, str(edge), patched=True))
        # any one edge from the mirror image turns the answer into the wrong one
        assert share == pytest.approx(1.0 if edge in graph.still else -1.0, abs=0.01), edge


def test_two_hops_leave_no_edge_still_and_no_softmax_saturated() -> None:
    circuit = planted("two-hop")
    task = circuit.task(128)
    assert circuit.graph.still == ()
    ports = {(edge.source, edge.port) for edge in circuit.graph.edges if edge.destination == "a1.h0"}
    assert ports == {("input", "q"), ("a0.h0", "k"), ("a0.h1", "v")}
    model = interp.load(circuit.name)
    probabilities = model.logits(task.clean)[:, -1].softmax(-1)
    assert probabilities.max() < 0.97
    patterns = model.capture(task.clean, "blocks.*.attn.hook_pattern")
    for pattern in patterns.tensors.values():
        assert pattern[:, :, 1:].max() < 0.98  # the first position sees one key only


def test_backups_are_singly_harmless_and_jointly_destructive() -> None:
    circuit, _, _, whole = known("backup")
    first, second = circuit.graph.alternatives

    def moved(*edges: str, patched: bool = False) -> float:
        """The largest change of a logit where the answer is asked for."""
        return float((without("backup", *edges, patched=patched) - whole)[:, -1].abs().max())

    for edge in (*first, *second):
        for patched in (False, True):
            assert moved(str(edge), patched=patched) < HARMLESS, edge
    for path in (first, second):  # a whole path may go
        assert moved(*map(str, path)) < HARMLESS
    for one in first:
        for two in second:
            for patched in (False, True):
                assert abs(left("backup", without("backup", str(one), str(two), patched=patched))) < DESTROYED


def test_the_decoys_hold_the_answer_and_cause_nothing() -> None:
    circuit, task, every, whole = known("distractor")
    decoys = circuit.graph.decoys
    cut = [edge for edge in every if edge.split("->")[0] in decoys]
    assert (without("distractor", *cut) - whole).abs().max() < HARMLESS
    model = interp.load(circuit.name)
    sites = {
        "a0.h1": "blocks.0.attn.hook_result[1]",
        "a1.h1": "blocks.1.attn.hook_result[1]",
        "m1": "blocks.1.hook_mlp_out",
    }
    assert set(sites) == set(decoys)
    for node, site in sites.items():
        acts = model.capture(task.clean, site, positions="last")
        (value,) = acts.tensors.values()
        written = value.flatten(1).double() @ circuit.subspace("echo" if node == "a1.h1" else "decoy")
        assert torch.equal(written.argmax(-1) + circuit.strings.index("w0"), task.answers[:, 0]), node
    pattern = model.capture(task.clean, "blocks.0.attn.hook_pattern")["blocks.0.attn.hook_pattern"]
    assert pattern[:, 1, -1, 3].min() > 0.8  # it looks at the answer, which stands at position 3


def test_a_random_network_of_the_same_shape_has_no_such_edges() -> None:
    circuit, task, every, _ = known("two-hop")
    module = Transformer(circuit.module.shape, generator=torch.Generator().manual_seed(0))
    whole = edge_forward(module, task.clean.ids, every)
    changes = [
        (edge_forward(module, task.clean.ids, [e for e in every if e != str(edge)]) - whole).abs().max()
        for edge in circuit.graph.others
    ]
    assert min(changes) > 100 * HARMLESS
    assert abs(float(task.metric(whole).mean())) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_ablating_a_head_through_the_model_is_removing_its_edges(name: str) -> None:
    circuit, task, every, _ = known(name)
    model = interp.load(circuit.name)
    for layer in range(circuit.graph.n_layers):
        for head in range(circuit.graph.n_heads):
            edit = interp.ablate(f"blocks.{layer}.attn.hook_z", head=head, how="zero")
            cut = [edge for edge in every if edge.startswith(f"a{layer}.h{head}->")]
            logits = model.logits(task.clean, edits=[edit]).double()
            torch.testing.assert_close(logits, without(name, *cut), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_is_seeded_and_aligned(name: str) -> None:
    circuit = planted(name)
    one, again, other = circuit.task(10, seed=1), circuit.task(10, seed=1), circuit.task(10, seed=2)
    assert torch.equal(one.clean.ids, again.clean.ids)
    assert not torch.equal(one.clean.ids, other.clean.ids)
    assert torch.equal(one.clean.ids, circuit.inputs(10, seed=1))
    assert one.clean.ids.shape == one.corrupted.ids.shape
    assert one.texts[0][0].split() == one.clean.strings[0]
    logits = interp.load(circuit.name).logits(one.clean)
    expected = logits[range(10), -1, one.answers[:, 0]] - logits[range(10), -1, one.wrong[:, 0]]
    torch.testing.assert_close(one.metric(logits), expected.double())
    with pytest.raises(InputError, match="n must be at least 1"):
        circuit.task(0)


def test_what_is_no_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="rows of 9 ids below 12"):
        planted("induction").labels(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="must have occurred before"):
        planted("induction").labels(torch.arange(9)[None])
    with pytest.raises(InputError, match="asks for the key"):
        planted("two-hop").labels(torch.zeros(1, 10, dtype=torch.int64))
    with pytest.raises(InputError, match="must end in a question"):
        planted("backup").labels(torch.zeros(1, 5, dtype=torch.int64))


def test_an_unknown_circuit_or_subspace_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no planted circuit 'inducton'; did you mean 'induction'"):
        planted("inducton")
    with pytest.raises(
        ModelError, match=r"no embedded network 'planted:backups'; did you mean 'planted:backup'"
    ):
        interp.load("planted:backups")
    with pytest.raises(InputError, match=r"no subspace 'prev'; did you mean 'previous'"):
        planted("induction").subspace("prev")


@pytest.mark.parametrize("text", ["input->a0.h0<q>", "a0.h1->m0", "m1->logits", "a0.h12->a10.h3<v>"])
def test_an_edge_is_its_string(text: str) -> None:
    assert str(Edge.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a0.h0-a1.h0", "no edge 'a0.h0-a1.h0'"),
        ("x->logits", "no node 'x'"),
        ("a0.h0->a1.h0", "entered at <q>, <k> or <v>"),
        ("a0.h0->m0<q>", "entered at <q>, <k> or <v>"),
    ],
)
def test_what_is_no_edge_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Edge.parse(text)


def test_a_graph_refuses_edges_that_its_network_has_not() -> None:
    edge = Edge.parse("a0.h0->logits")
    with pytest.raises(
        InputError, match="a1.h0->logits is no edge of this network; did you mean 'a0.h0->logits'"
    ):
        PlantedGraph(n_layers=1, n_heads=1, essential=(Edge.parse("a1.h0->logits"),))
    with pytest.raises(InputError, match="given twice"):
        PlantedGraph(n_layers=1, n_heads=1, essential=(edge, edge))
    with pytest.raises(InputError, match="still but is none of the circuit"):
        PlantedGraph(n_layers=1, n_heads=1, essential=(edge,), still=(Edge.parse("m0->logits"),))


def test_the_number_of_edges_is_the_known_formula() -> None:
    # sum over layers of 3H(1 + l(H+1)) + (1 + l(H+1) + H), and 1 + L(H+1) into the logits; GPT-2 small has 32,491
    assert len(PlantedGraph(n_layers=12, n_heads=12, essential=()).candidates) == 32_491


def test_a_graph_says_its_nodes_in_order_and_itself_as_json() -> None:
    graph = planted("backup").graph
    assert graph.nodes == ("input", "a0.h0", "a1.h1", "m1", "logits")
    held = graph.to_dict()
    assert held["essential"] == ["input->m1", "m1->logits"]
    assert held["alternatives"][0][-1] == "a0.h0->m1"
    assert repr(graph).startswith("PlantedGraph(10 of 110 edges")


def test_wiring_refuses_what_does_not_fit() -> None:
    net = Wiring({"token": 3}, d_vocab=3, n_ctx=2, n_layers=1, n_heads=2, d_mlp=2)
    wide, eye = torch.eye(3, 50), torch.eye(3)
    with pytest.raises(InputError, match="no subspace 'tokens'; did you mean 'token'"):
        net.tokens(tokens=eye)
    with pytest.raises(InputError, match="a code of 50 numbers does not fit"):
        net.head(0, 0, q={"token": wide}, k={"token": wide}, v={"token": eye}, to="token", beta=1.0)
    with pytest.raises(InputError, match="3 neurons were asked of an MLP of 2"):
        net.neurons(0, reads={"token": eye}, to="token", writes=eye)


def test_the_main_job_runs_on_a_planted_circuit(tmp_path) -> None:
    job = prepare("planted:two-hop", max_tokens=2000)
    assert job.material.tokens.ids.shape == (200, 10)
    assert "set by hand; 10 of 110 edges matter" in job.material.notes[0]
    assert "200 prompts of its own language, such as" in job.material.source
    assert job.material.tokens.strings[0][-1].endswith("?")
    done = analyze("planted:two-hop", out=tmp_path, max_tokens=2000, stations=["geometry", "circuit"])
    assert [section["status"] for section in done.sections] == ["done", "done"]
    effects = done.sections[1]["numbers"]["effects"]
    found = dict(zip(effects["parts"], effects["effect"], strict=True))
    assert done.sections[1]["numbers"]["task"]["name"] == "planted:two-hop"  # its own task, not a made-up one
    # each head of the truth alone brings all of the answer back, every other nothing at all
    true = {f"blocks.{node[1]}.attn.hook_z[{node[-1]}]" for node in ("a0.h0", "a0.h1", "a1.h0")}
    assert {part for part, effect in found.items() if effect > 0.99} == true
    assert max(abs(effect) for part, effect in found.items() if part not in true) < 1e-5
