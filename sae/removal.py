"""Does taking a few latents away remove one concept and leave the others? Two scores on labelled rows.

:func:`targeted_perturbation`: latents of one class are ablated, and probes for all classes are read.
:func:`spurious_removal`: a probe that learnt a spurious label along with its target gets better once the latents of the
spurious label are ablated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.results import Result
from sae.probing import Probe, fit_probe
from sae.splicing import rows_at

__all__ = ["Perturbation", "SpuriousRemoval", "spurious_removal", "targeted_perturbation"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    x: np.ndarray
    codes: np.ndarray
    directions: np.ndarray

    def at(self, index: np.ndarray) -> _Rows:
        return _Rows(x=self.x[index], codes=self.codes[index], directions=self.directions)

    def without(self, latents: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
        """The rows with these latents' codes at 0, or at ``mean`` [latent]."""
        held = 0.0 if mean is None else mean[latents]
        return self.x - (self.codes[:, latents] - held) @ self.directions[latents]

    def ranked(self, y: np.ndarray, probe: Probe) -> np.ndarray:
        """Latents by how far the difference of their mean codes moves the probe: the most telling first."""
        difference = self.codes[y > 0].mean(0) - self.codes[y <= 0].mean(0)
        return np.argsort(-difference * (self.directions @ probe.weight), kind="stable")


@torch.no_grad()
def _rows(coder: Any, rows: Tensor) -> _Rows:
    rows = rows_at(rows, coder, "rows")
    codes = torch.cat([coder.encode(piece) for piece in rows.split(4096)])
    held = (rows, codes, coder.W_dec.detach())
    x, z, d = (t.cpu().double().numpy() for t in held)
    return _Rows(x=x, codes=z, directions=d)


def _balanced(groups: Sequence[np.ndarray], rng: np.random.Generator, at_most: int, what: str) -> np.ndarray:
    """The same number of rows of every group."""
    n = min(min(len(g) for g in groups), at_most // len(groups))
    if n < 5:
        raise InputError(
            f"{min(len(g) for g in groups)} rows of one {what} are too few; at least 5 are needed"
        )
    return np.concatenate([rng.permutation(g)[:n] for g in groups])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Perturbation(Result):
    """``value`` [n latents]: how much more accuracy the targeted class loses than the others."""

    loss: np.ndarray
    """[n latents, ablated class, probed class] accuracy lost."""
    accuracy: np.ndarray
    """[class] of each probe before."""


def targeted_perturbation(
    coder: Any,
    rows: Tensor,
    classes: Any,
    *,
    n_latents: Sequence[int] = (1, 2, 5, 10, 20),
    at_most: int = 4000,
    seed: int = 0,
) -> Perturbation:
    """Ablate the latents of one class; read the probes of all.

    Parameters
    ----------
    rows, classes
        [sample, d] and [sample] whole numbers; half of the rows fit, half test.
    n_latents
        How many latents are ablated.

    Returns
    -------
    Perturbation
        mean_i loss[i, i] - mean_{i != j} loss[i, j], codes put to 0; standard error over the ablated classes.
        ``.chance``: the same with as many random latents that fire.

    Raises
    ------
    InputError
        Rows of another width, fewer than two classes, or too few rows of one.

    References
    ----------
    Karvonen et al. 2024 (Evaluating sparse autoencoders on targeted concept erasure tasks), TPP.
    """
    labels, rng = np.asarray(classes), np.random.default_rng(seed)
    names = np.unique(labels)
    if len(labels) != len(rows) or len(names) < 2:
        raise InputError(f"{len(labels)} labels of {len(names)} classes for {len(rows)} rows")
    held = _rows(coder, rows)
    half = rng.permutation(len(labels)) < len(labels) // 2
    parts, probes = [], []
    for name in names:
        pair = [_balanced([np.flatnonzero(side & (labels == name)), np.flatnonzero(side & (labels != name))],
                          rng, at_most, "class") for side in (half, ~half)]  # fmt: skip
        parts.append(pair)
        probes.append(fit_probe(held.x[pair[0]], labels[pair[0]] == name))
    before = np.array([_accuracy(held.x, labels, *z) for z in zip(probes, parts, names, strict=True)])
    alive = np.flatnonzero((held.codes != 0).any(0))
    loss, random = (np.zeros((len(n_latents), len(names), len(names))) for _ in range(2))
    for i, (probe, pair, name) in enumerate(zip(probes, parts, names, strict=True)):
        order = held.at(pair[0]).ranked(labels[pair[0]] == name, probe)
        for a, n in enumerate(n_latents):
            for table, chosen in ((loss, order[:n]), (random, rng.permutation(alive)[:n])):
                x = held.without(chosen)
                after = [_accuracy(x, labels, *z) for z in zip(probes, parts, names, strict=True)]
                table[a, i] = before - after
    own, spread = _targeted(loss)
    return Perturbation(
        name="targeted perturbation",
        value=own,
        stderr=spread,
        n=int(sum(len(p[1]) for p in parts)),
        convention="accuracy lost by the targeted class less the mean lost by the others",
        chance=_targeted(random)[0],
        axes=("latents",),
        ticks=(tuple(map(str, n_latents)),),
        loss=loss,
        accuracy=before,
        provenance={"classes": [str(n) for n in names], "seed": seed},
    )


def _accuracy(x: np.ndarray, labels: np.ndarray, probe: Probe, pair: list[np.ndarray], name: Any) -> float:
    return probe.accuracy(x[pair[1]], labels[pair[1]] == name)


def _targeted(loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = loss.shape[1]
    own = np.einsum("aii->ai", loss)
    score = own - (loss.sum(2) - own) / (n - 1)
    return score.mean(1), score.std(1, ddof=1) / n**0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SpuriousRemoval(Result):
    """``value`` [n latents]: share of the accuracy that the spurious label cost which ablation gives back."""

    accuracy: np.ndarray
    """[n latents] of the biased probe on balanced rows after ablation."""
    biased: float
    """Before it."""
    oracle: float
    """Of a probe fitted on balanced rows."""
    direction: float
    """The share that removing the spurious probe's one direction gives back, for comparison."""


def spurious_removal(
    coder: Any,
    rows: Tensor,
    target: Any,
    spurious: Any,
    *,
    n_latents: Sequence[int] = (1, 2, 5, 10, 20),
    at_most: int = 4000,
    seed: int = 0,
) -> SpuriousRemoval:
    """Ablate what tells a spurious label, and see whether a probe that relied on it finds its target again.

    Parameters
    ----------
    rows, target, spurious
        [sample, d], and two labels [sample] of 0 and 1. The biased probe is fitted where both agree, and tested where
        the four combinations are equally frequent.
    n_latents
        How many latents are ablated, ranked for the spurious label on balanced rows.

    Returns
    -------
    SpuriousRemoval
        (A_ablated - A_biased) / (A_oracle - A_biased); ``.chance``: as many random latents that fire. Ablated codes
        are held at their mean over balanced rows, not at 0: that would move all rows past the probe's threshold.

    Raises
    ------
    InputError
        Rows of another width, labels that are not 0 and 1, a combination with too few rows, or a biased probe that is
        as good as the oracle: then nothing was spurious.

    References
    ----------
    Karvonen et al. 2024, SCR; Marks et al. 2024 (Sparse feature circuits), SHIFT.
    """
    t, s, rng = np.asarray(target), np.asarray(spurious), np.random.default_rng(seed)
    if t.shape != (len(rows),) or s.shape != t.shape or not np.isin([t, s], (0, 1)).all():
        raise InputError(f"target and spurious are 0 or 1, one for each of {len(rows)} rows")
    held = _rows(coder, rows)
    half = rng.permutation(len(t)) < len(t) // 2
    cells = [
        [np.flatnonzero(side & (t == a) & (s == b)) for a in (0, 1) for b in (0, 1)] for side in (half, ~half)
    ]
    agree = _balanced([cells[0][0], cells[0][3]], rng, at_most, "combination")
    even, test = (_balanced(c, rng, at_most, "combination") for c in cells)
    probe = fit_probe(held.x[agree], t[agree])
    biased = probe.accuracy(held.x[test], t[test])
    oracle = fit_probe(held.x[even], t[even]).accuracy(held.x[test], t[test])
    if oracle - biased < 0.02:
        raise InputError(
            f"a probe fitted where the labels agree is right on {biased:.3f} of balanced rows, one fitted on balanced "
            f"rows on {oracle:.3f}: the second label misleads nobody, so there is nothing to remove"
        )
    other = fit_probe(held.x[even], s[even])
    order = held.at(even).ranked(s[even], other)
    alive = np.flatnonzero((held.codes != 0).any(0))
    part, mean = held.at(test), held.codes[even].mean(0)

    def gained(x: np.ndarray) -> tuple[float, float]:
        found = probe.accuracy(x, t[test])
        return found, (found - biased) / (oracle - biased)

    found = [gained(part.without(order[:n], mean)) for n in n_latents]
    random = [gained(part.without(rng.permutation(alive)[:n], mean))[1] for n in n_latents]
    unit = other.weight / np.linalg.norm(other.weight)
    middle = held.x[even].mean(0)
    value = np.array([share for _, share in found])
    accuracy = np.array([a for a, _ in found])
    return SpuriousRemoval(
        name="spurious correlation removal",
        value=value,
        stderr=np.sqrt(accuracy * (1 - accuracy) / len(test)) / (oracle - biased),
        n=len(test),
        convention="(ablated - biased) / (oracle - biased) accuracy on balanced rows",
        chance=np.array(random),
        axes=("latents",),
        ticks=(tuple(map(str, n_latents)),),
        accuracy=accuracy,
        biased=biased,
        oracle=oracle,
        direction=gained(part.x - ((part.x - middle) @ unit)[:, None] * unit)[1],
        provenance={"seed": seed, "latents": order[: max(n_latents)].tolist()},
    )
