"""The sweep: a planted label is found where it is, a random one nowhere, and every control says what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp.errors import InputError
from interp.intervals import wilson_interval
from interp.results import Result
from interp.toys import Shape, Transformer
from probes import control_labels, sweep
from probes.controls import group_interval, split_by_group
from probes.sweep_result import SweepResult


def planted(
    n_groups: int = 60, each: int = 12
) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray, np.ndarray]:
    """Rows where the label is written at one site only; its groups carry a mark that a split by token would leak."""
    rng = np.random.default_rng(0)
    n = n_groups * each
    groups, types, labels = (
        np.repeat(np.arange(n_groups), each),
        rng.integers(0, 30, n),
        rng.integers(0, 3, n),
    )
    noise = rng.normal(size=(n, 12))
    written = noise.copy()
    written[np.arange(n), labels] += 6
    tokens = rng.normal(size=(30, 12))[types] * 3 + 0.1 * noise
    sites = {"noise": noise, "written": written, "tokens": tokens}
    return {name: torch.tensor(x) for name, x in sites.items()}, labels, groups, types


def test_a_planted_label_is_found_at_its_site_and_nowhere_else() -> None:
    acts, labels, groups, types = planted()
    result = sweep(acts, labels, ["*"], groups=groups, types=types)
    value = dict(zip(result.ticks[0], result.value, strict=True))
    low = dict(zip(result.ticks[0], result.interval[:, 0], strict=True))
    assert value["written"] > 0.97
    assert low["written"] > result.chance
    assert abs(value["noise"] - 1 / 3) < 0.08  # 648 tested rows: a standard error of 0.02, doubled by refits
    assert np.abs(np.asarray(result.shuffled) - 1 / 3).max() < 0.08
    assert result.chance == pytest.approx(1 / 3, abs=0.06)
    assert result.converged == 1.0


def test_a_random_label_is_found_at_no_site() -> None:
    acts, _, groups, types = planted()
    labels = np.random.default_rng(5).integers(0, 3, len(groups))
    result = sweep(acts, labels, ["*"], groups=groups, types=types)
    assert (np.asarray(result.value) < result.chance + 0.1).all()


def test_the_control_task_is_solved_where_word_types_are_written_and_gives_negative_selectivity() -> None:
    acts, labels, groups, types = planted()
    result = sweep(acts, labels, ["tokens", "written"], groups=groups, types=types)
    control = dict(zip(result.ticks[0], result.control, strict=True))
    selective = dict(zip(result.ticks[0], result.selectivity, strict=True))
    assert control["tokens"] > 0.8
    assert selective["tokens"] < -0.4
    assert (
        selective["written"] > 0.2
    )  # random labels of 30 types are unequally common, so guessing them beats a third


def test_without_word_types_there_is_no_control_and_the_result_says_why() -> None:
    acts, labels, groups, _ = planted()
    result = sweep(acts, labels, "written", groups=groups, seeds=[0])
    assert result.control is None
    assert result.selectivity is None
    assert "word types" in str(result.reason)


def test_a_label_that_is_only_its_group_cannot_be_read_from_other_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 20)
    labels = rng.integers(0, 2, 40)[groups]
    rows = torch.tensor(rng.normal(size=(40, 64))[groups] + 0.01 * rng.normal(size=(800, 64)))
    by_group = sweep({"a": rows}, labels, "a", groups=groups)
    by_row = sweep({"a": rows}, labels, "a", groups="row")
    assert by_row.value[0] > 0.95  # the leak
    assert by_group.value[0] < 0.75


def test_a_sweep_is_saved_drawn_and_told(tmp_path: Path) -> None:
    acts, labels, groups, types = planted(20)
    result = sweep(acts, labels, ["noise", "written"], groups=groups, types=types, seeds=[0])
    loaded = Result.load(result.save(tmp_path / "sweep"))
    assert isinstance(loaded, SweepResult)
    np.testing.assert_array_equal(loaded.accuracy, result.accuracy)
    assert list(result.to_frame().columns) == ["site", "value", "stderr", "chance", "low", "high", "n"]
    assert len(result.plot().data) >= 3
    assert repr(result).startswith("probe accuracy: 2 site")


def test_a_model_and_its_store_give_the_same_figures(tmp_path: Path) -> None:
    module = Transformer(
        Shape(d_vocab=9, n_ctx=8, n_layers=2, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    model = interp.load(module)
    ids = torch.randint(9, (40, 8), generator=torch.Generator().manual_seed(1))
    labels = (ids > 4).long()
    labels[:, 0] = -100
    tokens = interp.Tokens.full(ids)
    site = "blocks.0.hook_resid_pre"
    live = sweep(model, labels, site, tokens=tokens, seeds=[0])
    store = interp.harvest(model, tokens, [site], tmp_path / "acts")
    stored = sweep(store, labels[store.doc.long(), store.pos.long()], site, seeds=[0])
    assert live.n == stored.n == 280
    assert live.value[0] > live.chance + 0.1  # the current token is in the stream
    np.testing.assert_allclose(
        live.value, stored.value, atol=0.02
    )  # two passes agree to rounding, a borderline row may flip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": None}, "groups is missing"),
        ({"groups": np.zeros(240, dtype=int)}, "belong to one group"),
        ({"labels": np.zeros(240, dtype=int)}, r"all of class \[0\], the first of them sample 0 \(group 0\)"),
        (
            {"labels": np.where(np.arange(240) % 60 == 7, np.arange(240), -1)},
            r"4 labelled samples of 4 classes; .* \(class 7 has one only, sample 7 \(group 0\)\)",
        ),
        ({"labels": np.zeros(3, dtype=int)}, "labels has 3 entries for 240 samples"),
        ({"labels": np.zeros(240)}, "whole numbers"),
        ({"sites": ["elsewhere"]}, "none of .'elsewhere'. is among the given sites"),
        ({"seeds": []}, "seeds is empty"),
    ],
)
def test_unusable_input_is_named(change: dict, message: str) -> None:
    acts, labels, groups, _ = planted(20)
    given = {"labels": labels, "sites": ["noise"], "groups": groups, "seeds": [0]} | change
    with pytest.raises(InputError, match=message):
        sweep(acts, given.pop("labels"), given.pop("sites"), **given)


def test_a_class_that_a_split_cannot_learn_is_named_with_its_first_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    acts, labels, groups, _ = planted(20)
    rare = np.where(np.isin(np.arange(240), (100, 101)), 9, labels)
    splits = {seed: split_by_group(groups, test_fraction=0.3, seed=seed) for seed in range(20)}
    seed = next(s for s, test in splits.items() if test[100])
    found = sweep(acts, rare, "written", groups=groups, seeds=[seed])
    expected = f"class 9 has no train rows in the split of seed {seed}: its 2 tested rows, the first of them sample 100"
    assert found.unseen[0].startswith(expected)
    assert expected in caplog.text
    other = next(s for s, test in splits.items() if not test[100])
    assert sweep(acts, rare, "written", groups=groups, seeds=[other]).unseen == ()


def test_labels_that_do_not_fit_the_tokens_are_named_with_their_text() -> None:
    model, site = interp.load("mini"), "hook_embed"
    tokens = interp.Tokens.of([[0, 21, 35, 44], [0, 60, 71], [0, 81, 22, 33], [0, 45]], pad=1)
    labels = [[0, 1, 0, 1], [1, 0, 1], [0, 1, 1, 0], [1, 0]]
    grid = torch.full(tokens.ids.shape, -100)
    for row, own in zip(grid, labels, strict=True):
        row[: len(own)] = torch.tensor(own)
    a, b = (sweep(model, given, site, tokens=tokens, seeds=[0]) for given in (labels, grid))
    np.testing.assert_array_equal(a.accuracy, b.accuracy)
    for wrong, message in (
        ([*labels[:2], [0, 1, 1], labels[3]], "text 2 has 3 labels for 4 tokens"),
        (labels[:3], "labels of 3 texts were given for 4 texts"),
        (torch.zeros(4, 5, dtype=torch.long), r"the labels are \[4, 5\], the tokens \[4, 4\]"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(model, wrong, site, tokens=tokens, seeds=[0])


def test_nan_rows_are_counted_and_named() -> None:
    acts, labels, groups, _ = planted(20)
    acts["noise"][17, 3] = float("nan")
    with pytest.raises(InputError, match="noise holds NaN or infinity in 1 rows, the first of them row 17"):
        sweep(acts, labels, "noise", groups=groups)


def test_a_model_without_tokens_is_refused() -> None:
    module = Transformer(Shape(d_vocab=9, n_ctx=8, d_model=8, n_heads=2, d_mlp=8))
    with pytest.raises(InputError, match="without tokens"):
        sweep(interp.load(module), np.zeros(3, dtype=int), "blocks.0.hook_resid_post")


@given(st.lists(st.integers(1, 8), min_size=2, max_size=12), st.floats(0.05, 0.95), st.integers(0, 1000))
def test_a_split_never_cuts_a_group_and_leaves_both_sides_something(
    sizes: list[int], fraction: float, seed: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    test = split_by_group(groups, test_fraction=fraction, seed=seed)
    assert 0 < test.sum() < len(groups)
    assert set(groups[test]).isdisjoint(groups[~test])


def test_control_labels_are_one_a_type_with_the_labels_frequencies() -> None:
    types = np.repeat(np.arange(4000), 2)
    labels = np.where(np.arange(8000) % 10 == 0, 1, 0)
    control = control_labels(labels, types, seed=0)
    assert all(len(set(control[types == t])) == 1 for t in range(0, 4000, 97))
    assert control.mean() == pytest.approx(0.1, abs=0.02)
    assert not np.array_equal(control, control_labels(labels, types, seed=1))


def test_an_interval_keeps_its_width_where_all_or_none_are_right() -> None:
    counts = np.full(10, 5.0)
    stderr, ends = group_interval(np.stack([counts, 0 * counts]), counts)
    # Wilson's interval of 10 of 10 (groups, not samples) has the closed form n / (n + z^2)
    low = 10 / (10 + 1.959964**2)
    np.testing.assert_allclose(ends, [[low, 1], [0, 1 - low]], atol=1e-6)
    assert (stderr > 0).all()


def test_wilsons_interval_is_the_published_one() -> None:
    # where |p - share| = z sqrt(p (1 - p) / n), which defines it
    for p in wilson_interval(7, 20):
        assert abs(p - 7 / 20) == pytest.approx(1.959964 * (p * (1 - p) / 20) ** 0.5, rel=1e-5)


def test_the_group_interval_of_independent_rows_is_the_binomial_one() -> None:
    rng = np.random.default_rng(1)  # not 0, which the bootstrap itself begins with
    counts = np.ones(400)
    correct = (rng.random((1, 400)) < 0.7).astype(float)
    stderr, ends = group_interval(correct, counts)
    share = correct.mean()
    assert stderr[0] == pytest.approx(
        (share * (1 - share) / 400) ** 0.5, rel=0.08
    )  # 1000 draws know it to 2%
    assert ends[0, 0] < correct.mean() < ends[0, 1]
