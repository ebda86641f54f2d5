"""Groups of latents that may be one feature of several dimensions, and what shape the tokens have in each group.

Latents are linked to their nearest others, by direction or by firing together; a group is a connected component. The
part of the activations that a group's latents write is then looked at on its own: its principal planes, whether two
coordinates can be told apart (separability), whether one is mostly off (mixture), how round it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from interp.errors import InputError
from interp.metrics.structure import find_circle, mixture_index, separability
from interp.results import Result
from sae.codes import Codes
from sae.gallery.relations import Partners, correlated_latents, decoder_neighbours

__all__ = ["GroupShape", "group_shape", "latent_groups", "written_by"]


def latent_groups(
    coder: Any,
    codes: Codes | None = None,
    *,
    how: str = "direction",
    nearest: int = 2,
    least: float = 0.5,
    smallest: int = 3,
) -> list[np.ndarray]:
    """Groups of latents, the largest first.

    Parameters
    ----------
    codes
        Needed for ``how="firing"``; with them, latents that never fire are left out.
    how
        ``"direction"``: cosine of directions. ``"firing"``: correlation of codes.
    nearest, least
        Each latent is linked to this many nearest others, if they are at least so near.
    smallest
        Groups of fewer latents are left out.

    Raises
    ------
    InputError
        ``how`` is unknown, or "firing" comes without codes.

    References
    ----------
    Engels et al. 2024, section 4 (graph of cosines, connected components).
    """
    if how not in ("direction", "firing"):
        raise InputError(f"how={how!r}; it is 'direction' or 'firing'")
    if how == "firing":
        if codes is None:
            raise InputError("latents that fire together are found from codes: give codes=")
        linked = correlated_latents(codes, n_shown=nearest)[0]
    else:
        linked = decoder_neighbours(coder.W_dec.detach().float().cpu(), n_linked=nearest)[1]
    alive = np.ones(coder.d_sae, dtype=bool) if codes is None else codes.counts > 0
    return _components(linked, alive, least, smallest)


def _components(linked: Partners, alive: np.ndarray, least: float, smallest: int) -> list[np.ndarray]:
    n = len(alive)
    a = np.repeat(np.arange(n), linked.index.shape[1])
    b = linked.index.ravel()
    keep = (b >= 0) & (linked.value.ravel() >= least)
    a, b = a[keep], b[keep]
    keep = alive[a] & alive[b]
    graph = sp.coo_array((np.ones(int(keep.sum())), (a[keep], b[keep])), shape=(n, n))
    _, label = sp.csgraph.connected_components(graph, directed=False)
    groups = [np.flatnonzero((label == k) & alive) for k in np.flatnonzero(np.bincount(label) >= smallest)]
    return sorted((g for g in groups if len(g) >= smallest), key=lambda g: (-len(g), g[0]))


def written_by(coder: Any, codes: Codes, latents: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Rows on which any of the latents fires, and what these latents write there [row, d]."""
    part = codes.matrix[:, latents].tocsr()
    rows = np.flatnonzero(np.diff(part.indptr) > 0)
    directions = coder.W_dec.detach().double().cpu().numpy()[latents]
    return rows, torch.as_tensor(part[rows].astype(np.float64) @ directions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GroupShape(Result):
    """``value`` [plane]: separability index of each principal plane in nats; high: not two separate features."""

    mixture: np.ndarray
    """[plane] mixture index: near 1 where most tokens lie on a line; low: one feature that is never off."""
    roundness: np.ndarray
    """[plane] 1 - sd / mean of the radius of the whitened points."""
    irreducible: np.ndarray
    """[plane] (1 - mixture) * separability: what planes and groups are ranked by (Engels et al. 2024, section 4)."""
    variance: np.ndarray
    """[component] share of the group's variance."""
    tokens: tuple[int, ...]
    """The tokens on which the group writes most, ids, where the codes have texts."""


def group_shape(
    coder: Any, codes: Codes, latents: np.ndarray, *, n_planes: int = 3, at_most: int = 5000, seed: int = 0
) -> GroupShape:
    """The shape of what a group of latents writes, plane by plane: components 1-2, 2-3, and so on.

    Raises
    ------
    InputError
        The group fires on fewer than 50 tokens, or writes along one line only.
    """
    rows, made = written_by(coder, codes, np.asarray(latents))
    if len(rows) < 50:
        raise InputError(
            f"latents {list(latents)[:6]} fire on {len(rows)} tokens; a shape needs 50: bring more texts"
        )
    picked = np.sort(np.random.default_rng(seed).permutation(len(rows))[:at_most])
    points = made[picked]
    centred = points - points.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    rank = int((s > 1e-8 * s[0]).sum())
    if rank < 2:
        raise InputError(f"latents {list(latents)[:6]} write along one line: there is no plane")
    found = []
    for first in range(min(n_planes, rank - 1)):
        flat = (u * s)[:, first : first + 2]
        parts = separability(flat), mixture_index(flat), find_circle(flat, n_components=2)
        found.append([float(p.value) for p in parts] + [float(np.asarray(parts[0].chance))])
    table = np.array(found)
    power = (s.square() / s.square().sum()).numpy()
    tokens: tuple[int, ...] = ()
    if codes.tokens is not None:
        weight = np.bincount(codes.ids[rows], weights=made.norm(dim=1).numpy())
        tokens = tuple(int(t) for t in np.argsort(-weight, kind="stable")[:12] if weight[t] > 0)
    return GroupShape(
        name="shape of a group",
        value=table[:, 0],
        n=len(picked),
        convention="separability index of principal planes, nats",
        chance=table[:, 3],
        axes=("plane",),
        ticks=(tuple(f"{i + 1}-{i + 2}" for i in range(len(table))),),
        mixture=table[:, 1],
        roundness=table[:, 2],
        irreducible=(1 - table[:, 1]) * table[:, 0],
        variance=power[: len(table) + 1],
        tokens=tokens,
        provenance={"latents": [int(j) for j in latents], "seed": seed, "tokens_fired_on": len(rows)},
    )
