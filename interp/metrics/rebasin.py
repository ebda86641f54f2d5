"""Re-basin: permute the units of one network so that its weights line up with another's, and walk between the two.

Two trained networks of one shape often differ, to good approximation, by a permutation of hidden units: once it is
undone the loss along the straight line between them hardly rises.

References
----------
Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin", algorithm 1 and section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from interp.errors import InputError
from interp.metrics.declared import outcome
from interp.metrics.matching import correlations
from interp.metrics.rows import Rows
from interp.results import Result

__all__ = ["loss_barrier", "match_activations", "match_weights", "mlp_units", "permuted"]

Units = Mapping[str, Sequence[tuple[str, int]]]
"""Group of interchangeable units -> the (parameter, axis) places that list them."""

Weights = Mapping[str, Tensor]


def mlp_units(module: nn.Sequential) -> dict[str, list[tuple[str, int]]]:
    """The hidden units of a plain chain of linear layers with elementwise functions between them."""
    linear = [name for name, part in module.named_children() if isinstance(part, nn.Linear)]
    if len(linear) < 2:
        raise InputError("a chain of at least two nn.Linear layers has hidden units to permute")
    units = {}
    for before, after in zip(linear, linear[1:], strict=False):
        units[before] = [(f"{before}.weight", 0), (f"{after}.weight", 1)]
        if module.get_submodule(before).bias is not None:
            units[before].append((f"{before}.bias", 0))
    return units


def permuted(weights: Weights, units: Units, orders: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function with unit i of each group standing where ``orders[group]`` says: new[i] = old[order[i]]."""
    out = dict(weights)
    for group, places in units.items():
        for name, axis in places:
            out[name] = out[name].index_select(axis, orders[group].to(out[name].device))
    return out


def match_weights(
    a: Weights, b: Weights, units: Units, *, seed: int = 0, max_sweeps: int = 100
) -> dict[str, Tensor]:
    """The order of ``b``'s units, group by group, that brings its weights closest to ``a``'s.

    Coordinate ascent over groups on the sum of <W_a, P W_b>, each step an exact assignment; groups are visited in
    random order until none changes. Give the result to :func:`permuted` with ``b``.
    """
    from scipy.optimize import linear_sum_assignment

    sizes = {group: a[places[0][0]].shape[places[0][1]] for group, places in units.items()}
    orders = {group: torch.arange(size) for group, size in sizes.items()}
    generator = torch.Generator().manual_seed(seed)
    names = list(units)
    for _ in range(max_sweeps):
        changed = False
        for index in torch.randperm(len(names), generator=generator).tolist():
            group = names[index]
            others = {g: places for g, places in units.items() if g != group}
            now = permuted(b, others, {g: orders[g] for g in others})
            gain = torch.zeros(sizes[group], sizes[group], dtype=torch.float64)
            for name, axis in units[group]:
                u, v = (
                    w[name].detach().movedim(axis, 0).reshape(sizes[group], -1).double().cpu()
                    for w in (a, now)
                )
                gain += u @ v.T
            found = torch.as_tensor(linear_sum_assignment(gain.numpy(), maximize=True)[1])
            rows = torch.arange(sizes[group])
            if float(gain[rows, found].sum()) > float(gain[rows, orders[group]].sum()) + 1e-12:
                orders[group], changed = found, True
        if not changed:
            break
    return orders


def match_activations(a: Mapping[str, Rows], b: Mapping[str, Rows]) -> dict[str, Tensor]:
    """The order of ``b``'s units whose activations correlate best with ``a``'s, for each group by itself."""
    from scipy.optimize import linear_sum_assignment

    return {
        group: torch.as_tensor(
            linear_sum_assignment(correlations(a[group], b[group]).numpy(), maximize=True)[1]
        )
        for group in a
    }


def loss_barrier(
    loss: Callable[[dict[str, Tensor]], float | Tensor], a: Weights, b: Weights, *, n_points: int = 11
) -> Result:
    """The loss along the straight line from ``a`` to ``b``; ``.provenance["barrier"]`` is its highest rise.

    Barrier: max over t of loss((1 - t) a + t b) - ((1 - t) loss(a) + t loss(b)), 0 where the line stays low.

    Parameters
    ----------
    loss
        Takes named weights (``torch.func.functional_call``) and returns nats or whatever it measures: a number, or one
        for each example [sample], from which errors follow.

    Returns
    -------
    Result
        Along ``t``. ``.chance``: the chord between the ends, which a path without a barrier keeps to.
        ``.provenance``: ``barrier``, and with losses by example its error ``barrier_stderr``.
    """
    if set(a) != set(b):
        raise InputError(f"the two networks have different weights: {sorted(set(a) ^ set(b))[:4]}")
    steps = np.linspace(0, 1, n_points)
    with torch.no_grad():
        held = [
            torch.as_tensor(loss({k: (1 - t) * a[k] + t * b[k] for k in a}))
            .detach()
            .double()
            .cpu()
            .reshape(-1)
            for t in steps
        ]
    each: Float64[np.ndarray, "t sample"] = torch.stack(held).numpy()
    chord = (1 - steps)[:, None] * each[0] + steps[:, None] * each[-1]
    rise, n = each - chord, each.shape[1]
    bad = [f"{t:.2f}" for t, losses in zip(steps, each, strict=True) if not np.isfinite(losses).all()]
    top = int(rise.mean(1).argmax())
    several = n > 1
    provenance: dict[str, float] = {"barrier": float(rise.mean(1)[top])}
    if several:
        provenance["barrier_stderr"] = float(rise[top].std(ddof=1) / n**0.5)
    return outcome(
        "loss along the interpolation", each.mean(1), n=n if several else n_points, d=1, axes=("t",),
        ticks=(tuple(f"{t:.2f}" for t in steps),), chance=chord.mean(1),
        stderr=each.std(1, ddof=1) / n**0.5 if several else None,
        no_stderr="the loss is one number: let it return one for each example",
        convention=f"loss of (1 - t) a + t b, {'examples' if several else 'points'} counted by n; chance: the chord;"
        " barrier: largest rise above it",
        provenance=provenance,
        reason=f"the loss is not finite at t = {', '.join(bad)}" if bad else None,
    )  # fmt: skip
