"""What a metric is declared not to see it does not see; what is not declared it sees on some data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import interp.metrics as metrics
from interp.errors import InputError
from interp.metrics import INVARIANCES, invariances
from interp.results import Result

N, D = 48, 5
LABELS = torch.arange(N) % 3


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed))[0]


def mapped(x: Tensor, how: str, seed: int) -> Tensor:
    """One transformation of the columns of x."""
    d = x.shape[1]
    if how == "orthogonal":
        return x @ rotation(d, seed)
    if how == "scale":
        return x * 3.7
    if how == "shift":
        return x + 4 * gaussian(1, d, seed)
    if how == "permutation":
        return x[:, torch.randperm(d, generator=torch.Generator().manual_seed(seed))]
    assert how == "linear", how
    return x @ (gaussian(d, d, seed) + 3 * rotation(d, seed) * torch.linspace(0.3, 3, d))


PAIR = {
    "rsa": {"n_permutations": 0, "n_blocks": 0},
    "mutual_knn": {"k": 6},
    "cknna": {"k": 6, "n_blocks": 0, "n_permutations": 0},
    "sparse_prediction": {"n_predictors": (2,)},
    "co_clusters": {"n_clusters": 2, "n_blocks": 0},
    "dime": {"n_permutations": 2, "n_blocks": 0},
}
SINGLE: dict[str, dict[str, Any]] = {
    "alpha_req": {"first": 1},
    "mle_dimension": {"k": 8},
    "mixture_index": {"n_blocks": 0},
    "separability": {"n_blocks": 0, "n_angles": 20, "n_bins": 6},
    "parallelogram_rqi": {"delta": 0.6, "max_quads": 2000},
    "linear_order": {"n_permutations": 1},
    "cyclic_order": {"n_permutations": 1},
}
ALL = ("orthogonal", "scale", "shift", "permutation", "linear")
TWO_SIDED = {
    "cka", "cka_rbf", "cca", "svcca", "pwcca", "procrustes", "angular_distance", "rsa", "mutual_knn", "cknna",
    "linear_predictivity", "match_neurons", "sparse_prediction", "co_clusters", "dime",
}  # fmt: skip
LABELLED = {
    "class_distance_variance", "neural_collapse", "scatter_ratio", "self_similarity", "max_explainable_variance",
    "feature_variance_share",
}  # fmt: skip
SEQUENCES = {"dataset_entropy", "prompt_entropy", "intra_sentence_similarity"}


def measure(name: str, x: Tensor, y: Tensor) -> float:
    metric: Callable[..., Any] = getattr(metrics, name)
    if name in TWO_SIDED:
        value = metric(x, y, **PAIR.get(name, {})).value
    elif name in SEQUENCES:
        value = metric(x.unflatten(0, (6, -1))).value
    elif name == "token_homogeneity":
        value = metric({"x": x.unflatten(0, (6, -1))}).value
    elif name == "lidar":
        value = metric(x.unflatten(0, (-1, 3)), delta=0.3).value
    elif name == "infonce":
        value = metric(x, torch.tanh(data(11)[0]) + data(5)[0]).value
    elif name == "zero_shot_stitch":
        value = metric(x, y, LABELS, n_anchors=8).value[1]
    elif name in LABELLED:
        options = {"n_blocks": 1} if name in ("neural_collapse", "scatter_ratio") else {}
        value = metric(x, LABELS, **options).value
    else:
        value = metric(x, **SINGLE.get(name, {})).value
    return float(np.ravel(value)[0])


def data(seed: int) -> tuple[Tensor, Tensor]:
    x = gaussian(N, D, seed) * torch.linspace(0.5, 2, D) + gaussian(1, D, seed + 1)
    x = x + 2 * gaussian(3, D, seed + 2)[LABELS]
    return x, torch.tanh(x @ gaussian(D, 4, seed + 3)) + 0.3 * gaussian(N, 4, seed + 4)


def sides(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """What suits the metric: a plane, a few items in order, or all rows."""
    x, y = data(seed)
    if name == "separability":
        return x[:, :2], y
    if name in ("linear_order", "cyclic_order", "parallelogram_rqi"):
        return x[:12] + torch.arange(12.0)[:, None] * gaussian(1, D, seed + 9), y
    return x, y


def test_every_metric_of_representations_is_declared() -> None:
    # whole models, sets of sites and weights have no columns of their own
    apart = {
        "cka_matrix", "similarity_matrix", "layer_profile", "layer_similarity", "training_profile", "training_phases",
        "last_token_gap", "loss_barrier",
    }  # fmt: skip
    measures = {
        name for name in metrics.__all__
        if inspect.isfunction(held := getattr(metrics, name))
        and inspect.signature(held, eval_str=True).return_annotation in (Result, dict[str, Result])
    }  # fmt: skip
    assert measures - apart == set(INVARIANCES)


@pytest.mark.parametrize("name", sorted(INVARIANCES))
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_declared_transformations_leave_the_value_as_it_is(name: str, seed: int) -> None:
    x, y = sides(name, seed)
    before = measure(name, x, y)
    for how in invariances(name):
        after = measure(name, mapped(x, how, seed + 7), y)
        # float64 algebra in other coordinates; NC1 inverts a small matrix
        assert after == pytest.approx(before, rel=1e-6, abs=1e-7), (name, how)


@pytest.mark.parametrize("name", sorted(INVARIANCES))
def test_transformations_that_are_not_declared_are_seen(name: str) -> None:
    x, y = sides(name, 3)
    before = measure(name, x, y)
    for how in set(ALL) - invariances(name):
        changes = [abs(measure(name, mapped(x, how, s), y) - before) for s in range(5)]
        if name == "neural_collapse" and how == "linear":
            continue  # NC1 itself is blind to linear maps; the row's other measures are not
        assert max(changes) > 1e-4, (name, how)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'procrustes'"):
        invariances("procrust")
