"""Two dictionaries beside each other: which latents they share, which only one has, what training seeds agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.results import Result
from sae.codes import Codes, codes_of_rows
from sae.truth import assigned, cosines

__all__ = ["Comparison", "compare", "stability"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """``value``: mean over matched latents of the cosine of their directions."""

    match: np.ndarray
    """[latent of a] its latent of b, -1 for none."""
    cosine: np.ndarray
    """[latent of a] cosine with it, 0 for none."""
    correlation: np.ndarray
    """[latent of a] Pearson correlation of the two codes over the rows, 0 where one never fires; empty without rows."""
    shared: float
    """Share of a's latents whose match has a cosine above ``threshold``."""
    only_a: np.ndarray
    """Latents of a whose best cosine with any of b's is at most ``threshold``."""
    only_b: np.ndarray
    difference: dict[str, float]
    """b minus a on the rows: ``fvu``, ``l0``, ``dead``; empty without rows."""


def compare(
    a: Any,
    b: Any,
    rows: Float[Tensor, "sample _"] | None = None,
    *,
    threshold: float = 0.7,
    signed: bool = True,
    seed: int = 0,
) -> Comparison:
    """Match the latents of two coders of one site one to one, and say where they differ.

    Parameters
    ----------
    rows
        Activations: adds how the matched codes correlate, and FVU, L0 and dead latents beside each other.
    threshold
        Cosine above which two latents count as the same.
    signed
        False matches on |cosine|.
    seed
        Of the random dictionary of b's size behind ``.chance``.

    Returns
    -------
    Comparison
        Cost: an assignment, cubic in the larger dictionary (some seconds at 4,096 latents).

    Raises
    ------
    InputError
        The coders write rows of different widths.
    """
    table = cosines(b.W_dec, a.W_dec)
    match, cosine = assigned(table, signed)
    best = table if signed else table.abs()
    random = torch.randn(b.W_dec.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chance = assigned(cosines(random, a.W_dec), signed)[1]
    correlation, difference = np.zeros(0), {}
    if rows is not None:
        codes = codes_of_rows(a, rows), codes_of_rows(b, rows)
        correlation = _correlations(*codes, match)
        difference = _difference(a, b, rows)
    held = match >= 0
    return Comparison(
        name="dictionary agreement",
        value=float(cosine[held].mean()),
        stderr=float(cosine[held].std(ddof=1) / held.sum() ** 0.5) if held.sum() > 1 else None,
        n=int(held.sum()),
        chance=float(chance[chance != 0].mean()),
        convention=f"mean {'' if signed else '|'}cosine{'' if signed else '|'} under the best one-to-one matching",
        match=match,
        cosine=cosine,
        correlation=correlation,
        shared=float((cosine > threshold).mean()),
        only_a=torch.nonzero(best.amax(1) <= threshold).flatten().numpy(),
        only_b=torch.nonzero(best.amax(0) <= threshold).flatten().numpy(),
        difference=difference,
        provenance={"threshold": threshold, "signed": signed, "seed": seed},
    )


def _correlations(a: Codes, b: Codes, match: np.ndarray) -> np.ndarray:
    chosen = b.matrix[:, np.maximum(match, 0)].tocsc()
    n, mine = a.n, a.matrix
    cross = np.asarray(mine.multiply(chosen).sum(0)).ravel()
    means = [np.asarray(x.sum(0)).ravel() / n for x in (mine, chosen)]
    power = [np.asarray(x.multiply(x).sum(0)).ravel() / n for x in (mine, chosen)]
    variance = [np.maximum(p - m**2, 0) for p, m in zip(power, means, strict=True)]
    scale = np.sqrt(variance[0] * variance[1])
    covariance = cross / n - means[0] * means[1]
    return np.where((scale > 0) & (match >= 0), covariance / np.where(scale > 0, scale, 1.0), 0.0)


def _difference(a: Any, b: Any, rows: Tensor) -> dict[str, float]:
    from sae.evaluation import evaluate

    found = [evaluate(coder, rows) for coder in (a, b)]
    return {
        "fvu": float(found[1].value) - float(found[0].value),
        "l0": found[1].l0 - found[0].l0,
        "dead": found[1].dead - found[0].dead,
    }


def stability(coders: Sequence[Any], *, threshold: float = 0.7, signed: bool = True, seed: int = 0) -> Result:
    """How far trainings with different seeds agree: the mean over pairs of :func:`compare`'s value.

    Returns
    -------
    Result
        ``.provenance``: ``pairs`` (i, j, mean cosine, share above ``threshold``), and ``everywhere``, the share of the
        first coder's latents that have a match above ``threshold`` in all others.

    Raises
    ------
    InputError
        Fewer than two coders.
    """
    if len(coders) < 2:
        raise InputError(f"stability compares coders with each other; got {len(coders)}")
    found = {
        (i, j): compare(coders[i], coders[j], threshold=threshold, signed=signed, seed=seed)
        for i, j in combinations(range(len(coders)), 2)
    }
    values = np.array([float(c.value) for c in found.values()])
    common = np.stack([found[0, j].cosine > threshold for j in range(1, len(coders))]).all(0)
    return Result(
        name="seed stability",
        value=float(values.mean()),
        stderr=float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None,
        n=len(values),
        chance=float(np.array([c.chance for c in found.values()], dtype=float).mean()),
        convention="mean cosine of matched latents, mean over pairs of coders; error over pairs",
        provenance={
            "pairs": [[i, j, float(c.value), c.shared] for (i, j), c in found.items()],
            "everywhere": float(common.mean()),
            "threshold": threshold,
        },
    )
