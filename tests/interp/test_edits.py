"""Each edit does what it says, where it says, and nothing elsewhere."""

from __future__ import annotations

import pytest
import torch

import interp
from tests.models import ids, loaded

Z = "blocks.1.attn.hook_z"
R = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return loaded("gpt2", "transformers")


def after(model, site: str, *edits: interp.Edit, tokens=None) -> torch.Tensor:
    """What stands at ``site`` under the edits."""
    return model.capture(ids() if tokens is None else tokens, site, edits=edits)[site]


def test_replace_add_scale_put_the_arithmetic_there(model) -> None:
    plain, vector = after(model, R), torch.linspace(-1, 1, 32)
    assert torch.equal(after(model, R, interp.replace(R, 0.5)), torch.full_like(plain, 0.5))
    assert torch.equal(after(model, R, interp.add(R, vector, scale=3.0)), plain + 3 * vector)
    assert torch.equal(after(model, R, interp.scale(R, 0.25)), plain * 0.25)


def test_edits_are_confined_to_heads_positions_neurons_and_rows(model) -> None:
    plain = after(model, Z)
    got = after(model, Z, interp.replace(Z, 7.0, head=[1, 3], position=[2, -1], neuron=4, row=1))
    expected = plain.clone()
    for head in (1, 3):
        for position in (2, 6):
            expected[1, position, head, 4] = 7.0
    assert torch.equal(got, expected)
    assert torch.equal(after(model, Z, interp.ablate(f"{Z}[2]")), after(model, Z, interp.ablate(Z, head=2)))


def test_last_means_each_rows_last_real_token(model) -> None:
    tokens = interp.Tokens.of([[3, 4, 5, 6], [7, 8]])
    got, plain = (
        after(model, R, interp.ablate(R, position="last"), tokens=tokens),
        after(model, R, tokens=tokens),
    )
    assert not got[0, 3].any()
    assert not got[1, 1].any()
    assert torch.equal(got[1, 0], plain[1, 0])
    assert torch.equal(got[0, :3], plain[0, :3])


def test_edits_compose_in_the_order_given(model) -> None:
    plain = after(model, R)
    assert torch.equal(after(model, R, interp.add(R, 1.0), interp.scale(R, 2.0)), (plain + 1) * 2)
    assert torch.equal(after(model, R, interp.scale(R, 2.0), interp.add(R, 1.0)), plain * 2 + 1)


def test_mean_ablation_is_the_mean_over_real_tokens(model) -> None:
    tokens = interp.Tokens.of([[3, 4, 5, 6], [7, 8], [9, 10, 11]])
    reference = model.capture(tokens, Z)
    rows = reference.rows(Z)
    assert rows.shape[0] == 9
    over_all = after(model, Z, interp.ablate(Z, how="mean", reference=reference))
    torch.testing.assert_close(over_all, rows.mean(0).expand_as(over_all), atol=1e-6, rtol=1e-5)
    by_position = after(
        model, Z, interp.ablate(Z, how="mean", over="position", reference=reference), tokens=tokens
    )
    third = torch.stack([reference[Z][0, 2], reference[Z][2, 2]]).mean(0)  # the second row has no third token
    torch.testing.assert_close(by_position[0, 2], third, atol=1e-6, rtol=1e-5)
    padded_mean = reference[Z].flatten(0, 1).mean(0)
    assert (over_all[0, 0] - padded_mean).abs().max() > 1e-3  # padding would have shown


def test_padding_full_of_nan_does_not_reach_a_mean(model) -> None:
    tokens = interp.Tokens.of([[3, 4, 5], [7, 8]])
    held = model.capture(tokens, R)
    value = held[R].clone()
    value[1, 2] = torch.nan
    poisoned = interp.Activations(tensors={interp.Site.parse(R): value}, mask=held.mask)
    assert torch.isfinite(after(model, R, interp.ablate(R, how="mean", reference=poisoned))).all()


def test_resampling_takes_whole_rows_of_other_examples(model) -> None:
    tokens = ids(6, 5)
    plain = after(model, R, tokens=tokens)
    got = after(model, R, interp.ablate(R, how="resample", seed=4), tokens=tokens)
    for row in range(6):
        same = [other for other in range(6) if torch.equal(got[row], plain[other])]
        assert len(same) == 1
        assert same[0] != row
    reference = model.capture(ids(9, 5, seed=8), R)
    whole = model.logits(tokens, edits=[interp.ablate(R, how="resample", reference=reference, seed=2)])
    split = model.logits(
        tokens, edits=[interp.ablate(R, how="resample", reference=reference, seed=2)], batch_size=4
    )
    torch.testing.assert_close(whole, split, atol=1e-5, rtol=1e-5)


def test_patching_in_batches_takes_the_right_rows(model) -> None:
    clean, other = ids(5, 6, seed=1), ids(5, 6, seed=2)
    source = model.capture(other, R)
    whole = model.logits(clean, edits=[interp.patch(R, source, position=3)])
    split = model.logits(clean, edits=[interp.patch(R, source, position=3)], batch_size=2)
    torch.testing.assert_close(whole, split, atol=1e-5, rtol=1e-5)


def test_patching_one_position_touches_only_later_ones(model) -> None:
    source = model.capture(ids(seed=3), R)
    change = model.logits(ids(), edits=[interp.patch(R, source, position=4)]) - model.logits(ids())
    assert not change[:, :4].any()
    assert change[:, 4:].abs().amax(-1).gt(0).all()


def test_projection_removes_or_keeps_the_span(model) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 32, generator=generator)
    plain = after(model, R)
    out, kept = (
        after(model, R, interp.project(R, directions)),
        after(model, R, interp.project(R, directions, keep=True)),
    )
    assert (out @ directions.T).abs().max() < 1e-3
    torch.testing.assert_close(out + kept, plain, atol=1e-5, rtol=1e-5)
    twice = after(model, R, interp.project(R, directions), interp.project(R, directions))
    torch.testing.assert_close(twice, out, atol=1e-5, rtol=1e-5)
    assert torch.linalg.matrix_rank(kept.flatten(0, 1), rtol=1e-5) == 3


def test_editing_a_head_equals_editing_its_result(model) -> None:
    by_z = model.logits(ids(), edits=[interp.ablate(Z, head=2)])
    by_result = model.logits(ids(), edits=[interp.ablate("blocks.1.attn.hook_result", head=2)])
    torch.testing.assert_close(by_z, by_result, atol=1e-5, rtol=1e-5)
    assert (by_z - model.logits(ids())).abs().max() > 1e-4


def test_editing_the_middle_of_a_block_moves_both_of_its_branches(model) -> None:
    """resid_mid is read by the MLP and carried on by the stream: an oracle recomputes both."""
    mid, layer = "blocks.1.hook_resid_mid", model.submodule("transformer.h.1")
    new = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    got = after(model, R, interp.replace(mid, new))
    with torch.no_grad():
        torch.testing.assert_close(got, new + layer.mlp(layer.ln_2(new)), atol=1e-5, rtol=1e-5)


def test_an_edited_pattern_is_what_attention_uses(model) -> None:
    pattern, n = "blocks.1.attn.hook_pattern", 7
    uniform = torch.ones(n, n).tril()
    uniform = uniform / uniform.sum(-1, keepdim=True)
    held = model.capture(ids(), [Z, "blocks.1.attn.hook_v"], edits=[interp.replace(pattern, uniform)])
    expected = torch.einsum("qk,bkhd->bqhd", uniform, held["blocks.1.attn.hook_v"])
    torch.testing.assert_close(held[Z], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: interp.edit(R, lambda t: t[..., :3]),
            r"edit at blocks.1.hook_resid_post returned \[2, 7, 3\]; the site holds \[2, 7, 32\]",
        ),
        (lambda: interp.edit(R, lambda t: None), "returned NoneType"),
        (
            lambda: interp.replace(R, torch.zeros(5)),
            r"replace at .* was given \[5\]; the site holds \[2, 7, 32\]",
        ),
        (lambda: interp.ablate(R, head=1), "has no heads"),
        (lambda: interp.ablate(Z, head=4), "it has 4, 0-3"),
        (lambda: interp.ablate(R, position=7), "the prompt has 7 positions, 0-6"),
        (lambda: interp.ablate(R, neuron=32), "it has 32, 0-31"),
        (lambda: interp.ablate(R, position="first"), "or 'last'"),
        (lambda: interp.ablate(R, how="mean"), "needs reference="),
        (lambda: interp.patch(R, torch.zeros(3, 7, 32)), "its source has 3 rows, this run 2"),
        (lambda: interp.patch(R, torch.zeros(2, 5, 32)), "5 positions, this run 7"),
        (lambda: interp.patch(R, {}), "holds no such site"),
        (lambda: interp.project(R, torch.ones(2, 32)), "not linearly independent"),
        (lambda: interp.project(R, torch.zeros(32)), "not linearly independent"),
        (lambda: interp.project(R, torch.ones(8)), "directions have 8 entries; .* has 32"),
        (lambda: interp.ablate("blocks.1.hook_resid_pots"), "did you mean 'blocks.1.hook_resid_post'"),
    ],
)
def test_bad_edits_are_errors_that_name_the_thing(model, make, message: str) -> None:
    before = model.logits(ids())
    with pytest.raises(interp.InterpError, match=message):
        model.logits(ids(), edits=[make()])
    assert torch.equal(model.logits(ids()), before)  # nothing was left behind
