"""What a metric is declared not to see it does not see; what is not declared it sees on some data."""

from __future__ import annotations

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

N, D = 48, 5
LABELS = torch.arange(N) % 3


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed))[0]


def mapped(x: Tensor, how: str, seed: int) -> Tensor:
    """One transformation of the columns of x."""
    if how == "orthogonal":
        return x @ rotation(D, seed)
    if how == "scale":
        return x * 3.7
    if how == "shift":
        return x + 4 * gaussian(1, D, seed)
    if how == "permutation":
        return x[:, torch.randperm(D, generator=torch.Generator().manual_seed(seed))]
    assert how == "linear", how
    return x @ (gaussian(D, D, seed) + 3 * rotation(D, seed) * torch.linspace(0.3, 3, D))


PAIR = {
    "rsa": {"n_permutations": 0, "n_blocks": 0},
    "mutual_knn": {"k": 6},
    "cknna": {"k": 6},
}
SINGLE: dict[str, dict[str, Any]] = {"alpha_req": {"first": 1}, "mle_dimension": {"k": 8}}
ALL = ("orthogonal", "scale", "shift", "permutation", "linear")
TWO_SIDED = {
    "cka", "cka_rbf", "cca", "svcca", "pwcca", "procrustes", "angular_distance", "rsa", "mutual_knn", "cknna",
    "linear_predictivity", "match_neurons",
}  # fmt: skip
LABELLED = {"class_distance_variance", "neural_collapse", "scatter_ratio"}


def measure(name: str, x: Tensor, y: Tensor) -> float:
    metric: Callable[..., Any] = getattr(metrics, name)
    if name in TWO_SIDED:
        value = metric(x, y, **PAIR.get(name, {})).value
    elif name in LABELLED:
        value = metric(x, LABELS).value
    else:
        value = metric(x, **SINGLE.get(name, {})).value
    return float(np.ravel(value)[0])


def data(seed: int) -> tuple[Tensor, Tensor]:
    x = gaussian(N, D, seed) * torch.linspace(0.5, 2, D) + gaussian(1, D, seed + 1)
    x = x + 2 * gaussian(3, D, seed + 2)[LABELS]
    return x, torch.tanh(x @ gaussian(D, 4, seed + 3)) + 0.3 * gaussian(N, 4, seed + 4)


@pytest.mark.parametrize("name", sorted(INVARIANCES))
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_declared_transformations_leave_the_value_as_it_is(name: str, seed: int) -> None:
    x, y = data(seed)
    before = measure(name, x, y)
    for how in invariances(name):
        after = measure(name, mapped(x, how, seed + 7), y)
        # float64 algebra in other coordinates; NC1 inverts a small matrix
        assert after == pytest.approx(before, rel=1e-6, abs=1e-7), (name, how)


@pytest.mark.parametrize("name", sorted(INVARIANCES))
def test_transformations_that_are_not_declared_are_seen(name: str) -> None:
    x, y = data(3)
    before = measure(name, x, y)
    for how in set(ALL) - invariances(name):
        changes = [abs(measure(name, mapped(x, how, s), y) - before) for s in range(5)]
        if name == "neural_collapse" and how == "linear":
            continue  # NC1 itself is blind to linear maps; the row's other measures are not
        assert max(changes) > 1e-4, (name, how)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'procrustes'"):
        invariances("procrust")
