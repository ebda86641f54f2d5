"""Activations: tensors by site, with the positions, the mask and where they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from interp.errors import InputError, SiteError, nearest
from interp.runs.provenance import digest
from interp.showing import Shown, brief
from interp.sites import ALIASES, Site

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Activations"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activations(Shown, Mapping[Site, Tensor]):
    """What a model held at the sites that were asked for.

    ``tensors`` in forward order, each with the batch first and (at sites that have positions) the
    positions second. ``mask`` [batch, pos] says which of the kept positions are real tokens,
    ``positions`` [batch, pos] where they stood in the sequence; both None where the model's input
    has no positions. A tensor may share memory with another (a block's output is the next block's
    input): treat them as read-only.
    """

    tensors: dict[Site, Tensor]
    mask: Bool[Tensor, "batch pos"] | None = None
    positions: Int[Tensor, "batch pos"] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The captured sites in forward order."""
        return tuple(self.tensors)

    def __getitem__(self, site: str | Site) -> Tensor:
        key = Site.parse(site)
        if key in self.tensors:
            return self.tensors[key]
        if isinstance(site, str) and site in ALIASES:
            return self[ALIASES[site]]
        if key.head is not None and key.whole in self.tensors:
            whole = self.tensors[key.whole]
            axis = key.head_axis
            assert axis is not None  # a Site with a head has a head axis
            if key.head >= whole.shape[axis]:
                raise SiteError(f"{key.whole} has {whole.shape[axis]} heads; head {key.head} was asked for")
            return whole.select(axis, key.head)
        names = [str(s) for s in self.tensors]
        raise SiteError(
            f"{str(key)!r} was not captured; {len(names)} sites were: {', '.join(names[:6])}"
            f"{', ...' if len(names) > 6 else ''}{nearest(str(key), names)}"
        )

    def __contains__(self, site: object) -> bool:
        if not isinstance(site, str | Site):
            return False
        return Site.parse(site) in self.tensors or (site in ALIASES and ALIASES[str(site)] in self)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def rows(self, site: str | Site, *, masked: bool = True) -> Shaped[Tensor, "row ..."]:
        """The site's rows [row, ...], one a token, batch after batch; padding left out unless ``masked=False``.

        Raises
        ------
        InputError
            If the site has no position axis (attention scores and patterns).
        """
        value, key = self[site], Site.parse(site)
        if key.axes is not None and "query" in key.axes:
            raise InputError(f"{key} has axes {list(key.axes)}: it has no row per token")
        if self.mask is None or value.ndim < 3 or value.shape[:2] != self.mask.shape:
            return value
        return value[self.mask.to(value.device)] if masked else value.flatten(0, 1)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Activations:
        """The same activations on another device or in another float type."""
        moved = {
            s: t.to(device=device, dtype=dtype if t.is_floating_point() else None)
            for s, t in self.tensors.items()
        }
        return Activations(
            tensors=moved, mask=self.mask, positions=self.positions, provenance=self.provenance
        )

    def _facts(self) -> dict[str, Any]:
        size = sum(t.numel() * t.element_size() for t in self.tensors.values())
        said: dict[str, Any] = {"sites": len(self), "size": f"{size / 2**20:.1f} MiB"}
        if self.mask is not None:
            said["tokens"] = f"{int(self.mask.sum())} real, {list(self.mask.shape)} with padding"
        return said | ({"provenance": digest(self.provenance)} if self.provenance else {})

    def _listing(self) -> pd.DataFrame:
        import pandas as pd

        rows = [
            (str(site), str(list(t.shape)), str(t.dtype).removeprefix("torch."), str(t.device))
            for site, t in self.tensors.items()
        ]
        return pd.DataFrame(rows, columns=pd.Index(["site", "shape", "dtype", "device"]))

    def __repr__(self) -> str:
        size = sum(t.numel() * t.element_size() for t in self.tensors.values())
        lines = [f"Activations({len(self)} sites, {size / 2**20:.1f} MiB)"]
        for site, tensor in list(self.tensors.items())[:4]:
            lines.append(
                f"  {brief(str(site))}  {list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            )
        if len(self) > 4:
            lines.append(f"  ... {len(self) - 4} more")
        return "\n".join(lines)
