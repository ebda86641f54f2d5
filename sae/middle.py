"""Where the data lie: their middle and their size, measured once before training."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from sae.learner import Scales

__all__ = ["geometric_median", "scales_of"]


def geometric_median(
    rows: Float[Tensor, "sample d"], *, steps: int = 100, tolerance: float = 1e-9
) -> Float[Tensor, "d"]:
    """The point with the least summed distance to all rows, by Weiszfeld's iteration from the mean.

    A row at the point itself is left out of the step, as in Vardi & Zhang 2000.
    """
    point = rows.mean(0)
    for _ in range(steps):
        distance = (rows - point).norm(dim=1)
        away = distance > 0
        weight = 1 / distance[away]
        new = (rows[away] * weight[:, None]).sum(0) / weight.sum() if bool(away.any()) else point
        if float((new - point).norm()) <= tolerance * float(distance.mean()):
            return new
        point = new
    return point


def scales_of(
    x: Float[Tensor, "sample d_in"],
    y: Float[Tensor, "sample d_out"],
    *,
    n_sites: int,
    center: str,
    place: str,
) -> Scales:
    """Middle and root-mean-square deviation a coordinate (one number a site) of sampled rows and targets.

    Raises
    ------
    InputError
        Rows hold NaN or infinity, or are all the same at a site.
    """
    center_in, read = _one(x, n_sites, center, place)
    center_out, written = (center_in, read) if y is x else _one(y, n_sites, center, place)
    return Scales(center_in=center_in, read=read, center_out=center_out, written=written)


def _one(rows: Tensor, n_sites: int, center: str, place: str) -> tuple[Tensor, Tensor]:
    rows = rows.double()
    bad = int((~torch.isfinite(rows).all(1)).sum())
    if bad:
        raise InputError(f"{bad} of {len(rows)} sampled rows of {place} hold NaN or infinity")
    if rows.shape[1] % n_sites:
        raise InputError(f"{n_sites} sites do not divide rows of width {rows.shape[1]} of {place}")
    mean = rows.mean(0)
    spread = (rows - mean).square().mean(0).view(n_sites, -1).mean(1).sqrt()
    if bool((spread <= 1e-12 * mean.abs().max().clamp_min(1.0)).any()):
        raise InputError(f"every sampled row of {place} is the same; there is nothing to learn")
    middle = geometric_median(rows) if center == "median" else mean
    scale = spread.repeat_interleave(rows.shape[1] // n_sites)
    return middle.float(), scale.float()
