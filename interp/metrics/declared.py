"""Declared: what each metric does not see, and the Result that every metric returns.

A claim such as "invariant to rotation" stands in one table, which the property tests read: what is declared is
tested, both ways. Read next: any metric.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.errors import InputError, nearest
from interp.results import Result

__all__ = [
    "ENOUGH",
    "INVARIANCES",
    "NOT_ASKED",
    "NO_PARTS",
    "caveat_of",
    "invariances",
    "known_compat",
    "outcome",
]

logger = logging.getLogger("interp")

ENOUGH = 10.0
"""Samples per dimension below which a value carries a caveat; isotropic data of n = 10 d still read 3-5% low."""

NO_PARTS = "the moments have a single part: accumulate with parts="
"""Why there is no standard error from a Moments without parts to leave out."""
NOT_ASKED = "none was asked for, or the samples are too few to leave any out"
"""Why there is no standard error where a metric has one to give."""

INVARIANCES: Mapping[str, frozenset[str]] = {
    name: frozenset(what.split())
    for name, what in {
        # two representations
        "cka": "orthogonal scale shift permutation",
        "cka_rbf": "orthogonal scale shift permutation",
        "cca": "orthogonal scale shift permutation linear",
        "svcca": "orthogonal scale shift permutation",
        "pwcca": "scale shift permutation",
        "procrustes": "orthogonal scale shift permutation",
        "angular_distance": "orthogonal scale shift permutation",
        "rsa": "orthogonal scale shift permutation",
        "mutual_knn": "orthogonal scale permutation",
        "cknna": "orthogonal scale permutation",
        "linear_predictivity": "orthogonal scale shift permutation linear",
        "match_neurons": "scale shift permutation",
        "sparse_prediction": "scale shift permutation",
        "co_clusters": "scale shift permutation",
        "zero_shot_stitch": "orthogonal scale shift permutation",
        "infonce": "scale shift",
        "dime": "orthogonal scale shift permutation",
        # one representation
        "rankme": "orthogonal scale permutation",
        "effective_rank": "orthogonal scale shift permutation",
        "participation_ratio": "orthogonal scale shift permutation",
        "stable_rank": "orthogonal scale shift permutation",
        "nesum": "orthogonal scale shift permutation",
        "alpha_req": "orthogonal scale shift permutation",
        "von_neumann_entropy": "orthogonal scale permutation",
        "renyi_entropy": "orthogonal scale permutation",
        "mean_cosine": "orthogonal scale permutation",
        "curvature": "orthogonal scale shift permutation",
        "two_nn": "orthogonal scale shift permutation",
        "mle_dimension": "orthogonal scale shift permutation",
        "class_distance_variance": "orthogonal scale shift permutation",
        "neural_collapse": "orthogonal scale shift permutation",
        "scatter_ratio": "orthogonal scale shift permutation",
        "dataset_entropy": "orthogonal scale permutation",
        "prompt_entropy": "orthogonal scale permutation",
        "lidar": "orthogonal shift permutation",
        "self_similarity": "orthogonal scale permutation",
        "max_explainable_variance": "orthogonal scale permutation",
        "intra_sentence_similarity": "orthogonal scale permutation",
        "token_homogeneity": "orthogonal scale permutation",
        "feature_variance_share": "orthogonal scale shift permutation",
        "find_circle": "orthogonal scale shift permutation",
        "fourier_concentration": "orthogonal scale shift permutation",
        "parallelogram_rqi": "orthogonal scale shift permutation",
        "separability": "scale shift permutation",
        "mixture_index": "scale shift",
        "linear_order": "orthogonal scale shift permutation",
        "cyclic_order": "orthogonal scale shift permutation",
    }.items()
}
"""Metric -> the transformations of a representation's columns that leave its value as it is.

orthogonal: x Q; scale: a x; shift: x + c; permutation: columns reordered; linear: x A for any invertible A.
Of two representations the first is transformed. LiDAR sees the scale by its delta; separability and the mixture index
see rotations by the directions that they try. A permutation is an orthogonal map; it is listed by itself because neuron
matching and PWCCA (whose weights add absolute values over neurons) see rotations.
"""


def invariances(metric: str) -> frozenset[str]:
    """What the metric of that name is declared not to see.

    Raises
    ------
    InputError
        There is no such metric; the nearest are named.
    """
    if metric not in INVARIANCES:
        raise InputError(f"no declared metric {metric!r}{nearest(metric, INVARIANCES)}")
    return INVARIANCES[metric]


def known_compat(compat: str | None, *known: str) -> None:
    """Raise InputError for a ``compat=`` that a function does not have."""
    if compat is not None and compat not in known:
        raise InputError(
            f"compat={compat!r}{nearest(compat, known)}; it is None or one of {', '.join(known)}"
        )


def caveat_of(n: int, d: int, bias: str = "the sample lacks directions, so the value reads low") -> str:
    """What to keep in mind at this n / d; empty from :data:`ENOUGH` samples a dimension on."""
    return "" if n >= ENOUGH * d else f"n = {n} is below {ENOUGH:g} d = {ENOUGH * d:g}: {bias}"


def outcome(
    name: str,
    value: float | np.ndarray,
    *,
    n: int,
    d: int | tuple[int, ...],
    convention: str,
    stderr: float | np.ndarray | None = None,
    bias: str = "",
    no_stderr: str = NOT_ASKED,
    no_chance: str = "",
    provenance: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Result:
    """A Result with n, d and n / d beside the value; ``bias`` says what few samples do to it (logged below n = d).

    ``no_stderr`` and ``no_chance`` say why there is none, and are kept where there is none.
    """
    widths = (d,) if isinstance(d, int) else tuple(d)
    ratio = n / max(widths)
    caveat = caveat_of(n, max(widths), bias) if bias else ""
    if bias and n < max(widths):
        logger.warning("%s: %s", name, caveat)
    if stderr is not None and np.ndim(stderr) == 0 and not np.isfinite(stderr):
        stderr = None
    interval = fields.pop("interval", None)
    if interval is None and stderr is not None:
        reach = 1.96 * np.asarray(stderr, dtype=float)
        interval = np.stack([np.asarray(value) - reach, np.asarray(value) + reach], -1)
    why = {"no_stderr": no_stderr} if stderr is None else {}
    if fields.get("chance") is None and no_chance:
        why["no_chance"] = no_chance
    record = {"d": widths[0] if len(widths) == 1 else list(widths), "n_over_d": ratio, "caveat": caveat}
    return Result(
        name=name,
        value=value,
        n=n,
        stderr=stderr,
        interval=interval,
        convention=f"{convention}; n/d = {ratio:.3g}",
        provenance=record | why | dict(provenance or {}),
        **fields,
    )
