"""The other classics: each paper's headline at small size, beside what theory or brute force says."""

from __future__ import annotations

import itertools

import pytest
import torch

import interp
from interp.errors import InputError
from interp.toys import (
    complexity_bias,
    coordinate_networks,
    effective_theory,
    inverse_permutation,
    streaming_parity,
)

# -- effective theory -----------------------------------------------------------------------------


def test_parallelograms_are_all_pairs_of_pairs_with_one_sum() -> None:
    found = {tuple(row) for row in effective_theory.parallelograms(6).tolist()}
    pairs = list(itertools.combinations_with_replacement(range(6), 2))
    expected = {frozenset((x, y)) for x, y in itertools.combinations(pairs, 2) if sum(x) == sum(y)}
    assert {frozenset(((i, j), (k, m))) for i, j, k, m in found} == expected
    assert len(found) == len(expected)


def test_rqi_is_one_on_a_line_and_small_elsewhere() -> None:
    line = torch.arange(10.0)[:, None]
    assert effective_theory.rqi(line) == effective_theory.rqi(3 - 0.5 * line) == 1
    bent = line.clone()
    bent[9] += 3
    assert 0 < effective_theory.rqi(bent) < 1
    with pytest.raises(InputError, match="at least 3"):
        effective_theory.rqi(torch.zeros(2, 1))
    with pytest.raises(InputError, match="same for all symbols"):
        effective_theory.rqi(torch.zeros(5, 1))


def test_ideal_accuracy_counts_what_training_pairs_imply() -> None:
    pairs = list(itertools.combinations_with_replacement(range(4), 2))
    assert effective_theory.ideal_accuracy(4, pairs) == 1
    assert effective_theory.ideal_accuracy(4, [(0, 0)]) == 0.1
    # without any closed parallelogram nothing else is implied
    assert effective_theory.ideal_accuracy(4, [(0, 1), (2, 2)]) == 0.2
    # (0,2)~(1,1) and (1,3)~(2,2) make the four equally spaced, so pairs of equal sum are tied: a sum seen is known
    known = [(0, 2), (1, 1), (1, 3), (2, 2)]
    assert effective_theory.ideal_accuracy(4, known) == pytest.approx(0.4)
    assert effective_theory.ideal_accuracy(4, [*known, (0, 3)]) == pytest.approx(0.6)  # and with it (1, 2)


def test_effective_loss_is_nought_exactly_where_training_parallelograms_close() -> None:
    line = torch.arange(5.0)[:, None]
    every = list(itertools.combinations_with_replacement(range(5), 2))
    assert effective_theory.effective_loss(line, every) == 0
    bent = line.clone()
    bent[4] += 1
    assert effective_theory.effective_loss(bent, every) > 0
    assert effective_theory.effective_loss(bent, [(0, 2), (1, 1)]) == 0


@pytest.mark.parametrize(
    ("steps", "phase"),
    [
        ((10, 20), "comprehension"),
        ((10, 1010), "grokking"),
        ((10, None), "memorisation"),
        ((None, None), "confusion"),
    ],
)
def test_phases_are_told_by_when_accuracies_are_reached(steps: tuple, phase: str) -> None:
    assert effective_theory.phase_of(*steps) == phase


def test_the_toy_generalises_as_far_as_its_representation_allows() -> None:
    """With 45 of 55 pairs the positions become a line, then the test accuracy the ideal one; with 20 they do not."""
    recipe = lambda n: effective_theory.AdditionRecipe(n_train=n, steps=400, lr=1e-2, decoder_lr=1e-3)  # noqa: E731
    for seed in range(3):
        enough = effective_theory.train_addition(recipe=recipe(45), seed=seed)
        assert enough.phase == "comprehension"
        assert enough.rqi == 1
        assert abs(enough.accuracy - enough.ideal) < 1.5 / 55  # one pair of 55
        line, known = enough.first(3, 0.95), enough.first(2, 0.9)
        assert line is not None
        assert known is not None
        assert line <= known
    few = effective_theory.train_addition(recipe=recipe(20), seed=0)
    assert few.phase == "memorisation"
    assert few.rqi < 0.5
    assert few.accuracy <= few.ideal
    with pytest.raises(InputError, match=r"n_train must lie in 1\.\.55"):
        effective_theory.AdditionRecipe(n_train=56)


@pytest.mark.slow
def test_at_the_published_rates_the_line_is_there_after_some_eight_hundred_steps() -> None:
    recipe = effective_theory.AdditionRecipe(n_train=45, steps=3000)
    for seed in range(4):
        run = effective_theory.train_addition(recipe=recipe, seed=seed)
        line = run.first(3, 0.95)
        assert line is not None
        assert 500 <= line <= 1100
        assert run.accuracy == pytest.approx(run.ideal, abs=1e-12)


@pytest.mark.slow
def test_a_phase_diagram_has_three_phases_and_does_not_depend_on_the_processes() -> None:
    recipe = effective_theory.AdditionRecipe(n_train=45, steps=2500, spread=1.0)
    axes = ((1e-4, 1e-2), (0.0, 1.0, 10.0))
    alone = effective_theory.phase_diagram(*axes, recipe=recipe, seed=1)
    assert alone == effective_theory.phase_diagram(*axes, recipe=recipe, seed=1, workers=2)
    assert {phase for row in alone for phase in row} >= {"comprehension", "memorisation", "confusion"}


# -- inverse permutation --------------------------------------------------------------------------


def every_case(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    cases = [(p, x) for p in itertools.permutations(range(n)) for x in itertools.product(range(k), repeat=n)]
    return torch.tensor([p for p, _ in cases]), torch.tensor([x for _, x in cases])


@pytest.mark.parametrize("mode", ["encoder", "scratch"])
def test_the_hand_written_layers_undo_every_permutation(mode: str) -> None:
    p, x = every_case(4, 3)
    network = inverse_permutation.InversePermutation(4, 3, mode=mode)
    assert torch.equal(network.answers(p, x), x)


def test_no_causal_decoder_can_undo_a_permutation() -> None:
    """The best function of the prefix, found by brute force, has exactly the bound; the layers stay below it."""
    n, k = 3, 2
    p, x = every_case(n, k)
    network = inverse_permutation.InversePermutation(n, k, mode="decoder")
    ids = network.inputs(p, x)
    bound = inverse_permutation.causal_bound(n, k)
    for i in range(n):
        best: dict[tuple, list[int]] = {}
        for row, answer in zip(ids[:, : n + i + 1].tolist(), x[:, i].tolist(), strict=True):
            best.setdefault(tuple(row), [0] * k)[answer] += 1
        majority = sum(max(counts) for counts in best.values()) / len(x)
        assert majority == pytest.approx(bound[i])
    right = (network.answers(p, x) == x).double()
    assert right.mean() <= sum(bound) / n
    # all answers at once, by enumeration of what each prefix leaves open
    late = (p.argsort(1) > torch.arange(n)).sum(1)
    assert inverse_permutation.causal_bound_all(n, k) == pytest.approx(float((0.5**late).mean()))
    assert inverse_permutation.causal_bound(1, 5) == [1.0]


def test_the_scratch_network_is_an_ordinary_model() -> None:
    network = inverse_permutation.InversePermutation(3, 2)
    p, x = every_case(3, 2)
    ids = network.inputs(p, x)
    model = interp.load(network, prove=False)
    pattern = model.capture(ids, ["find.pattern"])["find.pattern"]
    assert pattern[0, -3:, :3].argmax(-1).tolist() == p[0].argsort().tolist()
    with pytest.raises(InputError, match="did you mean 'encoder'"):
        inverse_permutation.InversePermutation(3, 2, mode="encodr")


# -- complexity bias ------------------------------------------------------------------------------


def test_an_easy_feature_fills_more_of_the_representation_than_a_hard_one() -> None:
    run = complexity_bias.train_biased(seed=1, recipe=complexity_bias.BiasRecipe(n_bits=10, steps=400))
    assert run.accuracy == {"easy": 1.0, "hard": 1.0}
    assert run.share["easy"] > 2 * run.share["hard"] > 0
    easy, hard = run.learned["easy"], run.learned["hard"]
    assert easy is not None
    assert hard is not None
    assert easy < hard


def test_explained_share_is_the_variance_between_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, dtype=torch.float64, generator=generator)
    label = torch.arange(200) % 2
    x[label == 1] += 2
    centred = x - x.mean(0)
    between = sum(float(centred[label == c].mean(0).square().sum()) * 100 for c in (0, 1))
    expected = between / float(centred.square().sum())
    assert complexity_bias.explained_share(x, label) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(InputError, match="nothing to explain"):
        complexity_bias.explained_share(x, torch.ones(200))
    with pytest.raises(InputError, match="fewer than all"):
        complexity_bias.BiasRecipe(n_bits=3, parity=3)


# -- coordinate networks --------------------------------------------------------------------------


def test_the_same_picture_is_drawn_factored_and_fractured() -> None:
    twins = coordinate_networks.train_twin(size=20, steps=1500)
    assert twins.error < 0.05
    assert twins.participation["factored"] < 3
    assert twins.participation["dense"] > 1.5 * twins.participation["factored"]
    # one weight of the factored network moves one thing, one of the dense one most of the picture
    assert twins.span["factored"] < 0.15
    assert twins.span["dense"] > 2 * twins.span["factored"]


def test_each_unit_of_the_face_draws_one_thing_and_a_sweep_leaves_the_network_alone() -> None:
    face, inputs = coordinate_networks.factored_face(), coordinate_networks.grid(24)
    before = {name: value.clone() for name, value in face.state_dict().items()}
    maps = coordinate_networks.unit_maps(face, inputs)
    left_eye, right_eye = maps[1][:, 1].view(24, 24), maps[1][:, 2].view(24, 24)
    torch.testing.assert_close(left_eye, right_eye.flip(1), atol=1e-5, rtol=0)
    pictures = coordinate_networks.weight_sweep(
        face, inputs, layer=2, unit=0, source=1, offsets=torch.tensor([0.0, 0.5])
    )
    torch.testing.assert_close(pictures[0], face(inputs).detach())
    torch.testing.assert_close(pictures[1] - pictures[0], 0.5 * maps[1][:, 1], atol=1e-5, rtol=0)
    assert all(torch.equal(value, face.state_dict()[name]) for name, value in before.items())
    with pytest.raises(InputError, match="is none"):
        coordinate_networks.weight_sweep(face, inputs, layer=0, unit=99, source=0, offsets=torch.ones(1))
    with pytest.raises(InputError, match="8 units"):
        coordinate_networks.factored_face(4)


# -- streaming parity -----------------------------------------------------------------------------


def test_the_hand_written_recurrence_is_parity_and_its_automaton_has_two_states() -> None:
    network = streaming_parity.by_hand()
    for length in range(1, 10):
        bits = streaming_parity.strings(length)
        assert torch.equal(network(bits).argmax(1), bits.sum(1) % 2)
    assert network.accuracy(2000, n=32) == 1
    found = streaming_parity.automaton_of(network.states, lambda h: network.output(h).argmax(1), length=6)
    assert found.finite
    assert len(found.output) == 5  # the start, and one for each way to the last step
    smallest = streaming_parity.minimise(found)
    assert (smallest.output, smallest.next) == ((0, 1), ((0, 1), (1, 0)))
    for bits in itertools.product((0, 1), repeat=8):
        assert found.run(bits) == smallest.run(bits) == sum(bits) % 2


def test_an_automaton_of_another_language_is_found_and_minimised() -> None:
    """Ones modulo 3, by a state that also counts the length up to 2: redundant states merge."""

    def states(bits: torch.Tensor) -> torch.Tensor:
        return torch.stack([bits.sum(1) % 3, torch.full((len(bits),), min(bits.shape[1], 2))], 1).float()

    found = streaming_parity.automaton_of(states, lambda h: (h[:, 0] == 0).long(), length=7)
    assert len(found.output) > 3
    smallest = streaming_parity.minimise(found)
    assert smallest.output == (1, 0, 0)
    assert all(smallest.run(bits) == (sum(bits) % 3 == 0) for bits in itertools.product((0, 1), repeat=6))


def test_a_network_with_a_state_for_every_string_has_no_finite_automaton() -> None:

    def states(bits: torch.Tensor) -> torch.Tensor:
        value = (bits * 2.0 ** torch.arange(bits.shape[1])).sum(1, keepdim=True)
        return value + 1000.0 * bits.shape[1]

    found = streaming_parity.automaton_of(states, lambda h: h[:, 0].long() % 2, length=5, closeness=1e-6)
    assert len(found.output) == 2**6 - 1
    assert not found.finite
    assert found.run([0] * 6) is None
    with pytest.raises(InputError, match="unknown successors"):
        streaming_parity.minimise(found)


@pytest.mark.slow
def test_parity_on_short_strings_becomes_parity_on_long_ones_when_states_merge() -> None:
    run = streaming_parity.train_parity(seed=0)
    assert run.curve[-1][2] == 1
    assert run.module.accuracy(2000, n=64) == 1
    states = [row[3] for row in run.curve]
    assert max(states) > 2 * states[-1]  # states are made, then merged
    found = streaming_parity.automaton_of(run.module.states, lambda h: run.module.output(h).argmax(1))
    assert found.finite
    assert len(streaming_parity.minimise(found).output) == 2
