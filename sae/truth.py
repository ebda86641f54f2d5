"""Against known truth: which directions were found, by how many latents, how faithfully they fire and how large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.results import Result

__all__ = ["Recovery", "assigned", "cosines", "match_dictionary", "recovery"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Recovery(Result):
    """``value``: MCC, the mean cosine under the one-to-one matching with the largest sum."""

    mmcs: float
    """Mean over true features of the best cosine with any latent."""
    mmcs_latents: float
    """Mean over latents of the best cosine with any true feature."""
    found: float
    """Share of true features whose matched latent has a cosine above ``threshold``."""
    uniqueness: float
    """Different true features that are some latent's nearest, over the most there could be."""
    match: np.ndarray
    """[feature] its latent, -1 for none (more features than latents)."""
    cosine: np.ndarray
    """[feature] cosine with its latent, 0 for none."""
    precision: np.ndarray
    """[feature] share of its latent's firings at which the feature is on; 0 if it never fires. Empty without codes."""
    recall: np.ndarray
    """[feature] share of the feature's rows on which its latent fires. Empty without codes."""
    f1: np.ndarray
    """[feature] harmonic mean of the two."""
    shrinkage: np.ndarray
    """[feature] 1 - slope of the latent's contribution on the true one, through 0, where the feature is on."""


def recovery(
    learned: Float[Tensor, "latent _"],
    truth: Float[Tensor, "feature _"],
    *,
    codes: Float[Tensor, "_ _"] | None = None,
    true_codes: Float[Tensor, "_ _"] | None = None,
    signed: bool = True,
    threshold: float = 0.9,
    seed: int = 0,
) -> Recovery:
    """A dictionary beside the one that made the data.

    Parameters
    ----------
    learned, truth
        Directions; their lengths do not matter for matching.
    codes, true_codes
        [sample, latent] and [sample, feature], codes of the same rows in both: adds how the matched latents fire, and
        how large.
    signed
        False matches on |cosine|, for coders whose codes may be negative.
    threshold
        Cosine above which a feature counts as found.
    seed
        Of the random dictionary behind ``.chance``.

    Returns
    -------
    Recovery
        Standard error over features. Cost: an assignment, cubic in the larger of the two sizes.

    Raises
    ------
    InputError
        Directions of different widths, a direction of length 0 in the truth, or codes that do not fit.
    """
    table = cosines(learned, truth)
    random = torch.randn(learned.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    match, cosine = assigned(table, signed)
    best = table if signed else table.abs()
    nearest = best.argmax(0)
    fires = _firing(learned.detach(), truth, codes, true_codes, match)
    n = len(truth)
    return Recovery(
        name="MCC",
        value=float(cosine.mean()),
        stderr=float(cosine.std(ddof=1) / n**0.5) if n > 1 else None,
        n=n,
        chance=float(assigned(cosines(random, truth), signed)[1].mean()),
        convention=f"mean {'' if signed else '|'}cosine{'' if signed else '|'} under the best one-to-one matching",
        mmcs=float(best.amax(1).mean()),
        mmcs_latents=float(best.amax(0).mean()),
        found=float((cosine > threshold).mean()),
        uniqueness=len(nearest.unique()) / min(best.shape),
        match=match,
        cosine=cosine,
        **fires,
        provenance={"threshold": threshold, "signed": signed, "latents": len(learned)},
    )


def cosines(learned: Tensor, truth: Tensor) -> Float[Tensor, "feature latent"]:
    """Cosine of every true direction with every learned one, float64."""
    if learned.shape[1] != truth.shape[1]:
        raise InputError(f"learned directions are {learned.shape[1]} wide, the true ones {truth.shape[1]}")
    both = [x.detach().double() for x in (truth, learned)]
    if bool((both[0].norm(dim=1) == 0).any()):
        raise InputError("a true direction has length 0")
    unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-30) for x in both]
    return unit[0] @ unit[1].T


def assigned(table: Tensor, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """The one-to-one matching with the largest sum: [feature] latent or -1, and the cosine or 0."""
    from scipy.optimize import linear_sum_assignment

    score = (table if signed else table.abs()).numpy()
    feature, latent = linear_sum_assignment(score, maximize=True)
    match, cosine = np.full(len(score), -1), np.zeros(len(score))
    match[feature], cosine[feature] = latent, score[feature, latent]
    return match, cosine


def _firing(
    learned: Tensor, truth: Tensor, codes: Tensor | None, true_codes: Tensor | None, match: np.ndarray
) -> dict[str, Any]:
    names = ("precision", "recall", "f1", "shrinkage")
    if (codes is None) != (true_codes is None):
        raise InputError(
            "codes and true_codes go together: how latents fire is judged beside how features do"
        )
    if codes is None or true_codes is None:
        return dict.fromkeys(names, np.zeros(0))
    if (len(codes), codes.shape[1], true_codes.shape[1]) != (len(true_codes), len(learned), len(truth)):
        raise InputError(
            f"codes {list(codes.shape)} and true_codes {list(true_codes.shape)} do not fit {len(learned)} latents and "
            f"{len(truth)} features of the same rows"
        )
    has = torch.as_tensor(match >= 0)
    chosen = torch.as_tensor(match).clamp_min(0)
    z, t = codes.detach().double()[:, chosen] * has, true_codes.double()
    on, fires = t != 0, z != 0
    both = (on & fires).double().sum(0)
    share = [both / x.double().sum(0).clamp_min(1) for x in (fires, on)]
    f1 = 2 * both / (on.double().sum(0) + fires.double().sum(0)).clamp_min(1)
    scale = learned.double().norm(dim=1)[chosen] / truth.double().norm(dim=1)
    slope = (z * t).sum(0) * scale / t.square().sum(0).clamp_min(1e-300)
    return dict(zip(names, (x.numpy() for x in (*share, f1, 1 - slope)), strict=True))


def match_dictionary(
    learned: Float[Tensor, "latent _"], truth: Float[Tensor, "feature _"], *, threshold: float = 0.9
) -> Result:
    """How well a dictionary holds known directions: each true feature's best cosine among the learned ones.

    Returns
    -------
    Result
        ``.value`` is the mean of the best cosines (MMCS); ``.chance`` the same for as many random directions;
        ``.provenance["found"]`` the share of features above ``threshold`` and ``["best"]`` all best cosines.
    """
    random = torch.randn(learned.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best, chance = (cosines(d, truth).amax(1) for d in (learned, random))
    return Result(
        name="MMCS",
        value=float(best.mean()),
        stderr=float(best.std() / len(best) ** 0.5) if len(best) > 1 else None,
        n=len(best),
        chance=float(chance.mean()),
        convention="mean over true features of the largest cosine with a learned direction (signed)",
        provenance={
            "found": float((best > threshold).double().mean()),
            "threshold": threshold,
            "best": [float(b) for b in best],
        },
    )
