"""The sweep for numbers: what was planted is read, what was not is not; places mean nothing to a toy model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.toys import Shape, Transformer
from probes import sweep_numbers


def planted() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    numbers = {"north": rng.normal(size=600) * 30, "east": rng.uniform(-180, 180, 600)}
    rows = rng.normal(size=(600, 12)) + np.outer(numbers["north"], rng.normal(size=12)) / 15
    return {"written": rows, "noise": rng.normal(size=(600, 12))}, numbers, np.arange(600) // 6


def test_a_planted_number_is_read_at_its_site_and_no_other() -> None:
    acts, numbers, groups = planted()
    found = sweep_numbers(acts, numbers, "*", groups=groups)
    table = {(row.site, row.target): row for row in found.to_frame().itertuples()}
    assert table["written", "north"].low > 0.9
    for key in (("written", "east"), ("noise", "north"), ("noise", "east")):
        assert table[key].low < 0.02
        assert table[key].high < 0.06
    assert np.abs(found.shuffled).max() < 0.1
    assert found.n_groups == 100


def test_r2_is_one_minus_the_share_of_squares_left_over() -> None:
    from probes import RidgeRegressor
    from probes.controls import split_by_group

    acts, numbers, groups = planted()
    y = np.where(np.arange(600) % 7 == 0, np.nan, numbers["north"])
    found = sweep_numbers(acts, y, "written", groups=groups, seeds=[5])
    kept = np.flatnonzero(~np.isnan(y))
    x, t = acts["written"][kept].astype(np.float32), y[kept]
    test = split_by_group(groups[kept], test_fraction=0.3, seed=5)
    guess = RidgeRegressor().fit(x[~test], t[~test]).predict(x[test])
    left = ((guess - t[test]) ** 2).sum() / ((t[test] - t[~test].mean()) ** 2).sum()
    assert found.value[0, 0] == pytest.approx(1 - left)
    assert found.n == len(kept)


def test_a_model_is_swept_beside_itself_untrained() -> None:
    module = Transformer(
        Shape(d_vocab=9, n_ctx=8, n_layers=1, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    ids = torch.randint(9, (40, 8), generator=torch.Generator().manual_seed(1))
    numbers = torch.full(ids.shape, float("nan"))
    numbers[:, 1:] = ids[:, 1:] ** 2.0
    found = sweep_numbers(
        interp.load(module), numbers, "blocks.*.hook_resid_pre", tokens=interp.Tokens.full(ids), seeds=[0],
        extras=["random_init", "shuffled_tokens"],
    )  # fmt: skip
    assert found.n == 280
    assert found.value[0, 0] > 0.9
    assert {name: x.shape for name, x in found.baselines.items()} == {
        "random_init": (1, 1),
        "shuffled_tokens": (1, 1),
    }


def test_unusable_numbers_are_named() -> None:
    acts, numbers, groups = planted()
    for wrong, message in (
        (numbers["north"][:5], "labels has 5 entries for 600 samples"),
        (np.zeros(600), "number is the same for all 600 samples"),
        (np.where(np.arange(600) == 9, np.inf, 1.0 * np.arange(600)), "number is infinite for sample 9"),
        ({"a": numbers["north"], "b": numbers["north"][:4]}, r"differ in shape: {'a': \[600\], 'b': \[4\]}"),
    ):
        with pytest.raises(InputError, match=message):
            sweep_numbers(acts, wrong, "written", groups=groups)
    with pytest.raises(InputError, match="did you mean 'random_init'"):
        sweep_numbers(acts, numbers, "written", groups=groups, extras=["random_inti"])


def places(shared: Path, n: int) -> tuple[interp.Model, interp.Tokens, dict[str, torch.Tensor]]:
    """Names of real places, and where they are, at each name's last token."""
    with (shared / "tasks/world_places/world_place.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:n]
    model = interp.load(str(shared / "models/stories260k"))
    tokens = model.tokens([row["name"] for row in rows])
    numbers = {}
    for name in ("latitude", "longitude"):
        grid = torch.full(tokens.ids.shape, float("nan"), dtype=torch.float64)
        grid[torch.arange(len(rows)), tokens.last] = torch.tensor(
            [float(row[name]) for row in rows], dtype=torch.float64
        )
        numbers[name] = grid
    return model, tokens, numbers


@pytest.mark.slow
def test_a_model_of_small_stories_does_not_know_where_places_are(shared: Path) -> None:
    model, tokens, numbers = places(shared, 4000)
    found = sweep_numbers(
        model, numbers, ["hook_embed", "blocks.*.hook_resid_post"], tokens=tokens, extras=["random_init"]
    )
    assert found.n == 4000
    # what there is to read is spelling ("County", endings of a language): measured 0.11 to 0.19, untrained 0.12 to 0.15
    assert (found.value - found.baselines["random_init"]).max() < 0.1
    assert 0.05 < found.value.max() < 0.25
