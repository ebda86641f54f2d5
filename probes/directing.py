"""A probe as a handle: its direction at a site, and the edits that push, remove or carry over what lies along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import Activations
from interp.directions import Direction
from interp.edits import Edit, edit
from interp.errors import InputError
from interp.frames import Frame, window
from interp.showing import Shown
from interp.sites import Site

__all__ = ["ProbeDirection", "ablate", "direction", "patch_along", "steer"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ProbeDirection(Shown):
    """A probe's :class:`interp.Direction`."""

    site: str | Site
    vector: Float[Tensor, " d"]
    origin: Float[Tensor, " d"]
    """The mean row of the probe's training set: where along the direction nothing is said."""
    name: str


def direction(probe: Any, site: str | Site, *, of: Any = None) -> ProbeDirection:
    """What a fitted linear probe reads at ``site``: its weights for class ``of`` against the others.

    Without ``of`` the second of two classes. For :class:`probes.MassMeanProbe` this is the difference of means. Of a
    regressor the weights of target ``of``, counted from 0: upwards.

    Raises
    ------
    InputError
        The class or target is unknown, or there are several and none was named.
    """
    weights = np.asarray(probe.coef_, dtype=np.float64)
    if not hasattr(probe, "classes_"):
        return _upwards(probe, np.atleast_2d(weights), site, of)
    classes = list(probe.classes_)
    if of is None and len(classes) > 2:
        raise InputError(
            f"the probe knows {len(classes)} classes; say of which the direction is wanted: {classes[:10]}"
        )
    if of is not None and of not in classes:
        raise InputError(f"the probe knows no class {of!r}; its classes are {classes[:10]}")
    chosen = len(classes) - 1 if of is None else classes.index(of)
    if len(weights) == 1:
        vector = weights[0] if chosen == 1 else -weights[0]
    else:
        vector = weights[chosen] - np.delete(weights, chosen, 0).mean(0)
    return _made(probe, vector, site, classes[chosen])


def _upwards(probe: Any, weights: np.ndarray, site: str | Site, of: Any) -> ProbeDirection:
    if of is None and len(weights) > 1:
        raise InputError(
            f"the probe predicts {len(weights)} numbers; say of which the direction is wanted, from 0"
        )
    chosen = 0 if of is None else of
    if chosen not in range(len(weights)):
        raise InputError(
            f"the probe knows no target {of!r}; it predicts {len(weights)} numbers, counted from 0"
        )
    return _made(probe, weights[chosen], site, chosen)


def _made(probe: Any, vector: np.ndarray, site: str | Site, what: Any) -> ProbeDirection:
    if not np.abs(vector).max() > 0:
        raise InputError(f"the probe's weights at {site} are zero: it has no direction")
    return ProbeDirection(
        site=site,
        vector=torch.as_tensor(vector),
        origin=torch.as_tensor(np.asarray(probe.mean_, dtype=np.float64)),
        name=f"{type(probe).__name__}:{what}",
    )


def steer(along: Direction, amount: float, **where: Any) -> Edit:
    """Add ``amount`` (a length, in the site's units) times the unit direction; ``where`` as for :func:`interp.edit`."""
    unit = _unit(along)
    return edit(along.site, lambda x: x + amount * unit.to(x), name="steer", **where)


def ablate(along: Direction, *, origin: Tensor | None = None, **where: Any) -> Edit:
    """Set what lies along the direction to its value at ``origin`` (the training mean of a probe's; else zero)."""
    unit = _unit(along)
    at = origin if origin is not None else getattr(along, "origin", None)
    level = 0.0 if at is None else float(at.double() @ unit)
    return edit(
        along.site,
        lambda x: x - ((x @ unit.to(x)) - level)[..., None] * unit.to(x),
        name="ablate along",
        **where,
    )


def patch_along(along: Direction, source: Activations, **where: Any) -> Edit:
    """Carry over what another run held along the direction, token by token; the rest stays."""
    unit = _unit(along)

    def change(x: Tensor, site: Site, frame: Frame) -> Tensor:
        other = window(source[site].to(x), x, site, frame)
        return x + ((other - x) @ unit.to(x))[..., None] * unit.to(x)

    return Edit(sites=(along.site,), change=change, name="patch along", **where)


def _unit(along: Direction) -> Tensor:
    vector = along.vector.double()
    length = float(vector.norm())
    if not length > 0:
        raise InputError(f"the direction at {along.site} has length {length}")
    return vector / length
