"""Patching: equal to doing it by hand, exact where the truth is planted, nought where there is nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interp
from circuits import PatchResult, patch_sweep
from interp.errors import InputError, SiteError
from interp.results import Result
from interp.toys import Shape, Transformer


def network(*, n_layers: int = 2, seed: int = 0) -> Transformer:
    shape = Shape(d_vocab=10, n_ctx=8, n_layers=n_layers, d_model=16, n_heads=4, d_mlp=24)
    return Transformer(shape, generator=torch.Generator().manual_seed(seed)).double()


def pairs(n: int = 6, length: int = 6) -> tuple[Tensor, Tensor]:
    clean, other = (
        torch.randint(10, (n, length), generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    other[:, -1] = clean[:, -1]
    return clean, other


def metric(logits: Tensor) -> Tensor:
    return logits[:, -1, 3] - logits[:, -1, 7]


def by_hand(module: Transformer, base: Tensor, source: Tensor, layer: int, head: int) -> np.ndarray:
    """The metric with one head's z taken from the source run, one example at a time, by forward pre-hooks."""
    out_projection = module.blocks[layer].attn.o
    width = module.shape.d_head
    columns = slice(head * width, (head + 1) * width)
    scores = []
    for row in range(len(base)):
        kept: dict[str, Tensor] = {}
        handle = out_projection.register_forward_pre_hook(
            lambda _, args, kept=kept: kept.update(z=args[0].clone())
        )
        module(source[row : row + 1])
        handle.remove()

        def swap(_: nn.Module, args: tuple[Tensor], kept: dict[str, Tensor] = kept) -> tuple[Tensor]:
            z = args[0].clone()
            z[..., columns] = kept["z"][..., columns]
            return (z,)

        handle = out_projection.register_forward_pre_hook(swap)
        scores.append(metric(module(base[row : row + 1])))
        handle.remove()
    return torch.cat(scores).detach().numpy()


@pytest.mark.parametrize("mode", ["denoise", "noise"])
@pytest.mark.parametrize("batch_size", [4, 13, 64])
def test_every_head_equals_patching_by_hand(mode: str, batch_size: int) -> None:
    module = network()
    clean, corrupted = pairs()
    result = patch_sweep(interp.load(module), clean, corrupted, metric, mode=mode, batch_size=batch_size)
    base, source = (corrupted, clean) if mode == "denoise" else (clean, corrupted)
    m_clean, m_corrupted = (metric(module(ids)).detach().numpy() for ids in (clean, corrupted))
    assert result.components == tuple(
        f"blocks.{layer}.attn.hook_z[{head}]" for layer in (0, 1) for head in range(4)
    )
    for i, site in enumerate(result.sites):
        patched = by_hand(module, base, source, site.layer, site.head)
        np.testing.assert_allclose(result.patched[i], patched, atol=1e-12)
        change = patched - m_corrupted if mode == "denoise" else m_clean - patched
        assert result.value[i] == pytest.approx(change.mean() / (m_clean - m_corrupted).mean(), abs=1e-10)


def test_a_planted_head_carries_all_of_it_and_the_others_nothing() -> None:
    module = network(n_layers=1)
    with (
        torch.no_grad()
    ):  # only head 2 writes; the MLP is silent: the context reaches the end through that head alone
        width = module.shape.d_head
        keep = torch.zeros(16, dtype=torch.bool)
        keep[2 * width : 3 * width] = True
        module.blocks[0].attn.o.weight[:, ~keep] = 0
        module.blocks[0].mlp.down.weight.zero_()
    clean, corrupted = pairs(12)
    model = interp.load(module)
    answers = model.logits(clean)[:, -1].argmax(-1)
    # an answer for each example: with one for all, permuting the sources would leave this linear network's mean alone
    result = patch_sweep(
        model, clean, corrupted, lambda logits: logits[torch.arange(12), -1, answers], control=True
    )
    np.testing.assert_allclose(result.value, [0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(result.interval[2], [1, 1], atol=1e-9)
    np.testing.assert_allclose(np.delete(result.control, 2), 0, atol=1e-12)
    assert result.control[2] < 0.8  # another prompt's context is not this prompt's
    grid, layers, heads = result.grid()
    assert grid.shape == (1, 4)
    assert (layers, heads[2]) == (("layer 0",), "head 2")


def test_the_whole_stream_behind_the_last_layer_is_the_whole_answer() -> None:
    clean, corrupted = pairs()
    model = interp.load(network())
    steps = ["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"]
    ladder = patch_sweep(model, clean, corrupted, metric, sites=steps, position="last")
    assert ladder.value[0] == pytest.approx(0, abs=1e-12)  # the last token is the same in both runs
    assert ladder.value[-1] == pytest.approx(1, abs=1e-12)
    everywhere = patch_sweep(model, clean, corrupted, metric, sites=steps)
    np.testing.assert_allclose(everywhere.value, 1, atol=1e-12)
    noise = patch_sweep(model, clean, corrupted, metric, sites=steps, position="last", mode="noise")
    np.testing.assert_allclose(noise.value[[0, -1]], [0, 1], atol=1e-12)


def test_mean_ablation_of_a_part_that_never_varies_costs_nothing() -> None:
    module = network(n_layers=1)
    with torch.no_grad():
        module.blocks[0].attn.v.weight[: module.shape.d_head] = 0  # head 0 reads nothing: its z is always 0
    clean, corrupted = pairs()
    result = patch_sweep(interp.load(module), clean, corrupted, metric, mode="mean")
    assert result.value[0] == pytest.approx(0, abs=1e-12)
    assert np.abs(result.value[1:]).min() > 1e-4


def test_identical_pairs_have_a_reason_instead_of_a_ratio() -> None:
    clean, _ = pairs()
    result = patch_sweep(interp.load(network()), clean, clean, metric)
    assert np.isnan(np.asarray(result.value)).all()
    assert "no gap to share out" in str(result.reason)


def test_an_uncertain_gap_is_said() -> None:
    clean, corrupted = pairs()
    undecided = (
        torch.cat([clean, corrupted]),
        torch.cat([corrupted, clean]),
    )  # the gaps cancel pair by pair, but one
    undecided[1][0] = undecided[0][0]
    assert "hardly distinguishable from 0" in str(
        patch_sweep(interp.load(network()), *undecided, metric).reason
    )


def test_modules_without_heads_are_patched_whole() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))
    clean, corrupted = (torch.randint(10, (7, 3), generator=torch.Generator().manual_seed(s)) for s in (3, 4))
    result = patch_sweep(interp.load(module), clean, corrupted, metric)
    assert result.components == ("0", "1", "2", "3")
    np.testing.assert_allclose(result.value, 1, atol=1e-6)  # a chain: each part is all of it
    with pytest.raises(InputError, match="no component of this sweep is a head"):
        result.grid()
    assert result.plot().data


def test_a_sweep_is_saved_drawn_and_told(tmp_path: Path) -> None:
    clean, corrupted = pairs()
    result = patch_sweep(interp.load(network()), clean, corrupted, metric)
    loaded = Result.load(result.save(tmp_path / "sweep"))
    assert isinstance(loaded, PatchResult)
    np.testing.assert_array_equal(loaded.patched, result.patched)
    assert loaded.components == result.components
    assert list(result.to_frame()["component"]) == list(result.components)
    assert np.asarray(result.plot().data[0].z, dtype=float).shape == (2, 4)


def test_the_interval_covers_what_more_examples_show() -> None:
    model = interp.load(network())
    few = patch_sweep(model, *pairs(24), metric)
    many = patch_sweep(model, *pairs(400), metric)
    inside = (few.interval[:, 0] <= many.value) & (many.value <= few.interval[:, 1])
    assert inside.mean() >= 0.6  # 95% intervals of a ratio, from 24 pairs, on 8 correlated heads


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m, a, b: patch_sweep(m, a, b[:3], metric),
            InputError,
            r"clean has shape \[6, 6\] and corrupted \[3, 6\]",
        ),
        (
            lambda m, a, b: patch_sweep(m, a, b, lambda logits: logits.mean()),
            InputError,
            r"returned \[\]; it must give one number per example",
        ),
        (
            lambda m, a, b: patch_sweep(m, a, b, lambda logits: logits[:2, -1, 0]),
            InputError,
            r"gave \[2, 2\] numbers for 6 examples",
        ),
        (lambda m, a, b: patch_sweep(m, "a", "b", metric), InputError, "must be Tokens or tensors"),
        (lambda m, a, b: patch_sweep(m, a, b, metric, sites="blocks.5.hook_resid_post"), SiteError, "0-1"),
    ],
)
def test_unusable_input_is_named(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(interp.load(network()), *pairs())


def test_pairs_of_different_lengths_are_named() -> None:
    clean, corrupted = (interp.Tokens.of(rows) for rows in ([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5]]))
    with pytest.raises(InputError, match="pair 1 has 3 clean and 2 corrupted tokens"):
        patch_sweep(interp.load(network()), clean, corrupted, metric)
