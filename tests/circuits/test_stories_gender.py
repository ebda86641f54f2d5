"""A real network with grouped keys and values: which pronoun follows a girl and a boy, with exact checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import circuits
import interp

SENTENCES = (
    ("One day, a little {} went to the park.", "She", "He"),
    ("There was a {} who liked to play.", "She", "He"),
    ("Once upon a time, there was a little {}.", "She", "He"),
    ("Once there was a {} who had a big red ball.", "She", "He"),
    ("One day, a {} saw a big dog in the park.", "She", "He"),
    ("The {} was very happy because", "she", "he"),
    ("The {} was sad because", "she", "he"),
    ("The little {} said that", "she", "he"),
    ("The little {} was so happy that", "she", "he"),
    ("One day, the {} was playing in the park when", "she", "he"),
)


@pytest.fixture(scope="module")
def gender(shared: Path, tmp_path_factory: pytest.TempPathFactory):
    """The model, and pairs that differ in girl and boy (three tokens each), read from a CSV."""
    model = interp.load(shared / "models" / "stories260k")
    lines = ["clean,corrupted,answer,wrong"]
    for sentence, she, he in SENTENCES:
        girl, boy = sentence.format("girl"), sentence.format("boy")
        lines += [f'"{girl}","{boy}",{she},{he}', f'"{boy}","{girl}",{he},{she}']
    path = tmp_path_factory.mktemp("gender") / "pairs.csv"
    path.write_text("\n".join(lines))
    return model, interp.tasks.read(path, model=model)


def test_the_network_knows_which_pronoun_follows(gender) -> None:
    model, task = gender
    assert len(task) == 2 * len(SENTENCES)
    assert task.accuracy(model.logits(task.clean)) == 1.0
    assert task.metric(model.logits(task.clean)).mean() > 2
    assert task.metric(model.logits(task.corrupted)).mean() < -2


@pytest.mark.slow
@pytest.mark.parametrize(("gqa", "n_edges"), [("ungrouped", 2461), ("grouped", 1701)])
def test_its_circuit_is_a_fourth_of_the_edges_faithful_and_confirmed_by_cutting_every_edge_of_it(
    gender, gqa, n_edges
) -> None:
    model, task = gender
    graph = circuits.attribute(model, task, method="eap-ig", steps=10, gqa=gqa, keep=True)
    assert graph.n_edges == n_edges
    small = circuits.shrink(model, graph, task)
    size, kept = (small.provenance["shrunk"][key] for key in ("size", "faithfulness"))
    assert kept >= 0.9
    assert size < 0.25 * n_edges
    control = circuits.evaluate(model, graph, task, sizes=[size], n_random=20)
    assert control.control.max() < 0.2
    # what remains when all the others are cut, by path patching: another road to the same number
    others = np.flatnonzero(~small.chosen)
    left = circuits.path_patch(model, task, [graph.layout.name(int(e)) for e in others], gqa=gqa).patched[0]
    share = (left.mean() - control.empty.mean()) / (control.clean.mean() - control.empty.mean())
    assert share == pytest.approx(kept, abs=1e-4)
    # every edge of the circuit cut alone: the estimate's sign is right where it says anything
    exact = circuits.edge_effects(model, task, edges=small.chosen, graph=small)
    estimate, effect = exact.scores[small.chosen], exact.exact[small.chosen]
    assert np.corrcoef(estimate, effect)[0, 1] > 0.9
    large = np.abs(effect) > 0.1
    assert large.sum() > 50
    assert (np.sign(estimate[large]) == np.sign(effect[large])).mean() > 0.9
    # one head of the last layer carries most of it: its values come from the MLPs that read the word
    names = np.array(exact.circuit())
    assert names[effect.argmin()] == "a4.h2->logits"
    values = {"grouped": "m2->a4.kv1<v>", "ungrouped": "m2->a4.h2<v>"}[gqa]
    assert values in names[effect.argsort()[:3]]
    steady = circuits.stability(graph, k=size)
    assert steady.value > 5 * steady.chance
