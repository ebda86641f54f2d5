"""Splicing: a pass in which a dictionary's codes, or what it leaves over, are changed while all else runs on.

At a *place* the activation is what the dictionary decodes plus an error, both taken from the pass as it stands;
changing codes adds only the difference they decode to, so an unchanged code changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries import Dictionary
from interp.edits import Edit, edit
from interp.errors import InputError
from interp.sites import Site

__all__ = ["Codes", "Place", "codes_of", "places_of", "shifted"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """Where a dictionary reads and writes: the same site, or the input and the output of what a transcoder replaces."""

    read: Site
    write: Site
    dictionary: Dictionary

    @property
    def name(self) -> str:
        """The site that is written."""
        return str(self.write)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codes:
    """A run at one place."""

    z: Tensor
    """[row pos latent]"""
    error: Tensor
    """[row pos d] what is written minus what the codes decode to."""
    written: Tensor
    """[row pos d]"""


def places_of(model: Any, dictionaries: Mapping[Any, Dictionary]) -> tuple[Place, ...]:
    """The places in forward order. Keys are sites, or pairs (read, written) for transcoders.

    Raises
    ------
    InputError
        No dictionary, or one whose width is not its site's.
    SiteError
        A site that the model does not have.
    """
    if not dictionaries:
        raise InputError("there are no dictionaries: give {site: coder}")
    places = []
    for key, dictionary in dictionaries.items():
        read, write = key if isinstance(key, tuple) else (key, key)
        ((first,), (second,)) = model.find(read), model.find(write)
        probe = torch.zeros(1, model.width(first), dtype=model.dtype, device=model.device)
        try:
            with torch.no_grad():
                out = dictionary.decode(dictionary.encode(probe))
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"the dictionary at {first} does not take rows of {model.width(first)} features: {error}"
            ) from error
        if out.shape[-1] != model.width(second):
            raise InputError(
                f"the dictionary at {first} decodes to {out.shape[-1]} features; {second} has {model.width(second)}"
            )
        places.append(Place(read=first, write=second, dictionary=dictionary))
    order = {site: i for i, site in enumerate(model.sites)}
    return tuple(sorted(places, key=lambda place: order[place.write]))


@torch.no_grad()
def codes_of(
    model: Any, tokens: Any, places: Sequence[Place], *, edits: Sequence[Edit] = ()
) -> tuple[Codes, ...]:
    """A run's codes and errors at every place. Cost: one forward pass."""
    acts = model.capture(tokens, [s for place in places for s in (place.read, place.write)], edits=edits)
    found = []
    for place in places:
        z = place.dictionary.encode(acts[place.read])
        written = acts[place.write]
        found.append(Codes(z=z, error=written - place.dictionary.decode(z), written=written))
    return tuple(found)


def shifted(
    place: Place,
    codes: Callable[[Tensor], Tensor] | None = None,
    error: Callable[[Tensor], Tensor] | None = None,
) -> list[Edit]:
    """The edits that put ``codes(z)`` for the pass's codes and ``error(e)`` for its error at a place."""
    held: dict[str, Tensor] = {}

    def seen(x: Tensor) -> Tensor:
        held["z"] = place.dictionary.encode(x)
        return x

    def put(y: Tensor) -> Tensor:
        if place.read == place.write:
            seen(y)
        z = held["z"]
        now = place.dictionary.decode(z)
        left = y - now
        after = y if codes is None else place.dictionary.decode(codes(z)) + left
        return after if error is None else after - left + error(left)

    made = [] if place.read == place.write else [edit(place.read, seen, name="codes")]
    return [*made, edit(place.write, put, name="splice")]
