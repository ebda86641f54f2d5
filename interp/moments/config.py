"""What a Moments keeps, and how many bytes that takes: known before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any

import torch

from interp.errors import InputError, SiteError, nearest
from interp.sites import Site

__all__ = ["GROUPS", "MomentsConfig", "size_text"]

GROUPS = 32
"""Groups of blocks over which the block estimate is jackknifed."""

_PRODUCTS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsConfig:
    """The sites, their widths, and which sums are kept; raises if they cannot be."""

    sites: tuple[str, ...]
    widths: tuple[int, ...]
    cross: tuple[tuple[str, str], ...] = ()
    """Pairs of different sites whose cross-product is kept."""
    twin: bool = True
    """Also the second moment of the rows scaled to length 1 (entropy, cosines)."""
    block: int = 256
    """Rows a block of the minibatch HSIC; 0 keeps none."""
    n_classes: int = 0
    """Classes whose counts, sums and norms are kept."""
    parts: int = 1
    """Separate sums, dealt chunk by chunk, for the delete-a-part jackknife."""
    products: str = "float32"
    """The float type in which rows are multiplied; sums are float64 always."""
    chunk: int = 2048
    """Rows multiplied at once; results do not depend on how updates were cut, since rows wait until a chunk is full."""

    def __post_init__(self) -> None:
        if not self.sites or len(set(self.sites)) != len(self.sites) or len(self.sites) != len(self.widths):
            raise InputError(f"moments need distinct sites with a width each; got {list(self.sites)}")
        if min(self.widths) < 1 or self.parts < 1 or self.n_classes < 0:
            raise InputError(
                f"widths and parts are at least 1, n_classes 0; got {self.widths}, {self.parts}, {self.n_classes}"
            )
        if self.block and (self.block < 4 or self.chunk % self.block):
            raise InputError(
                f"block = {self.block}: HSIC_1 needs 4 rows a block, and a chunk ({self.chunk} rows) whole blocks"
            )
        if self.chunk < 4:
            raise InputError(f"chunk = {self.chunk}; at least 4 rows are multiplied at once")
        if self.products not in _PRODUCTS:
            raise InputError(f"products = {self.products!r}{nearest(self.products, _PRODUCTS)}")
        for pair in self.cross:
            for name in pair:
                if name not in self.sites:
                    raise SiteError(f"cross block with {name!r}, not a site here{nearest(name, self.sites)}")

    @classmethod
    def of(
        cls, widths: Mapping[Any, int], cross: bool | Sequence[tuple[Any, Any]], **rest: Any
    ) -> MomentsConfig:
        """A configuration from site -> width; ``cross`` True keeps every pair."""
        sites = tuple(str(site) for site in widths)
        order = {site: i for i, site in enumerate(sites)}
        if cross is True:
            pairs = [(a, b) for a, b in combinations_with_replacement(sites, 2) if a != b]
        else:
            asked = [(_name(a), _name(b)) for a, b in cross or ()]
            pairs = sorted(
                {(a, b) if order.get(a, -1) < order.get(b, -1) else (b, a) for a, b in asked if a != b}
            )
        return cls(sites=sites, widths=tuple(map(int, widths.values())), cross=tuple(pairs), **rest)

    @property
    def dtype(self) -> torch.dtype:
        """The float type of products."""
        return _PRODUCTS[self.products]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All blocks kept: every site with itself, then the cross pairs."""
        return (*((site, site) for site in self.sites), *self.cross)

    @property
    def n_bytes(self) -> int:
        """Bytes that the sums take, with the chunk of waiting rows and one product in flight."""
        width = dict(zip(self.sites, self.widths, strict=True))
        blocks = sum(width[a] * width[b] for a, b in self.pairs)
        twin = sum(d * d for d in self.widths) if self.twin else 0
        classes = self.n_classes * sum(self.widths)
        vectors = 8 * sum(self.widths) + 2 * sum(width[a] + width[b] for a, b in self.pairs)
        sums = 8 * self.parts * (blocks + twin + classes + vectors) + 8 * GROUPS * len(self.sites) ** 2
        itemsize = self.dtype.itemsize
        waiting = 2 * itemsize * self.chunk * sum(self.widths)
        grams = itemsize * self.chunk * self.block * len(self.sites)
        return sums + waiting + grams + itemsize * max(self.widths) ** 2

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> MomentsConfig:
        """Back from :meth:`record` (lists for tuples)."""
        given: dict[str, Any] = dict(record)
        given["sites"], given["widths"] = tuple(given["sites"]), tuple(given["widths"])
        given["cross"] = tuple((str(a), str(b)) for a, b in given["cross"])
        return cls(**given)


def _name(site: str | Site) -> str:
    return str(site)


def size_text(n_bytes: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
