"""Contrast-consistent search: a direction along which a statement and its negation get opposite answers, found without
labels; beside it the first principal component, which is most of what the search finds, and what labels would find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.intervals import wilson_interval
from interp.results import Result
from interp.sites import Site
from probes.controls import split_by_group
from probes.directing import ProbeDirection
from probes.erasing import matrix

__all__ = ["ContrastProbe", "ccs"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ContrastProbe(Result):
    """Held-out accuracy of the search; ``chance`` is the majority class.

    No label is used but one bit: which end of the direction means true, read off the train pairs, for the search, the
    principal component and the random directions alike.
    """

    pca: float
    """Accuracy of the first principal component of the differences (CRC)."""
    random: np.ndarray
    """[draw] accuracy of random directions."""
    supervised: float
    """Accuracy of a logistic probe of the differences that is told the labels."""
    loss: float
    """The lowest objective, on train pairs; 0.25 is what a probe that says 1/2 everywhere pays."""
    losses: np.ndarray
    """[restart]"""
    pca_interval: np.ndarray
    vector: np.ndarray
    """[d] towards "true", in input coordinates."""
    pca_vector: np.ndarray
    """[d] the same of the principal component."""
    origin: np.ndarray
    """[d] mean of all rows."""

    def direction(self, site: str | Site) -> ProbeDirection:
        """The found direction as a handle at ``site``."""
        vector, origin = (torch.as_tensor(a) for a in (self.vector, self.origin))
        return ProbeDirection(site=site, vector=vector, origin=origin, name="ccs")


def ccs(
    positive: Any,
    negative: Any,
    labels: Any,
    *,
    groups: Any = "row",
    n_restarts: int = 10,
    n_random: int = 50,
    seed: int = 0,
    test_fraction: float = 0.3,
) -> ContrastProbe:
    """The direction in which the two rows of a pair are consistent and sure: p(x+) = 1 - p(x-), and not both 1/2.

    Minimises the mean of (p(x+) + p(x-) - 1)^2 + min(p(x+), p(x-))^2 for p = sigmoid(w x + b).

    Parameters
    ----------
    positive, negative
        Rows [pair, d] of the statement and of its negation ("yes" and "no"). Each side loses its own mean and is
        divided by its own spread, else the search finds the word that was added.
    labels
        [pair] 1 where the positive one is true, 0 where the negative one is. They judge; only the sign is taken.
    groups
        [pair] what is held out together; ``"row"`` where pairs are independent.
    n_restarts
        Random starts of L-BFGS; the lowest loss is kept.

    Notes
    -----
    The objective is met by any feature that has opposite values in the halves of a pair, true or not: a high accuracy
    next to an equal one of the principal component says no more than that truth is the loudest such feature.

    References
    ----------
    Burns et al. 2023, Discovering latent knowledge in language models without supervision, (1)-(4) and CRC.
    """
    plus, minus, truth = matrix(positive), matrix(negative), np.asarray(labels)
    if plus.shape != minus.shape or len(plus) != len(truth):
        raise InputError(
            f"positive {list(plus.shape)}, negative {list(minus.shape)} and {len(truth)} labels do not form pairs"
        )
    if not np.isin(truth, (0, 1)).all() or len(np.unique(truth)) < 2:
        raise InputError(f"labels are 0 and 1, and both occur; got {np.unique(truth)[:5].tolist()}")
    every = np.arange(len(plus)) if isinstance(groups, str) else np.asarray(groups)
    test = split_by_group(every, test_fraction=test_fraction, seed=seed)
    if len(np.unique(truth[~test])) < 2:
        raise InputError(
            f"the train pairs hold label {truth[~test][0]} only; give more pairs, or other groups"
        )
    scale = float(np.concatenate([side[~test] - side[~test].mean(0) for side in (plus, minus)]).std()) or 1.0
    a, b = ((side - side[~test].mean(0)) / scale for side in (plus, minus))
    found = [_search(a[~test], b[~test], [seed, i]) for i in range(n_restarts)]
    losses = np.array([loss for loss, _ in found])
    weights = found[int(losses.argmin())][1]
    apart = a - b
    top = np.linalg.svd(apart[~test] - apart[~test].mean(0), full_matrices=False)[2][0]
    drawn = np.random.default_rng([seed, 7]).normal(size=(n_random, plus.shape[1]))

    def judged(vector: np.ndarray) -> tuple[np.ndarray, int]:
        """The vector turned towards true, and how many held-out pairs it gets right."""
        guess = apart @ vector > 0
        turned = vector if (guess[~test] == truth[~test]).mean() >= 0.5 else -vector
        return turned, int(((apart[test] @ turned > 0) == truth[test]).sum())

    n = int(test.sum())
    vector, right = judged(weights)
    pca_vector, pca_right = judged(top)
    commonest = int(truth[~test].mean() >= 0.5)
    return ContrastProbe(
        name="contrast-consistent search", value=right / n, interval=np.array(wilson_interval(right, n)), n=n,
        chance=float((truth[test] == commonest).mean()),
        convention=f"held-out accuracy of {n_restarts} restarts' best, sign from train labels; Wilson interval",
        pca=pca_right / n, pca_interval=np.array(wilson_interval(pca_right, n)),
        random=np.array([judged(one)[1] / n for one in drawn]),
        supervised=_supervised(apart, truth, test), loss=float(losses.min()), losses=losses,
        vector=vector / scale, pca_vector=pca_vector, origin=np.concatenate([plus, minus]).mean(0),
        provenance={"seed": seed, "n_train": int((~test).sum())},
    )  # fmt: skip


def _supervised(apart: np.ndarray, truth: np.ndarray, test: np.ndarray) -> float:
    from probes.linear import LogisticProbe

    return float(LogisticProbe().fit(apart[~test], truth[~test]).score(apart[test], truth[test]))


def _search(plus: np.ndarray, minus: np.ndarray, seed: list[int]) -> tuple[float, np.ndarray]:
    """The objective at a local minimum, and the weights there."""
    d = plus.shape[1]
    a, b = torch.as_tensor(plus), torch.as_tensor(minus)
    start = np.append(np.random.default_rng(seed).normal(size=d), 0.0)
    flat = torch.as_tensor(start / (np.linalg.norm(start) or 1.0)).requires_grad_()
    optimizer = torch.optim.LBFGS([flat], max_iter=200, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = objective(torch.sigmoid(a @ flat[:d] + flat[d]), torch.sigmoid(b @ flat[:d] + flat[d]))
        value.backward()
        return value

    optimizer.step(loss)
    return float(loss().detach()), flat.detach()[:d].numpy()


def objective(p_plus: Tensor, p_minus: Tensor) -> Tensor:
    """(p+ + p- - 1)^2 + min(p+, p-)^2, mean over pairs."""
    return ((p_plus + p_minus - 1).square() + torch.minimum(p_plus, p_minus).square()).mean()
