"""What few latents know of a concept: k-sparse probes, and whether other latents swallow part of it (absorption).

A probe is a logistic regression with a little ridge, fitted on as many tokens with the concept as without, and tested
on other texts, again as many of each: chance is one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.metrics.rows import clustered
from interp.results import Result
from sae.codes import Codes
from sae.labels import IGNORE, half_of

__all__ = ["Absorption", "Probe", "SparseProbing", "absorption", "fit_probe", "sparse_probing"]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """x w + b > 0 says yes, in the coordinates of the rows it was fitted on."""

    weight: np.ndarray
    bias: float

    def score(self, x: np.ndarray) -> np.ndarray:
        """[sample]"""
        return x @ self.weight + self.bias

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """Share of rows told right."""
        return float(((self.score(x) > 0) == (y > 0)).mean())


def fit_probe(x: np.ndarray, y: np.ndarray, *, ridge: float = 1.0) -> Probe:
    """Logistic regression on standardised columns, weights brought back to the rows' own units."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y > 0)) < 2:
        raise InputError("a probe needs rows with and without the concept")
    x = np.asarray(x, dtype=np.float64)
    mean, spread = x.mean(0), x.std(0)
    spread[spread <= 1e-12 * max(float(np.abs(x).max()), 1e-300)] = 1.0
    fitted = LogisticRegression(C=1 / ridge, max_iter=2000).fit((x - mean) / spread, y > 0)
    weight = fitted.coef_[0] / spread
    return Probe(weight, float(fitted.intercept_[0] - mean @ weight))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Split:
    """Rows with (1) and without (0) the concept, as many of each, for fitting and for testing."""

    train: np.ndarray
    test: np.ndarray
    y: np.ndarray
    """[row] 1, 0 or IGNORE."""
    text: np.ndarray


def _split(codes: Codes, concept: Any, at_most: int, seed: int) -> _Split:
    y = codes.of_texts(concept).astype(int)
    if not np.isin(y, (0, 1, IGNORE)).all():
        raise InputError(f"a concept is 1, 0 or {IGNORE} a token; got {np.unique(y)[:6].tolist()}")
    half, rng = half_of(codes, seed), np.random.default_rng(seed)
    parts = []
    for side in (0, 1):
        both = [rng.permutation(np.flatnonzero((half == side) & (y == value))) for value in (0, 1)]
        n = min(len(both[0]), len(both[1]), at_most // 2)
        if n < 10:
            raise InputError(
                f"{min(map(len, both))} tokens {'with' if len(both[1]) < len(both[0]) else 'without'} the concept in "
                "one half of the texts are too few for a probe; at least 10 are needed"
            )
        parts.append(np.sort(np.concatenate([b[:n] for b in both])))
    text = codes.where[:, 0] if len(codes.where) else np.arange(codes.n)
    return _Split(train=parts[0], test=parts[1], y=y, text=text)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SparseProbing(Result):
    """``value`` [k]: held-out accuracy of a probe on the k most telling latents."""

    latents: np.ndarray
    """The latents in the order in which they enter."""
    coordinates: np.ndarray
    """[k] the same with the k most telling coordinates of the activation; empty without rows."""
    whole: float | None
    """Accuracy of a probe on the whole activation; None without rows."""


def sparse_probing(
    codes: Codes,
    concept: Any,
    *,
    rows: Tensor | None = None,
    k: Sequence[int] = (1, 2, 5, 10, 20),
    at_most: int = 8000,
    seed: int = 0,
) -> SparseProbing:
    """How well few latents tell a concept.

    Parameters
    ----------
    codes
        From :func:`sae.encode`.
    concept
        [text, pos] 1 where a token has it, 0 where not, :data:`sae.labels.IGNORE` where it does not count.
    rows
        [row, d] the activations themselves, for the comparison.
    k
        Numbers of latents: those with the largest |difference of mean codes| between the classes, on the fitting half.
    at_most
        Tokens used of each half.

    Returns
    -------
    SparseProbing
        Standard error clustered by text.

    Raises
    ------
    InputError
        Too few tokens of either kind, or rows that do not fit.

    References
    ----------
    Gurnee et al. 2023 (Finding neurons in a haystack); Karvonen et al. 2025 (SAEBench), section on sparse probing.
    """
    split = _split(codes, concept, at_most, seed)
    matrix = codes.matrix.tocsr()
    order, _ = _telling(matrix[split.train], split.y[split.train])
    most = [min(n, codes.d_sae) for n in k]
    value, error = [], []
    for n in most:
        hit = _hits(matrix[:, order[:n]].toarray(), split)
        value.append(hit.mean())
        error.append(clustered(torch.as_tensor(hit).double(), torch.as_tensor(split.text[split.test])))
    coordinates, whole = np.zeros(0), None
    if rows is not None:
        x = _fitting(codes, rows)
        ranked, _ = _telling(x[split.train], split.y[split.train])
        coordinates = np.array([_hits(x[:, ranked[:n]], split).mean() for n in most])
        whole = float(_hits(x, split).mean())
    return SparseProbing(
        name="k-sparse probe",
        value=np.array(value),
        stderr=None if None in error else np.array(error),
        n=len(split.test),
        convention="held-out accuracy on as many tokens with as without, latents by difference of means",
        chance=0.5,
        axes=("k",),
        ticks=(tuple(map(str, k)),),
        latents=order[: max(most)],
        coordinates=coordinates,
        whole=whole,
        provenance={"seed": seed, "fitted_on": len(split.train)},
    )


def _fitting(codes: Codes, rows: Tensor) -> np.ndarray:
    if len(rows) != codes.n:
        raise InputError(f"{len(rows)} rows for codes of {codes.n}: they must be the same tokens")
    return rows.detach().flatten(1).cpu().double().numpy()


def _telling(x: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns by |difference of class means|, and the differences."""
    means = [np.asarray(x[y == value].mean(0)).ravel() for value in (0, 1)]
    difference = means[1] - means[0]
    return np.argsort(-np.abs(difference), kind="stable"), difference


def _hits(x: np.ndarray, split: _Split) -> np.ndarray:
    probe = fit_probe(x[split.train], split.y[split.train])
    return (probe.score(x[split.test]) > 0) == (split.y[split.test] > 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Absorption(Result):
    """``value``: share of the concept's tokens that the probe knows, on which its own latents are silent and another
    latent carries it."""

    main: np.ndarray
    """The concept's own latents: the best one, and those that raise F1 by more than ``splitting`` (feature splitting
    gives more than one)."""
    f1: float
    """Of "any of them fires" on held-out texts."""
    silent: float
    """Share of the tokens that the probe knows on which they are silent."""
    absorbers: dict[str, int]
    """Latent -> tokens it absorbs, the most first."""
    probe_accuracy: float


def absorption(
    codes: Codes,
    coder: Any,
    rows: Tensor,
    concept: Any,
    *,
    splitting: float = 0.03,
    aligned: float = 0.1,
    carries: float = 0.4,
    at_most: int = 8000,
    seed: int = 0,
) -> Absorption:
    """Whether a concept's latents miss tokens because more special latents have taken the concept in.

    A token is absorbed if a linear probe finds the concept in the activation there, none of the concept's latents
    fires, and the latent with the largest share of the reconstruction along the probe has a direction with cosine at
    least ``aligned`` to it and holds at least ``carries`` of what all latents together write along it.

    Parameters
    ----------
    codes, concept
        As in :func:`sparse_probing`.
    rows
        [row, d] the activations of the same tokens.
    splitting
        How much F1 a further latent must add to count among the concept's own.

    Raises
    ------
    InputError
        As in :func:`sparse_probing`.

    References
    ----------
    Chanin et al. 2024 (A is for absorption), section 4; the projection in place of an ablation as in SAEBench.
    """
    split, x = _split(codes, concept, at_most, seed), _fitting(codes, rows)
    probe = fit_probe(x[split.train], split.y[split.train])
    matrix = codes.matrix.tocsr()
    main = _own(matrix[split.train], split.y[split.train], splitting)
    test = split.test
    fires = np.asarray((matrix[test][:, main] != 0).sum(1)).ravel() > 0
    truth = split.y[test] > 0
    known = truth & (probe.score(x[test]) > 0)
    if not known.any():
        raise InputError(
            "the probe finds the concept on none of its held-out tokens: there is nothing to absorb"
        )
    direction = coder.W_dec.detach().double().cpu().numpy()
    unit = probe.weight / np.linalg.norm(probe.weight)
    along = direction @ unit
    cosine = along / np.maximum(np.linalg.norm(direction, axis=1), 1e-30)
    missed = test[known & ~fires]
    absorbers: dict[int, int] = {}
    for row in missed:
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        latents, share = matrix.indices[part], matrix.data[part] * along[matrix.indices[part]]
        if not len(latents):
            continue
        best = int(share.argmax())
        if cosine[latents[best]] >= aligned and share[best] >= carries * share.sum() > 0:
            absorbers[int(latents[best])] = absorbers.get(int(latents[best]), 0) + 1
    n = int(known.sum())
    rate = sum(absorbers.values()) / n
    return Absorption(
        name="absorption",
        value=rate,
        stderr=(rate * (1 - rate) / n) ** 0.5,
        n=n,
        convention="share of the concept's tokens known to a probe that another latent than its own carries",
        chance=0.0,
        main=main,
        f1=_f1(fires, truth),
        silent=float((known & ~fires).sum() / n),
        absorbers={str(j): c for j, c in sorted(absorbers.items(), key=lambda item: -item[1])},
        probe_accuracy=probe.accuracy(x[test], split.y[test]),
        provenance={"splitting": splitting, "aligned": aligned, "carries": carries, "seed": seed},
    )


def _f1(said: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))


def _own(matrix: Any, y: np.ndarray, splitting: float, most: int = 16) -> np.ndarray:
    """The concept's own latents: taken by F1, one after the other, while each adds enough."""
    on, truth = (matrix != 0).tocsc(), y > 0
    hits = np.asarray(on[truth].sum(0)).ravel()
    fired = np.asarray(on.sum(0)).ravel()
    order = np.argsort(-2 * hits / np.maximum(fired + truth.sum(), 1), kind="stable")[: 8 * most]
    chosen, said, best = [], np.zeros(len(truth), dtype=bool), 0.0
    while len(chosen) < most:
        tries = {
            int(j): _f1(said | on[:, [j]].toarray().ravel(), truth) for j in order if int(j) not in chosen
        }
        j = max(tries, key=lambda latent: tries[latent])
        if chosen and tries[j] - best <= splitting:
            break
        chosen.append(j)
        said |= on[:, [j]].toarray().ravel()
        best = tries[j]
    return np.array(chosen)
