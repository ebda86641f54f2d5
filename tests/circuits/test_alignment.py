"""Distributed alignment search: a planted variable is found in its subspace, and nowhere where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
import interp
from interp.errors import InputError, SiteError
from interp.toys import planted


@pytest.fixture(scope="module")
def two_hop():
    circuit = planted("two-hop")
    return circuit, interp.load(circuit.module), circuit.task(160)


def test_the_key_that_is_asked_for_is_found_in_the_field_that_holds_it(two_hop) -> None:
    """Four keys as one-hot vectors differ in three dimensions."""
    circuit, model, trials = two_hop
    found = circuits.align(model, trials, "blocks.0.hook_resid_post", k=3, steps=150)
    assert found.value > 0.95
    assert found.whole == 1.0
    assert found.untouched == 0.0
    assert found.chance < 0.05
    planted_there = found.overlap(circuit.subspace("asked").numpy())
    others = [found.overlap(circuit.subspace(name).numpy()) for name in ("word", "key", "answer")]
    assert planted_there > 0.7
    assert max(others) < 0.1
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-5)
    assert found.loss[-10:].mean() < 0.2 * found.loss[:10].mean()


def test_behind_the_head_it_is_found_in_the_answer(two_hop) -> None:
    circuit, model, trials = two_hop
    found = circuits.align(model, trials, "blocks.1.hook_resid_post", k=3, steps=150)
    assert found.value > 0.95
    assert found.overlap(circuit.subspace("answer").numpy()) > 0.7


def test_with_fewer_directions_than_the_variable_has_a_part_is_carried(two_hop) -> None:
    _, model, trials = two_hop
    one = circuits.align(model, trials, "blocks.0.hook_resid_post", k=1, steps=100)
    assert 0.2 < one.value < 0.8
    assert one.vector.shape == (model.d_model,)


def test_where_the_variable_is_not_nothing_is_found(two_hop) -> None:
    """The first token knows nothing of the question: training finds no subspace there, however wide."""
    _, model, trials = two_hop
    for k in (1, 8):
        found = circuits.align(model, trials, "blocks.0.hook_resid_post", k=k, position=0, steps=60)
        assert found.value < 0.1
        assert found.whole < 0.1


def test_meaningless_targets_are_not_learned_beyond_the_training_pairs(two_hop) -> None:
    _, model, trials = two_hop
    generator = torch.Generator().manual_seed(0)
    wanted = trials.wrong[torch.randperm(160, generator=generator), 0]
    found = circuits.align(
        model, (trials.clean, trials.corrupted, wanted), "blocks.0.hook_resid_post", k=3, steps=100
    )
    assert found.value < 0.5  # by chance the shuffled target is the right one in a quarter of the pairs


def test_one_seed_gives_one_subspace_and_the_model_is_left_as_it_was(two_hop) -> None:
    _, model, trials = two_hop
    before = [(p.requires_grad, p.clone()) for p in model.module.parameters()]
    a, b = (
        circuits.align(model, trials, "blocks.0.hook_resid_post", k=2, steps=5, n_random=0, seed=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(a.basis, b.basis)
    for p, (asked, value) in zip(model.module.parameters(), before, strict=True):
        assert p.requires_grad == asked
        assert p.grad is None
        assert torch.equal(p, value)


def test_it_is_saved_and_read_back(two_hop, tmp_path) -> None:
    _, model, trials = two_hop
    found = circuits.align(model, trials, "blocks.0.attn.hook_z", k=2, steps=2, n_random=1)
    again = circuits.Alignment.load(found.save(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(again.basis, found.basis)


def test_what_cannot_be_aligned_is_refused(two_hop) -> None:
    _, model, trials = two_hop
    site = "blocks.0.hook_resid_post"
    with pytest.raises(InputError, match="44 wide"):
        circuits.align(model, trials, site, k=45)
    with pytest.raises(InputError, match="one of the 10 columns"):
        circuits.align(model, trials, site, position=10)
    with pytest.raises(InputError, match="leaves none"):
        circuits.align(model, trials, site, held_out=0.0)
    with pytest.raises(InputError, match="do not belong together"):
        circuits.align(model, (trials.clean, trials.corrupted, [1, 2]), site)
    with pytest.raises(InputError, match="only one is a direction"):
        _ = circuits.align(model, trials, site, k=2, steps=1).vector
    with pytest.raises(SiteError, match="hook_resid_post"):
        circuits.align(model, trials, "blocks.0.hook_resid_pst")
