"""Parts: which nodes are scored at which sites, what they are called, and how a site's change is shared among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries import Dictionary
from interp.errors import InputError
from interp.sites import Site

__all__ = ["Table", "parts_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The sites that are scored, in forward order, with the nodes of each."""

    sites: tuple[Site, ...]
    corrected: frozenset[Site]
    """Queries and keys, whose effect is taken through the recomputed softmax."""
    names_at: Mapping[Site, tuple[str, ...]]
    dictionaries: Mapping[Site, Dictionary]
    neurons: bool

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All nodes in order."""
        return tuple(name for site in self.sites for name in self.names_at[site])

    @cached_property
    def plain(self) -> tuple[Site, ...]:
        """Sites whose own gradient is asked."""
        return tuple(site for site in self.sites if site not in self.corrected)

    @cached_property
    def asked(self) -> tuple[Site, ...]:
        """Sites at which the metric's gradient is needed: the plain ones, and the patterns of the corrected ones."""
        layers = sorted({site.layer for site in self.corrected if site.layer is not None})
        return (*self.plain, *(Site(kind="pattern", layer=layer) for layer in layers))

    def width(self, site: Site) -> int:
        """How many nodes a site has."""
        return len(self.names_at[site])

    def scored(self, site: Site, clean: Tensor, other: Tensor, slope: Tensor, positions: bool) -> Tensor:
        """[row node (pos)] the change of each node along the slope."""
        dictionary = self.dictionaries.get(site)
        if dictionary is None:
            return self.summed(site, (other - clean).double() * slope.double(), positions)
        return _by_latent(dictionary, clean, other, slope, positions)

    def summed(self, site: Site, product: Tensor, positions: bool) -> Tensor:
        """[row node (pos)] of products [row pos ...] (or [row head query key]) at a site."""
        if "query" in (site.axes or ()):
            found = product.sum(-1)  # row head query
        elif site.head_axis is not None:
            found = product.sum(-1).transpose(1, 2)
        elif self.neurons:
            found = product.transpose(1, 2)
        else:
            found = product.sum(-1)[:, None]
        return found if positions else found.sum(-1)


@torch.no_grad()
def _by_latent(
    dictionary: Dictionary, clean: Tensor, other: Tensor, slope: Tensor, positions: bool
) -> Tensor:
    """Latents [row latent (pos)], then what they leave over: (other - clean) of each along the slope.

    A latent's slope is that of the decoder's output carried back through the decoder at the clean codes.
    """
    before, after = dictionary.encode(clean), dictionary.encode(other)
    with torch.enable_grad():
        codes = before.detach().requires_grad_(True)
        made = dictionary.decode(codes)
        (carried,) = torch.autograd.grad(made, codes, slope.to(made))
    latents = ((after - before).double() * carried.double()).transpose(1, 2)
    rest = (other - dictionary.decode(after)) - (clean - made.detach())
    left = (rest.double() * slope.double()).sum(-1)[:, None]
    found = torch.cat([latents, left], dim=1)
    return found if positions else found.sum(-1)


def parts_of(
    model: Any, sites: Any, dictionaries: Mapping[str, Dictionary], *, neurons: bool, corrected: bool
) -> Table:
    """The table for some sites; by default heads' outputs and MLPs, with queries and keys where they are corrected.

    Raises
    ------
    InputError
        A dictionary at a site with heads, or one that has no encode and decode.
    """
    coded = {model.find(name)[0]: dictionary for name, dictionary in dictionaries.items()}
    if sites is None:
        kinds = ("z", "mlp_out") + (("q", "k") if corrected else ())
        found = [s for s in model.sites if s.kind in kinds and s not in model.inert]
    else:
        found = [s.whole for s in model.find(sites)]
    order = list(dict.fromkeys([*found, *coded]))
    order.sort(key=model.rank)
    names = {}
    for site in order:
        if site in coded and (site.head_axis is not None or not isinstance(coded[site], Dictionary)):
            raise InputError(
                f"the dictionary at {site} cannot be used: "
                + ("the site has heads" if site.head_axis is not None else "it has no encode and decode")
            )
        names[site] = _names(model, site, coded.get(site), neurons)
    return Table(
        sites=tuple(order),
        corrected=frozenset(s for s in order if corrected and s.kind in ("q", "k")),
        names_at=names,
        dictionaries=coded,
        neurons=neurons,
    )


def _names(model: Any, site: Site, dictionary: Dictionary | None, neurons: bool) -> tuple[str, ...]:
    base = {"mlp_out": f"m{site.layer}", "mlp_post": f"m{site.layer}"}.get(site.kind, str(site))
    if dictionary is not None:
        zero = torch.zeros(1, model.width(site), dtype=model.dtype, device=model.device)
        n = dictionary.encode(zero).shape[-1]
        return (*(f"{base}.f{i}" for i in range(n)), f"{base}.error")
    if site.head_axis is not None:
        n, port = model.sites.n_heads(site) or 0, "" if site.kind == "z" else f"<{site.kind}>"
        group = "kv" if site.kind in ("k", "v") and n != (model.n_heads or n) else "h"
        return tuple(f"a{site.layer}.{group}{head}{port}" for head in range(n))
    if neurons:
        return tuple(f"{base}.n{i}" for i in range(model.width(site)))
    return (base,)
