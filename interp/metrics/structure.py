"""Structure: shapes that a representation of a small world takes. Parallelograms, frequencies, circles, clusters that
cannot be told apart one coordinate at a time, and how much of the variance a feature takes.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import outcome
from interp.metrics.rows import Groups, Rows, checked, leave_out, rows64
from interp.results import Result

__all__ = [
    "feature_variance_share",
    "find_circle",
    "fourier_concentration",
    "mixture_index",
    "parallelogram_rqi",
    "separability",
]


def parallelogram_rqi(
    x: Float[Tensor, "token d"], *, delta: float = 0.01, modulus: int | None = None, max_quads: int = 200_000,
    seed: int = 0,
) -> Result:  # fmt: skip
    """Share of quadruples i + j = m + n (distinct pairs) whose embeddings obey |E_i + E_j - E_m - E_n| < delta.

    ``delta`` is in units of the root-mean-square distance of two embeddings. 1 for a linear embedding. ``modulus``:
    sums are taken modulo it. ``.chance``: the share among quadruples with i + j != m + n. More than ``max_quads``
    quadruples are sampled.

    References
    ----------
    Liu et al. 2022 (Towards understanding grokking: an effective theory), eq. 4.
    """
    rows = rows64(x)
    n = len(rows)
    scale = float((2 * n / (n - 1) * rows.square().sum(1).mean()).sqrt())
    pairs = torch.combinations(torch.arange(n), with_replacement=True)
    total = pairs.sum(1) if modulus is None else pairs.sum(1) % modulus
    sums = rows[pairs[:, 0]] + rows[pairs[:, 1]]
    generator = torch.Generator().manual_seed(seed)
    quads = []
    for value in total.unique():
        members = torch.nonzero(total == value).flatten()
        if len(members) > 1:
            quads.append(members[torch.combinations(torch.arange(len(members)))])
    if not quads or scale == 0:
        why = "all embeddings are equal" if scale == 0 else "no two pairs have the same sum"
        return outcome(
            "parallelogram RQI", float("nan"), n=n, d=rows.shape[1], convention=f"delta {delta:g}", reason=why
        )
    quad = torch.cat(quads)
    if len(quad) > max_quads:
        quad = quad[torch.randperm(len(quad), generator=generator)[:max_quads]]
    hit = (sums[quad[:, 0]] - sums[quad[:, 1]]).norm(dim=1) < delta * scale
    other = torch.randint(len(pairs), (len(quad), 2), generator=generator)
    other = other[total[other[:, 0]] != total[other[:, 1]]]
    miss = (sums[other[:, 0]] - sums[other[:, 1]]).norm(dim=1) < delta * scale
    share = float(hit.double().mean())
    return outcome(
        "parallelogram RQI", share, n=len(quad), d=rows.shape[1], stderr=(share * (1 - share) / len(quad)) ** 0.5,
        chance=float(miss.double().mean()) if len(miss) else None, no_chance="all pairs have the same sum",
        convention=f"delta {delta:g} x rms distance, sums {'plain' if modulus is None else f'modulo {modulus}'}",
    )  # fmt: skip


def fourier_concentration(x: Float[Tensor, "token d"], *, n_frequencies: int = 1) -> Result:
    """Share of the variance of an embedding of 0 .. p - 1 that its strongest frequencies hold.

    The discrete Fourier transform runs over the tokens; the power of frequency k sums over coordinates and over its
    sine and cosine. ``.provenance``: the frequencies, strongest first, and the whole normalised ``spectrum``.
    ``.chance``: the same with the tokens relabelled at random, on average. Every token is measured and nothing is
    sampled, so there is no standard error.

    References
    ----------
    Nanda et al. 2023; Morwani et al. 2024 (margin maximisation).
    """
    rows = rows64(x)
    p = len(rows)
    power = _power(rows)
    count = len(power)
    if not 0 < n_frequencies <= count or float(power.sum()) == 0:
        raise InputError(f"n_frequencies = {n_frequencies} of {count}, total power {float(power.sum()):g}")
    share = power / power.sum()
    order = share.argsort(descending=True)
    generator = torch.Generator().manual_seed(0)
    mixed = [_power(rows[torch.randperm(p, generator=generator)]) for _ in range(20)]
    chance = [float(one.sort(descending=True).values[:n_frequencies].sum() / one.sum()) for one in mixed]
    return outcome(
        "Fourier concentration", float(share[order[:n_frequencies]].sum()), n=p, d=rows.shape[1],
        chance=float(np.mean(chance)), no_stderr="every token is measured: nothing is sampled",
        convention=f"share of variance in the top {n_frequencies} of {count} frequencies; chance: tokens relabelled",
        provenance={"frequencies": (order[:n_frequencies] + 1).tolist(), "spectrum": share.tolist()},
    )  # fmt: skip


def _power(rows: Tensor) -> Float64[Tensor, "frequency"]:
    """Power of each frequency but 0, summed over coordinates and over its sine and cosine."""
    power = torch.fft.rfft(rows, dim=0).abs().square().sum(1)[1:]
    if len(rows) % 2 == 0:
        power[:-1] *= 2  # every frequency but the last stands for itself and its mirror
    return power


def feature_variance_share(
    x: Rows, feature: Int[Tensor, "sample"] | np.ndarray, *, groups: Groups = None, n_blocks: int = 8
) -> Result:
    """Share of a representation's variance that a discrete feature of the input explains (between its classes).

    Features that are computed equally well take very different shares: simple ones more, a bias of learning that
    variance-weighted similarities inherit. ``.chance``: (C - 1) / (n - 1), the share of a random label.

    References
    ----------
    Lampinen et al. 2024 (Learned feature representations are biased).
    """
    rows = rows64(x)
    labels = torch.unique(torch.as_tensor(feature), return_inverse=True)[1]
    n, c = len(rows), int(labels.max()) + 1
    if len(labels) != n or c < 2:
        raise InputError(f"feature has {len(labels)} entries and {c} values for {n} rows")

    def share(index: Tensor) -> float:
        part, which = rows[index] - rows[index].mean(0), labels[index]
        count = torch.bincount(which, minlength=c).clamp_min(1).double()
        means = torch.zeros(c, rows.shape[1], dtype=torch.float64).index_add_(0, which, part) / count[:, None]
        held = torch.bincount(which, minlength=c).double()
        return float((held[:, None] * means.square()).sum() / part.square().sum())

    return outcome(
        "variance share", share(torch.arange(n)), n=n, d=rows.shape[1], chance=(c - 1) / (n - 1),
        stderr=leave_out(share, n, n_blocks=n_blocks, groups=groups),
        convention=f"between-class share of the total variance, {c} classes",
    )  # fmt: skip


def _plane(x: Rows) -> Tensor:
    rows = rows64(x)
    if rows.shape[1] != 2:
        raise InputError(f"a plane is needed, [sample, 2]; got {list(rows.shape)} (find_circle names one)")
    return rows


def separability(
    x: Float[Tensor, "sample 2"],
    *,
    n_angles: int = 60,
    n_bins: int = 40,
    groups: Groups = None,
    n_blocks: int = 8,
) -> Result:
    """Separability index of a plane: the least mutual information, in nats, of its two coordinates over rotations.

    0: some rotation makes the coordinates independent, so the plane is two one-dimensional features. ``.chance``: the
    same of a permuted pairing (the bias of binned mutual information at this n). The standard error leaves out blocks
    of rows (``groups``: whole ones), the rotation found anew.

    References
    ----------
    Engels et al. 2024 (Not all language model features are linear), definition 4.
    """
    rows = _plane(x)
    angles = torch.arange(n_angles, dtype=torch.float64) * (torch.pi / 2 / n_angles)

    def information(points: Tensor, angle: Tensor) -> float:
        c, s = angle.cos(), angle.sin()
        turned = points @ torch.stack([torch.stack([c, s]), torch.stack([-s, c])])
        table = np.histogram2d(*turned.T.numpy(), bins=n_bins)[0] / len(points)
        outer = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
        held = table > 0
        return float((table[held] * np.log(table[held] / outer[held])).sum())

    def least(kept: Tensor) -> float:
        return min(information(rows[kept], angle) for angle in angles)

    values = [information(rows, angle) for angle in angles]
    best = int(np.argmin(values))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    c, s = angles[best].cos(), angles[best].sin()
    turned = rows @ torch.stack([torch.stack([c, s]), torch.stack([-s, c])])
    shuffled = torch.stack([turned[:, 0], turned[order, 1]], 1)
    return outcome(
        "separability index", values[best], n=len(rows), d=2, chance=information(shuffled, angles[0]),
        stderr=leave_out(least, len(rows), n_blocks=n_blocks, groups=groups),
        convention=f"nats, {n_bins} x {n_bins} bins, least over {n_angles} rotations of a quarter turn",
        provenance={"angle": float(angles[best])},
    )  # fmt: skip


def mixture_index(
    x: Rows,
    *,
    epsilon: float = 0.1,
    n_directions: int = 180,
    n_offsets: int = 61,
    seed: int = 0,
    groups: Groups = None,
    n_blocks: int = 8,
) -> Result:
    """epsilon-mixture index: the largest share of points that one affine function sends near 0.

    max over v, c of the share with |v.x + c| < epsilon * rms(v.x + c). Near 1: the points are a mixture in which most
    lie on a hyperplane (a sparse feature that is mostly off); small for an irreducible one. In a plane directions are
    a grid of angles, else random. ``.chance``: that of Gaussian points of the same covariance. The standard error
    leaves out blocks of rows (``groups``: whole ones), the best slab found anew.

    References
    ----------
    Engels et al. 2024, definition 5 (their demonstration divides by the mean square, not its root).
    """
    rows = checked(x)
    n, d = rows.shape
    generator = torch.Generator().manual_seed(seed)
    if d == 2:
        angle = torch.arange(n_directions, dtype=torch.float64) * (torch.pi / n_directions)
        directions = torch.stack([angle.cos(), angle.sin()])
    else:
        directions = torch.randn(d, n_directions, generator=generator, dtype=torch.float64)

    def index(points: Tensor) -> float:
        projected = points @ directions
        mean, spread = projected.mean(0), projected.std(0, correction=0).clamp_min(1e-300)
        best = 0.0
        for step in torch.linspace(-3, 3, n_offsets, dtype=torch.float64):
            c = -(mean + step * spread)
            size = ((mean + c).square() + spread.square()).sqrt()
            best = max(best, float(((projected + c).abs() < epsilon * size).double().mean(0).max()))
        return best

    centred = rows - rows.mean(0)
    root = torch.linalg.svd(centred, full_matrices=False)
    draw = torch.randn(n, len(root.S), generator=generator, dtype=torch.float64)
    gaussian = draw * root.S / n**0.5 @ root.Vh
    return outcome(
        "mixture index", index(rows), n=n, d=d, chance=index(gaussian),
        stderr=leave_out(lambda kept: index(rows[kept]), n, n_blocks=n_blocks, groups=groups),
        convention=f"epsilon {epsilon:g} x rms, {n_directions} directions, {n_offsets} offsets",
    )  # fmt: skip


def find_circle(x: Rows, *, n_components: int = 6, groups: Groups = None, n_blocks: int = 8) -> Result:
    """The plane of two principal components in which the points lie most nearly on a circle about their mean.

    Score: 1 - sd(r) / mean(r) of the whitened radius, 1 on a circle. ``.chance``: that of Gaussian points,
    1 - sqrt(4 / pi - 1) = 0.477. ``.provenance``: the two components, and ``coverage``, 1 - |mean of e^(i angle)|: a
    circle that is only an arc covers little. The standard error leaves out blocks of rows (``groups``: whole ones), the
    plane found anew.

    References
    ----------
    Engels et al. 2024 (planes of principal components of a cluster).
    """
    rows = rows64(x)
    u = torch.linalg.svd(rows, full_matrices=False)

    def best_of(kept: Tensor) -> float:
        part = torch.linalg.svd(rows[kept] - rows[kept].mean(0), full_matrices=False)
        width = min(held, int((1e-10 * part.S[0] < part.S).sum()))
        return max(
            (_roundness(part.U[:, list(pair)])[0] for pair in combinations(range(width), 2)), default=np.nan
        )

    held = min(n_components, int((1e-10 * u.S[0] < u.S).sum()))
    if held < 2:
        return outcome("circle", float("nan"), n=len(rows), d=rows.shape[1], convention="whitened radius",
                       reason="the points span fewer than two dimensions")  # fmt: skip
    best = max(combinations(range(held), 2), key=lambda pair: _roundness(u.U[:, list(pair)])[0])
    score, coverage = _roundness(u.U[:, list(best)])
    return outcome(
        "circle", score, n=len(rows), d=rows.shape[1], chance=1 - (4 / np.pi - 1) ** 0.5,
        stderr=leave_out(best_of, len(rows), n_blocks=n_blocks, groups=groups),
        convention=f"1 - sd / mean of the whitened radius, best plane of {held} principal components",
        provenance={"plane": list(best), "coverage": coverage, "directions": u.Vh[list(best)].tolist()},
    )  # fmt: skip


def _roundness(plane: Tensor) -> tuple[float, float]:
    radius = plane.norm(dim=1)
    score = 1 - float(radius.std(correction=0) / radius.mean())
    unit = plane / radius.clamp_min(1e-300)[:, None]
    return score, 1 - float(unit.mean(0).norm())
