"""Profiles over training: phases named where they were planted, classes that collapse, checkpoints that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.metrics import (
    class_distance_variance,
    layer_profile,
    neural_collapse,
    scatter_ratio,
    training_phases,
    training_profile,
)
from interp.results import Result
from interp.tokens import Tokens
from tests.models import ids, loaded

SMALL = Path(__file__).parents[1] / "data" / "mini_small"


def planted(rank: list[float], decay: list[float], error: float = 0.01) -> dict[str, Result]:
    """Curves at two sites, the first of them flat."""
    made = {}
    for name, curve in (("RankMe", rank), ("alpha-ReQ", decay)):
        value = np.stack([np.ones(len(curve)), curve], 1)
        made[name] = Result(
            name=name, value=value, stderr=np.full_like(value, error), n=100, convention="", axes=("step", "site"),
            ticks=(tuple(map(str, range(len(curve)))), ("flat", "last")), provenance={"d": 8},
        )  # fmt: skip
    return made


def test_planted_phases_are_named_and_noise_is_level() -> None:
    profile = planted([10, 20, 8, 8.1, 9, 9], [2, 1, 2, 2, 3, 3.3], error=0.1)
    phases = training_phases(profile)
    assert phases.provenance["phase"] == ["expansion", "compression", "level", "mixed", "compression"]
    assert np.asarray(phases.value)[0] == pytest.approx([np.log(2), -np.log(2)])
    assert phases.ticks[0][0] == "0 to 1"
    # the error of a log is the relative error, of both ends
    assert np.asarray(phases.stderr)[0, 0] == pytest.approx(np.hypot(0.1 / 10, 0.1 / 20))
    assert set(training_phases(profile, "flat").provenance["phase"]) == {"level"}
    assert phases.plot().data


def test_phases_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(InputError, match="lacks 'alpha-ReQ'"):
        training_phases({"RankMe": planted([1, 2], [1, 2])["RankMe"]})
    with pytest.raises(InputError, match="no site 'lasst' in this profile; did you mean 'last'"):
        training_phases(planted([1, 2], [1, 2]), "lasst")
    with pytest.raises(InputError, match="two checkpoints"):
        training_phases(planted([1], [1]))


def test_a_profile_with_labels_holds_the_collapse_of_the_rows() -> None:
    model, tokens = loaded("gpt2", "transformers"), Tokens.full(ids(40, 8))
    labels = tokens.ids % 3
    labels[:, 0] = -1  # the first token has no class
    site = "blocks.1.hook_resid_post"
    found = layer_profile(
        model, tokens, site, quantities=["NC1 ratio", "CDNV"], labels=labels, products="float64"
    )
    acts = model.capture(tokens, site)[site]
    rows, marks = acts[labels >= 0], labels[labels >= 0]
    ratio = np.asarray(neural_collapse(rows, marks).value)[1]
    assert np.asarray(found["NC1 ratio"].value)[0] == pytest.approx(ratio, rel=1e-6)
    assert scatter_ratio(rows, marks).value == pytest.approx(ratio, rel=1e-9)
    direct = class_distance_variance(rows, marks).value
    assert np.asarray(found["CDNV"].value)[0] == pytest.approx(direct, rel=1e-6)
    assert found["NC1 ratio"].n == int((labels >= 0).sum())
    assert np.asarray(found["NC1 ratio"].stderr)[0] > 0


def test_labels_dealt_at_random_give_the_chance_level() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 20, generator=generator, dtype=torch.float64)
    result = scatter_ratio(x, torch.randint(5, (600,), generator=generator))
    # tr Sb has (C - 1) d = 80 degrees of freedom: 16% of relative error
    assert result.value == pytest.approx(result.chance, rel=0.4)
    assert (
        scatter_ratio(x + 20 * torch.eye(5, 20).double()[torch.arange(600) % 5], torch.arange(600) % 5).value
        < 0.1
    )


def test_small_classes_do_not_count_in_the_distance_variance() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(60) % 3
    labels[0] = 7  # a class of one row has no variance
    result = class_distance_variance(x, labels)
    assert result.value == pytest.approx(class_distance_variance(x[1:], labels[1:]).value, rel=1e-9)
    assert (result.n, result.provenance["left_out"]) == (59, 1)
    with pytest.raises(InputError, match="1 classes have 30 rows"):
        class_distance_variance(x[:40], torch.tensor([0] * 35 + [1] * 5), least=30)


def test_what_a_profile_cannot_hold_is_said() -> None:
    model, tokens = loaded("gpt2", "transformers"), Tokens.full(ids(4, 6))
    with pytest.raises(InputError, match="NC1 ratio, CDNV with labels"):
        layer_profile(model, tokens, quantities=["CDNV"])
    with pytest.raises(InputError, match="one entry a token"):
        layer_profile(model, tokens, labels=torch.zeros(4, 5).long())
    with pytest.raises(InputError, match="labels belong to the tokens in their order"):
        layer_profile(model, tokens, labels=tokens.ids, baseline="shuffled_tokens")


def test_checkpoints_that_ship_are_profiled_from_their_folders() -> None:
    tokens = interp.toys.embedded("mini").sample(32 * 64).tokens
    following = torch.full_like(tokens.ids, -1)
    following[:, :-1] = tokens.ids[:, 1:]
    steps = interp.toys.mini_checkpoints(folder=SMALL)
    asked = ["RankMe", "alpha-ReQ", "token homogeneity", "NC1 ratio"]
    profile = training_profile(steps, tokens, quantities=asked, labels=following, baseline="random_init")
    ratio = np.asarray(profile["NC1 ratio"].value)
    assert profile["RankMe"].ticks[0] == ("120", "600")
    # trained, the last layer draws together what the same token follows; untrained it does not
    assert (ratio[:, -1] < 0.75 * np.asarray(profile["NC1 ratio"].chance)[:, -1]).all()
    assert training_phases(profile).provenance["phase"] == ["expansion"]


def test_answers_collapse_while_a_group_network_groks() -> None:
    group = interp.toys.Group("C7")
    recipe = interp.toys.recipe_for("C7", d_model=32, d_mlp=64, n_heads=2, epochs=300, check_every=100)
    run = interp.toys.train(group, seed=0, recipe=recipe, keep_every=100)
    from interp.toys.train_group import pairs

    inputs, answers = pairs(group)
    labels = torch.full_like(inputs, -1)
    labels[:, -1] = answers
    profile = training_profile(
        {c.epoch: run.at(c) for c in run.checkpoints}, inputs, positions="last", labels=labels,
        quantities=["NC1 ratio", "effective rank"],
    )  # fmt: skip
    ratio = np.asarray(profile["NC1 ratio"].value)[:, -1]
    chance = (len(answers) - 7) / 6
    assert ratio[0] > 0.5 * chance
    assert ratio[-1] < 0.2 * ratio[0]
    assert profile["effective rank"].n == 49
