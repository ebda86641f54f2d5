"""Rows to train on: a tensor or one site of an activation store, read by index, never changed, never all copied."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.sites import Site

__all__ = ["RowSource", "batch_indices", "moments_of", "row_source"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowSource:
    """``n`` rows of width ``d``, drawn by index."""

    n: int
    d: int
    draw: Callable[[Tensor], Tensor]
    """Indices [sample] -> rows [sample, d] float32."""
    place: str
    """Where they come from, for messages and provenance."""

    def fingerprint(self) -> str:
        """SHA-256 over the shape and 256 evenly spaced rows: tells other data apart without reading everything."""
        picked = self.draw(torch.linspace(0, self.n - 1, min(self.n, 256)).long())
        head = f"{self.n},{self.d};".encode()
        return hashlib.sha256(head + picked.cpu().contiguous().numpy().tobytes()).hexdigest()


def row_source(data: Any, site: Any = None) -> RowSource:
    """``data`` as a :class:`RowSource`.

    Parameters
    ----------
    data
        A tensor [sample, d] or [sample, site, d], or an :class:`interp.ActivationStore` (then ``site`` says which;
        needless if it has one; several are laid side by side).

    Raises
    ------
    InputError
        No matrix of floats, too few rows, or a store with several sites and none chosen.
    """
    if isinstance(data, Tensor):
        if (
            data.ndim not in (2, 3)
            or not data.is_floating_point()
            or data.shape[0] < 2
            or not data[0].numel()
        ):
            raise InputError(
                f"rows to train on are floats [sample, d]; got {data.dtype} {list(data.shape)}"
                " (flatten batch and positions first, e.g. with Activations.rows)"
            )
        rows = data.detach().flatten(1)
        return RowSource(
            n=rows.shape[0],
            d=rows.shape[1],
            place="tensor",
            draw=lambda i: rows.index_select(0, i.to(rows.device)).float(),
        )
    if hasattr(data, "n_rows") and hasattr(data, "rows"):
        sites = [str(s) for s in data.sites]
        if site is None and len(sites) != 1:
            raise InputError(f"the store holds {len(sites)} sites; say site= one of {sites}")
        asked = sites[:1] if site is None else [site] if isinstance(site, str | Site) else list(site)
        names = [str(name) for name in asked]
        for name in names:
            if name not in sites:
                raise InputError(f"the store holds no site {name!r}; it holds {sites}{nearest(name, sites)}")

        def draw(indices: Tensor) -> Tensor:
            parts = [torch.as_tensor(data.rows(name, indices)).flatten(1).float() for name in names]
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

        width = draw(torch.zeros(1, dtype=torch.long)).shape[1]
        return RowSource(n=int(data.n_rows), d=width, place=", ".join(names), draw=draw)
    raise InputError(
        f"cannot train on a {type(data).__name__}; give a tensor [sample, d] or an ActivationStore"
    )


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> Int64[Tensor, "sample"]:
    """The rows of ``step``: a pure function of its arguments, so that a resumed run reads what it would have read.

    Each pass over the data has its own order; the rows that do not fill a last batch are left for another pass.
    """
    per_pass = n // batch_size
    if per_pass == 0:
        raise InputError(
            f"there are {n} rows, fewer than one batch of {batch_size}; lower batch_size or bring more data"
        )
    epoch, place = divmod(step, per_pass)
    order = _order(n, seed, epoch)
    return order[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))


def moments_of(source: RowSource, seed: int, *, at_most: int = 8192) -> tuple[Float[Tensor, "d"], float]:
    """Mean, and root-mean-square deviation per coordinate, of a random sample of rows.

    Raises
    ------
    InputError
        Rows hold NaN or infinity, or are all the same.
    """
    order = torch.randperm(source.n, generator=torch.Generator().manual_seed(seed))[:at_most]
    rows = source.draw(order).double()
    if not bool(torch.isfinite(rows).all()):
        bad = int((~torch.isfinite(rows).all(1)).sum())
        raise InputError(f"{bad} of {len(rows)} sampled rows of {source.place} hold NaN or infinity")
    mean = rows.mean(0)
    scale = float((rows - mean).square().mean().sqrt())
    if scale <= 1e-12 * max(1.0, float(mean.abs().max())):
        raise InputError(f"every sampled row of {source.place} is the same; there is nothing to learn")
    return mean.float(), scale
