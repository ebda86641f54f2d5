"""Concept vectors (Net2Vec): a concept as weights over the units that fire for it, and how many units it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.results import Result
from probes.controls import group_interval, split_by_group
from probes.erasing import matrix, targets

__all__ = ["ConceptVectors", "net2vec"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ConceptVectors(Result):
    """Held-out IoU of each concept's mask by number of units; ``chance`` is that of saying yes everywhere."""

    weights: np.ndarray
    """[concept, d] over the units' on/off states."""
    thresholds: np.ndarray
    """[d] above which a unit is on."""
    units: np.ndarray
    """[concept] the single unit with the highest IoU on train rows."""
    single: np.ndarray
    """[concept] its held-out IoU."""
    permuted: np.ndarray
    """[concept] held-out IoU, with all units, of vectors fitted to the concept on other rows (permuted)."""

    @property
    def cosines(self) -> np.ndarray:
        """[concept, concept] of the weights: which concepts are written alike, which against each other."""
        unit = self.weights / np.maximum(np.linalg.norm(self.weights, axis=1), 1e-300)[:, None]
        return unit @ unit.T


def net2vec(
    x: Any,
    concepts: Any,
    *,
    names: Sequence[str] | None = None,
    groups: Any = "row",
    quantile: float = 0.005,
    n_units: Sequence[int] = (1, 2, 4, 8, 16),
    bias: bool = False,
    C: float = 1.0,  # noqa: N803 - scikit-learn's name
    seed: int = 0,
    test_fraction: float = 0.3,
) -> ConceptVectors:
    """A weight vector a concept, over units that are on in their highest ``quantile`` of rows.

    The mask of a concept is where sigmoid(sum_k w_k [x_k > T_k]) > 1/2; its vector minimises the cross-entropy with the
    rows weighted so that the concept and its absence count alike. The last entry of the units' axis is all units.

    Parameters
    ----------
    x
        Activations [sample, d] (a sample is a place: a token, a pixel).
    concepts
        [sample] classes (each a concept), or 0/1 columns [sample, concept].
    groups
        [sample] texts or images, held out whole; ``"row"`` where rows are independent.
    quantile
        Share of the train rows on which a unit is on: 0.005 in the paper, of pixels; for tokens nearer to how frequent
        the concepts are.
    n_units
        The concept is fitted again with only as many of its heaviest units.
    bias
        Off as in the paper: where no unit is on, the concept is not there.
    C
        Inverse strength of the L2 penalty.

    References
    ----------
    Fong & Vedaldi 2018, Net2Vec, (2)-(4) and sections 4.1-4.3.
    """
    rows, columns = matrix(x), targets(concepts)
    if len(rows) != len(columns):
        raise InputError(f"{len(columns)} concept rows were given for {len(rows)} rows")
    if not np.isin(columns, (0, 1)).all():
        raise InputError("concepts are classes [sample] or columns of 0 and 1 [sample, concept]")
    if not 0 < quantile < 1:
        raise InputError(f"quantile = {quantile}; it is a share of the rows, between 0 and 1")
    belongs = np.arange(len(rows)) if isinstance(groups, str) else np.asarray(groups)
    test = split_by_group(belongs, test_fraction=test_fraction, seed=seed)
    _refuse_absent(columns, test)
    thresholds = np.quantile(rows[~test], 1 - quantile, axis=0)
    on = (rows > thresholds).astype(np.float64)
    sizes = [k for k in n_units if k < rows.shape[1]] + [rows.shape[1]]
    mixed = np.random.default_rng([seed, 11]).permutation(int((~test).sum()))
    best = np.array([int(_iou(on[~test], c[~test]).argmax()) for c in columns.T])
    value, ends = np.zeros((columns.shape[1], len(sizes))), np.zeros((columns.shape[1], len(sizes), 2))
    weights, permuted = np.zeros((columns.shape[1], rows.shape[1])), np.zeros(columns.shape[1])
    for i, concept in enumerate(columns.T):
        fit, truth = concept[~test], concept[test]
        weights[i], _ = _vector(on[~test], fit, bias, C)
        heaviest = np.argsort(-np.abs(weights[i]), kind="stable")
        for j, k in enumerate(sizes):
            mask = _mask(on, heaviest[:k], ~test, fit, bias, C)
            value[i, j] = _iou(mask[:, None], truth)[0]
            ends[i, j] = _interval(mask, truth, belongs[test])
        permuted[i] = _iou(_mask(on, heaviest, ~test, fit[mixed], bias, C)[:, None], truth)[0]
    labels = names or [str(i) for i in range(columns.shape[1])]
    return ConceptVectors(
        name="concept vectors", value=value, interval=ends, n=int(test.sum()), axes=("concept", "units"),
        ticks=(tuple(labels), tuple(str(k) for k in sizes)), chance=columns[test].mean(0)[:, None] + 0 * value,
        convention=f"IoU over held-out rows, units on in their top {quantile:g}; bootstrap over groups",
        weights=weights, thresholds=thresholds, units=best, permuted=permuted,
        single=np.array([_iou(on[test][:, [k]], c[test])[0] for k, c in zip(best, columns.T, strict=True)]),
        provenance={"seed": seed, "bias": bias},
    )  # fmt: skip


def _refuse_absent(columns: np.ndarray, test: np.ndarray) -> None:
    for part, name in ((~test, "train"), (test, "held-out")):
        flat = np.flatnonzero(columns[part].min(0) == columns[part].max(0))
        if len(flat):
            where = "everywhere" if columns[part][0, flat[0]] else "nowhere"
            raise InputError(
                f"concept {flat[0]} is {where} in the {name} rows; give more rows, or other groups"
            )


def _vector(on: np.ndarray, concept: np.ndarray, bias: bool, strength: float) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression

    share = concept.mean()  # (3): alpha = 1 - share on the concept, share elsewhere
    fitted = LogisticRegression(
        C=strength, fit_intercept=bias, class_weight={1.0: 1 - share, 0.0: share}, max_iter=500
    ).fit(on, concept)
    return fitted.coef_[0], float(np.ravel(fitted.intercept_)[0])


def _mask(
    on: np.ndarray, units: np.ndarray, train: np.ndarray, concept: np.ndarray, bias: bool, strength: float
) -> np.ndarray:
    """Where the concept is said to be among the rows that are not for training."""
    w, b = _vector(on[train][:, units], concept, bias, strength)
    return (on[~train][:, units] @ w + b > 0).astype(np.float64)


def _iou(masks: np.ndarray, concept: np.ndarray) -> np.ndarray:
    """[mask] intersection over union of 0/1 columns with the concept."""
    inside = concept @ masks
    return inside / np.maximum(masks.sum(0) + concept.sum() - inside, 1)


def _interval(mask: np.ndarray, concept: np.ndarray, groups: np.ndarray) -> np.ndarray:
    _, which = np.unique(groups, return_inverse=True)
    inside, either = np.bincount(which, mask * concept), np.bincount(which, np.maximum(mask, concept))
    return group_interval(inside[None], either)[1][0]
