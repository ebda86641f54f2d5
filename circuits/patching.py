"""Activation patching: put one part's activations from one run into another; how much of the answer comes along?

:func:`patch_sweep` does it for every head (or every site) in turn, several of them in one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuits.effects import PatchResult, shared_out
from interp.activations import Activations
from interp.edits import Edit, ablate, patch
from interp.errors import InputError
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["MODES", "patch_sweep"]

Mode = Literal["denoise", "noise", "mean"]
MODES = ("denoise", "noise", "mean")
Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """The runs between which activations are moved."""

    model: Any
    metric: Metric
    base: Any
    """Tokens of the run that is patched."""
    source: Activations
    """What is put there."""
    mode: str
    position: Any
    batch_size: int

    def scores(self, group: Sequence[Site], n: int, source: Activations) -> np.ndarray:
        """[component, example] the metric with each component of ``group`` replaced, all in one pass."""
        index = torch.arange(n).repeat(len(group))
        edits = [self._edit(site, source, index, range(i * n, (i + 1) * n)) for i, site in enumerate(group)]
        logits = self.model.logits(_select(self.base, index), edits=edits, batch_size=self.batch_size)
        # the metric is shown the examples in their order, once for each component
        return torch.stack([_scored(self.metric, part) for part in logits.split(n)]).numpy()

    def _edit(self, site: Site, source: Activations, index: Tensor, rows: range) -> Edit:
        whole = site.whole
        if self.mode == "mean":
            return ablate(
                whole,
                how="mean",
                reference=source,
                over="position",
                head=site.head,
                row=rows,
                position=self.position,
            )
        value = source[whole]
        return patch(whole, value[index.to(value.device)], head=site.head, row=rows, position=self.position)


def patch_sweep(
    model: Any,
    clean: Any,
    corrupted: Any,
    metric: Metric,
    *,
    sites: Any = None,
    mode: Mode = "denoise",
    position: int | Sequence[int] | Literal["last"] | None = None,
    control: bool = False,
    batch_size: int = 32,
    n_draws: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> PatchResult:
    """The effect of patching every head (or site) by itself.

    Parameters
    ----------
    model
        A model of the toolkit.
    clean, corrupted
        Tokens (or what the model takes) of the same shape; row i of both are one pair, the same length in tokens.
    metric
        logits -> one number per example, e.g. the logit difference at the last position. It is called with all
        examples in their order, so it may index answers by row.
    sites
        Names, globs or Sites; a site with heads is taken head by head. By default every head's ``z``; without heads
        what each layer's attention, mixer and MLP write; without those every site that is listed.
    mode
        ``"denoise"``: clean into corrupted. ``"noise"``: corrupted into clean. ``"mean"``: mean over the clean runs
        (at each position) into clean.
    position
        Patch only there (``"last"``: each row's last real token); at all positions by default.
    control
        Also patch in the activations of another example, which should carry nothing (doubles the cost).
    batch_size
        Rows a forward pass; components are batched as far as they fit.
    n_draws
        Bootstrap draws over examples for the interval of the ratio of means.

    Returns
    -------
    PatchResult
        Ratio of means over examples. Where the clean and the corrupted metric do not differ, nan with the reason.

    Raises
    ------
    InputError
        Pairs of different shapes, or a metric that does not give one number per example.
    SiteError
        A site that cannot be edited.

    Notes
    -----
    Cost: components x examples forward passes of one example (twice with ``control``), and two for the ends. Effects
    of single parts need not add up to 1: parts can be redundant, or work only together.

    References
    ----------
    Zhang & Nanda 2024, "Towards best practices of activation patching".
    """
    if mode not in MODES:
        raise InputError(f"mode={mode!r}; it is one of {list(MODES)}")
    n = _paired(clean, corrupted)
    components = _components(model, sites)
    ends = [
        _scored(metric, model.logits(tokens, batch_size=batch_size)).numpy() for tokens in (clean, corrupted)
    ]
    if any(len(end) != n for end in ends):
        raise InputError(
            f"the metric gave {[len(e) for e in ends]} numbers for {n} examples; it must give one per example"
        )
    giver, taker = (clean, corrupted) if mode == "denoise" else (corrupted, clean)
    wholes = list(dict.fromkeys(site.whole for site in components))
    source = model.capture(clean if mode == "mean" else giver, wholes, batch_size=batch_size)
    plan = _Plan(
        model=model,
        metric=metric,
        base=taker,
        source=source,
        mode=mode,
        position=position,
        batch_size=batch_size,
    )
    patched = _swept(plan, components, n, source, progress)
    foreign = (
        _swept(plan, components, n, _shifted(source, n), progress)
        if control and n >= 3 and mode != "mean"
        else None
    )
    return shared_out(
        components, patched, foreign, ends, mode, n_draws=n_draws, seed=seed, provenance=_origin(model, seed)
    )


def _swept(plan: _Plan, components: Sequence[Site], n: int, source: Activations, shown: bool) -> np.ndarray:
    from interp.runs.progress import progress

    at_once = max(1, plan.batch_size // n)
    starts = range(0, len(components), at_once)
    parts = [
        plan.scores(components[s : s + at_once], n, source)
        for s in progress(
            starts, total=len(starts), desc="patching", unit="pass", enabled=None if shown else False
        )
    ]
    return np.concatenate(parts)


def _components(model: Any, sites: Any) -> list[Site]:
    """The asked sites, those with heads head by head."""
    found = model.find(sites) if sites is not None else _default_sites(model)
    out: list[Site] = []
    for site in found:
        if site.head is None and site.head_axis is not None:
            out.extend(replace(site, head=head) for head in range(model.sites.n_heads(site) or 0))
        else:
            out.append(site)
    return out


def _default_sites(model: Any) -> tuple[Site, ...]:
    for kinds in (("z",), ("attn_out", "mixer_out", "mlp_out")):
        found = tuple(site for site in model.sites if site.kind in kinds and site.whole not in model.inert)
        if found:
            return found
    return tuple(model.sites)


def _paired(clean: Any, corrupted: Any) -> int:
    """How many pairs there are; refuses pairs that do not line up token by token."""
    grids = [t.ids if isinstance(t, Tokens) else t for t in (clean, corrupted)]
    if not all(isinstance(grid, Tensor) for grid in grids):
        raise InputError(
            "clean and corrupted must be Tokens or tensors of ids; make them with model.tokens([...])"
        )
    shapes = [list(grid.shape) for grid in grids]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"clean has shape {shapes[0]} and corrupted {shapes[1]}; row i of both is one pair, token by token"
        )
    if isinstance(clean, Tokens) and isinstance(corrupted, Tokens):
        uneven = torch.nonzero((clean.mask != corrupted.mask).any(1)).flatten()
        if len(uneven):
            raise InputError(
                f"pair {int(uneven[0])} has {int(clean.lengths[uneven[0]])} clean and "
                f"{int(corrupted.lengths[uneven[0]])} corrupted tokens; patching needs pairs of one length"
            )
    return shapes[0][0]


def _scored(metric: Metric, logits: Tensor) -> Tensor:
    """The metric's numbers [example] in float64."""
    scores = metric(logits)
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the metric returned {got}; it must give one number per example [batch]")
    return scores.detach().double().cpu()


def _select(tokens: Any, index: Tensor) -> Any:
    return tokens.select(index) if isinstance(tokens, Tokens) else tokens[index]


def _shifted(source: Activations, n: int) -> Activations:
    """The activations with every row from another example, half the set away."""
    tensors = {site: value.roll(max(2, n // 2) % n or 1, dims=0) for site, value in source.tensors.items()}
    return Activations(
        tensors=tensors, mask=source.mask, positions=source.positions, provenance=source.provenance
    )


def _origin(model: Any, seed: int) -> dict[str, Any]:
    return {"model": model.name, "backend": model.backend, "seed": seed}
