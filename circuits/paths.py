"""Path patching: what the metric does when chosen edges, or the paths they form, carry another run's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from circuits.exact import Bench, benches
from circuits.layout import GQA, Layout
from circuits.passes import Swap, patched_logits
from circuits.references import ABLATIONS, Ablation
from circuits.stream import Stream
from interp.errors import InputError
from interp.results import Result

__all__ = ["PathEffect", "path_patch"]

Mode = Literal["edges", "paths"]
_SAID = {
    "edges": "every chosen edge carries {other}, everything behind it follows",
    "paths": (
        "senders' edges carry {other}; along the chosen edges it is handed on, every other edge carries its clean term"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PathEffect(Result):
    """``value`` [set]: mean change of the metric."""

    patched: np.ndarray
    """[set, example]"""
    clean: np.ndarray
    """[example]"""
    sets: tuple[tuple[str, ...], ...]


def path_patch(
    model: Any,
    task: Any,
    edges: Sequence[str] | Sequence[Sequence[str]],
    *,
    mode: Mode = "edges",
    positions: Sequence[int] | None = None,
    ablation: Ablation = "corrupted",
    gqa: GQA = "ungrouped",
    batch_size: int | None = None,
    budget: float = 2e9,
) -> PathEffect:
    """Patch sets of edges exactly, many sets in one batch, each from the first layer that it changes.

    Parameters
    ----------
    edges
        Edge names, or several lists of them (each is one intervention).
    mode
        ``"edges"``: each of them carries its source's corrupted term. ``"paths"``: together they are paths; where a
        path begins its source is corrupted, on its way the nodes are computed anew, and nothing else may change.
    positions
        Patch the sources' terms at these positions only.

    Raises
    ------
    InputError
        A name that is no edge, or no edges at all.

    References
    ----------
    Wang et al. 2023, "Interpretability in the wild", section 3; Goldowsky-Dill et al. 2023, "Localizing model behavior
    with path patching".
    """
    if mode not in _SAID:
        raise InputError(f"mode={mode!r}; it is one of {list(_SAID)}")
    given = [edges] if len(edges) and isinstance(edges[0], str) else list(edges)
    if not given:
        raise InputError("there are no edges to patch")
    stream = Stream(model, gqa=gqa)
    layout = stream.layout
    masks = np.stack([layout.mask(list(one)) for one in given])
    clean, patched = [], []
    for bench in benches(stream, task, ablation=ablation, batch_size=batch_size, budget=budget):
        where = _where(positions, bench.clean.resid[0].shape[1])
        clean.append(bench.ends().cpu().numpy())
        size = bench.at_once(len(layout.sources))
        parts = [
            _patched(bench, layout, torch.from_numpy(masks[i : i + size]), mode, where)
            for i in range(0, len(masks), size)
        ]
        patched.append(torch.cat(parts).cpu().numpy())
    base, moved = np.concatenate(clean), np.concatenate(patched, axis=1)
    change = moved - base
    names = tuple(tuple(layout.name(int(e)) for e in np.flatnonzero(mask)) for mask in masks)
    return PathEffect(
        name="path patching effect",
        value=change.mean(1),
        stderr=change.std(1, ddof=1) / len(base) ** 0.5 if len(base) > 1 else None,
        n=len(base),
        convention=f"change of the metric; {_SAID[mode].format(other=ABLATIONS[ablation])}",
        chance=0.0,
        axes=("set",),
        ticks=(tuple(_label(one) for one in names),),
        provenance={"model": model.name, "backend": model.backend, "mode": mode, "ablation": ablation},
        patched=moved,
        clean=base,
        sets=names,
    )


def _label(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _where(positions: Sequence[int] | None, n: int) -> torch.Tensor | None:
    if positions is None:
        return None
    if any(not -n <= p < n for p in positions):
        raise InputError(f"positions {list(positions)}: the prompts have {n} positions, 0-{n - 1}")
    where = torch.zeros(n)
    where[list(positions)] = 1
    return where


def _patched(
    bench: Bench, layout: Layout, masks: torch.Tensor, mode: Mode, where: torch.Tensor | None
) -> torch.Tensor:
    if mode == "edges":
        return bench.cut(masks, where=where)
    begins = torch.stack([_begins(layout, mask) for mask in masks.numpy()])
    device = bench.clean.resid[0].device
    logits = patched_logits(
        bench.stream,
        bench.clean,
        [
            Swap(mask=begins.to(device), source=bench.other, where=where),
            Swap(mask=~masks.to(device), source=bench.clean.writes),
        ],
        position=bench.question.position,
        first=0,
    )
    return bench.question.score(logits)


def _begins(layout: Layout, mask: np.ndarray) -> torch.Tensor:
    """The edges whose source no other chosen edge leads to."""
    entered = {s for d in np.unique(layout.destination[mask]) for s in layout.feeds[d]}
    return torch.from_numpy(mask & ~np.isin(layout.source, list(entered)))
