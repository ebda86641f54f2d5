"""Training: the profile of a model over its checkpoints, and the phases that rank and decay of its spectrum go through.

In language models three were found: at first the representation collapses, then it spreads over more directions
(rank up, decay flatter), then it is compressed into fewer (rank down, decay steeper).

References
----------
Li et al. 2025, "Tracing the representation geometry of language models from pretraining to post-training".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from interp.errors import InputError, nearest
from interp.metrics.declared import outcome
from interp.metrics.profiles import layer_profile
from interp.results import Result

__all__ = ["training_phases", "training_profile"]


def training_profile(
    checkpoints: Mapping[Any, Any], tokens: Any, sites: Any = None, **options: Any
) -> dict[str, Result]:
    """:func:`interp.metrics.layer_profile` over checkpoints: quantity -> Result along ``step`` and ``site``.

    Parameters
    ----------
    checkpoints
        Step -> a model, a module, a folder or name for ``interp.load``, or a function of no argument that makes one
        (with the last two one model is in memory at a time). ``interp.toys.mini_checkpoints()`` is such a mapping, and
        ``{c.epoch: run.at(c) for c in run.checkpoints}`` of a group network's run.
    **options
        Passed to ``layer_profile``: labels, positions, quantities, a baseline ...
    """
    import interp

    if not checkpoints:
        raise InputError("there are no checkpoints")
    steps, profiles = [], []
    for step, held in checkpoints.items():
        made = held if isinstance(held, str | Path | nn.Module) or hasattr(held, "capture") else held()
        network = made if hasattr(made, "capture") else interp.load(made)
        profiles.append(layer_profile(network, tokens, sites, **options))
        steps.append(str(step))
    return {name: _stacked(name, steps, [profile[name] for profile in profiles]) for name in profiles[0]}


def _stacked(name: str, steps: list[str], along: list[Result]) -> Result:
    first = along[0]

    def field(which: str) -> np.ndarray | None:
        held = [getattr(r, which) for r in along]
        return None if any(v is None for v in held) else np.stack([np.asarray(v, dtype=float) for v in held])

    value = field("value")
    assert value is not None  # every Result has one
    return outcome(
        name, value, n=first.n, d=int(np.max(first.provenance["d"])), stderr=field("stderr"), chance=field("chance"),
        axes=("step", "site"), ticks=(tuple(steps), first.ticks[0]), convention=first.convention.rpartition("; n/d")[0],
        reason="; ".join(sorted({r.reason for r in along if r.reason})) or None,
    )  # fmt: skip


def training_phases(
    profile: Mapping[str, Result],
    site: Any = None,
    *,
    rank: str = "RankMe",
    decay: str = "alpha-ReQ",
    z: float = 1.96,
) -> Result:
    """What rank and spectral decay do between successive checkpoints at one site: their relative changes, and a name.

    Parameters
    ----------
    profile
        From :func:`training_profile`, with both quantities.
    site
        The last one by default.
    z
        Standard errors that a change must exceed to count.

    Returns
    -------
    Result
        ``.value`` [interval, quantity]: change of log rank and of log decay; ``.stderr`` from the errors of both ends
        (taken as independent: the checkpoints read the same tokens, so it is on the safe side).
        ``.provenance["phase"]``, an entry an interval: ``"expansion"`` (rank up or decay flatter, neither the
        other way), ``"compression"`` (the reverse), ``"mixed"`` (they disagree), ``"level"`` (no change
        beyond the error).
    """
    for name in (rank, decay):
        if name not in profile:
            raise InputError(
                f"the profile lacks {name!r}{nearest(name, profile)}; ask training_profile for it"
            )
    steps, sites = profile[rank].ticks
    where = sites[-1] if site is None else str(site)
    if where not in sites:
        raise InputError(f"no site {where!r} in this profile{nearest(where, sites)}")
    if len(steps) < 2:
        raise InputError("phases need at least two checkpoints")
    column = sites.index(where)
    logs, spread = [], []
    for name in (rank, decay):
        value = np.asarray(profile[name].value, dtype=float)[:, column]
        error = profile[name].stderr
        logs.append(np.log(value))
        spread.append(
            np.zeros(len(steps)) if error is None else np.asarray(error, dtype=float)[:, column] / value
        )
    change = np.diff(np.array(logs)).T
    error = np.sqrt(np.square(spread)[:, 1:] + np.square(spread)[:, :-1]).T
    phase = [_phase(*row) for row in (np.sign(change) * (np.abs(change) > z * error)).tolist()]
    return outcome(
        f"phases at {where}", change, n=profile[rank].n, d=int(np.max(profile[rank].provenance["d"])), stderr=error,
        chance=0.0, axes=("interval", "quantity"),
        ticks=(tuple(f"{a} to {b}" for a, b in zip(steps, steps[1:], strict=False)), (rank, decay)),
        convention=f"change of the logarithm; a phase is named where a change exceeds {z:g} standard errors",
        provenance={"phase": phase},
    )  # fmt: skip


def _phase(rank: float, decay: float) -> str:
    if rank == decay == 0:
        return "level"
    if rank >= 0 >= decay:
        return "expansion"
    return "compression" if rank <= 0 <= decay else "mixed"
