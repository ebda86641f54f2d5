"""Flow: what moves from token to token. The metric when one position no longer reads another, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuits.questions import Question, asked, scored
from interp import edits
from interp.errors import InputError, ModelError
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["TokenFlow", "token_flow"]

How = Literal["value", "knockout"]
_SAID = {
    "value": "a layer's attention at position t is given the corrupted run's values of position s, at clean attention",
    "knockout": "a layer's attention at position t may not go to position s; the rest of it sums to 1",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TokenFlow(Result):
    """``value`` [layer, target, source]: mean change of the metric; nan where the target cannot see the source."""

    tokens: tuple[str, ...]
    """What stands at each position of the first prompt."""
    clean: float
    """The metric of the clean prompts."""

    def strongest(self, k: int = 5) -> list[tuple[int, int, int, float]]:
        """The ``k`` largest moves: layer, target, source, effect."""
        grid = np.asarray(self.value)
        order = np.argsort(-np.abs(np.nan_to_num(grid)), axis=None)[:k]
        found = [np.unravel_index(i, grid.shape) for i in order]
        return [(int(a), int(t), int(s), float(grid[a, t, s])) for a, t, s in found]

    def plot(self) -> go.Figure:
        """Target by source, summed over layers."""
        from interp.plots import heatmap

        labels = [f"{i} {token}" for i, token in enumerate(self.tokens)]
        return heatmap(
            np.nansum(np.asarray(self.value), axis=0), rows=labels, columns=labels, title=self.name,
            unit="change of the metric", diverging=True,
        )  # fmt: skip


@torch.no_grad()
def token_flow(
    model: Any,
    task: Any,
    *,
    how: How = "value",
    layers: tuple[int, ...] | None = None,
    targets: tuple[int, ...] | None = None,
    rows: int = 512,
) -> TokenFlow:
    """A map from token to token over layers: what the metric loses when one move of attention is corrupted.

    Works for decoders and for encoders (every position sees every other one).

    Parameters
    ----------
    task
        A Task or ``(clean, corrupted, metric)``, all prompts of one length.
    how
        ``"value"``: the move carries the corrupted run's values. ``"knockout"``: the move is forbidden (corrupted
        prompts are not used).
    layers, targets
        Only those; all by default.
    rows
        Prompts run at once, over interventions.

    Raises
    ------
    InputError
        Prompts of several lengths, or a layer or target that is not there.
    ModelError
        The model offers no attention patterns or values.

    Notes
    -----
    Cost: a forward pass of the prompts for every layer, target and source that it sees (positions^2 / 2 a layer for a
    decoder), ``rows`` at a time.

    References
    ----------
    Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language models", section 4
    (knockout).
    """
    if how not in _SAID:
        raise InputError(f"how={how!r}; it is one of {list(_SAID)}")
    (question,) = asked(task)
    n_pos = _length(question.clean)
    layers = tuple(range(model.n_layers)) if layers is None else layers
    targets = tuple(range(n_pos)) if targets is None else tuple(t % n_pos for t in targets)
    if not set(layers) <= set(range(model.n_layers)):
        raise InputError(f"layers {list(layers)}; {model.name} has {model.n_layers}")
    base = _metric(question, model.logits(question.clean), 1)[0]
    value = np.full((len(layers), n_pos, n_pos), np.nan)
    spread = np.full_like(value, np.nan)
    each = max(1, rows // len(question))
    for i, layer in enumerate(layers):
        moves = [(t, s) for t in targets for s in range(t + 1 if model.causal else n_pos) if (t, s) != (0, 0)]
        held = _held(model, question, layer) if how == "value" else None
        for start in range(0, len(moves), each):
            part = moves[start : start + each]
            change = _changed(model, question, layer, part, held) - base
            for (t, s), one in zip(part, change, strict=True):
                value[i, t, s] = float(one.mean())
                spread[i, t, s] = float(one.std() / len(one) ** 0.5) if len(one) > 1 else np.nan
    positions = tuple(map(str, range(n_pos)))
    return TokenFlow(
        name="token flow",
        value=value,
        stderr=spread if len(question) > 1 else None,
        n=len(question),
        convention=f"change of the metric; {_SAID[how]}",
        chance=0.0,
        axes=("layer", "target", "source"),
        ticks=(tuple(map(str, layers)), positions, positions),
        provenance={"model": model.name, "how": how, "task": question.name},
        tokens=tuple(question.clean.strings[0]),
        clean=float(base.mean()),
    )


def _length(tokens: Tokens) -> int:
    if not bool(tokens.mask.all()):
        lengths = sorted(set(tokens.mask.sum(1).tolist()))
        raise InputError(
            f"prompts of {len(lengths)} lengths ({lengths[0]} to {lengths[-1]}) have no common positions: select one "
            "length (task.select)"
        )
    return tokens.ids.shape[1]


def _metric(question: Question, logits: Tensor, n: int) -> Tensor:
    """[intervention, example]"""
    if question.position is not None:
        at = question.position.to(logits.device).repeat(n)
        logits = logits[torch.arange(len(logits), device=logits.device), at]
    return torch.stack([scored(question.metric, one) for one in logits.unflatten(0, (n, -1))]).cpu()


def _changed(
    model: Any,
    question: Question,
    layer: int,
    moves: list[tuple[int, int]],
    held: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The metric [move, example] with one move of a layer's attention changed in each copy of the prompts."""
    clean, n = question.clean, len(moves)
    tiled = clean.select(torch.arange(len(clean)).repeat(n))
    site = f"blocks.{layer}.attn.hook_pattern"
    if held is None:
        change = edits.edit(site, lambda pattern: _forbidden(pattern, moves))
    else:
        delta = _delta(*held, moves)
        change = edits.edit(f"blocks.{layer}.attn.hook_z", lambda z: z + delta.to(z))
    return _metric(question, model.logits(tiled, edits=[change]), n)


def _forbidden(pattern: Tensor, moves: list[tuple[int, int]]) -> Tensor:
    """The pattern [move x example, head, query, key] without one key of one query, the others scaled up to 1."""
    parts = pattern.unflatten(0, (len(moves), -1))
    for i, (t, s) in enumerate(moves):
        row = parts[i, :, :, t]
        row[..., s] = 0
        left = row.sum(-1, keepdim=True)
        row /= torch.where(left > 0, left, torch.ones_like(left))
    return pattern


def _held(model: Any, question: Question, layer: int) -> tuple[Tensor, Tensor]:
    """A layer's clean attention [example, head, query, key] and its values' change [example, pos, head, d_head]."""
    names = [f"blocks.{layer}.attn.hook_{kind}" for kind in ("pattern", "v")]
    clean = model.capture(question.clean, names)
    pattern, value = clean[names[0]], clean[names[1]]
    gap = model.capture(question.corrupted, names[1])[names[1]] - value
    if gap.ndim != 4 or pattern.ndim != 4 or pattern.shape[1] % gap.shape[2]:
        raise ModelError(f"{model.name} gives no values by head at {names[1]}")
    return pattern, gap.repeat_interleave(pattern.shape[1] // gap.shape[2], dim=2)


def _delta(pattern: Tensor, gap: Tensor, moves: list[tuple[int, int]]) -> Tensor:
    """What is added to z [move x example, pos, head, d_head]: attention times the values' difference."""
    out = gap.new_zeros(len(moves), *gap.shape)
    for i, (t, s) in enumerate(moves):
        out[i, :, t] = pattern[:, :, t, s, None] * gap[:, s]
    return out.flatten(0, 1)
