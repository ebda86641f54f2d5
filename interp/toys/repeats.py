"""Repeated random sequences, and what heads attend to on them: the plainest way to find copying heads.

A row is ``x x``: a block of random tokens twice, behind a first token that only serves as a resting place. Nothing
predicts the first copy; whoever predicts the second has found the earlier occurrence.

References
----------
Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context Learning and
Induction Heads" (the scores).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.errors import InputError, ModelError
from interp.showing import Shown
from interp.tables import tidy

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["HeadScores", "copy_loss", "head_scores", "period_of", "repeated"]


def repeated(
    n: int, period: int, *, d_vocab: int, generator: torch.Generator, distinct: bool = False
) -> Int64[Tensor, "batch pos"]:
    """``n`` rows of token 0 and twice the same ``period`` tokens, drawn uniformly from 1 to ``d_vocab - 1``.

    With ``distinct`` no token occurs twice in a block, so that each has one follower.

    Raises
    ------
    InputError
        A size is below 1, or the vocabulary is too small for distinct tokens.
    """
    if min(n, period) < 1 or d_vocab < 2:
        raise InputError(f"n and period must be at least 1 and d_vocab 2, got {n}, {period}, {d_vocab}")
    if distinct and period >= d_vocab:
        raise InputError(f"{period} distinct tokens were asked for; the vocabulary has {d_vocab - 1}")
    if distinct:
        block = 1 + torch.rand(n, d_vocab - 1, generator=generator).argsort(1)[:, :period]
    else:
        block = torch.randint(1, d_vocab, (n, period), generator=generator)
    return torch.cat([torch.zeros(n, 1, dtype=torch.int64), block, block], dim=1)


def copy_loss(
    logits: Float[Tensor, "batch pos d_vocab"], ids: Int64[Tensor, "batch pos"]
) -> tuple[Tensor, Tensor]:
    """Next-token loss (nats, float64) of each row over the first copy and over the second, [batch] each.

    The second counts only what can be known: from its second token on.
    """
    period = period_of(ids)
    loss = cross_entropy(logits[:, :-1].double().transpose(1, 2), ids[:, 1:], reduction="none")
    return loss[:, :period].mean(1), loss[:, period + 1 :].mean(1)


def period_of(ids: Int64[Tensor, "batch pos"]) -> int:
    """The length of the repeated block; InputError for rows that are no repeated sequences."""
    period, odd = divmod(ids.shape[1], 2)
    if not odd or period < 2 or not torch.equal(ids[:, 1 : period + 1], ids[:, period + 1 :]):
        raise InputError("the rows must be one token and then the same block (of at least 2 tokens) twice")
    return period


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HeadScores(Shown):
    """Mean attention [layer, head] that each head pays, in the second copy, to one place that has a name.

    A layer without attention is a row of zeros, as is the tail of one with fewer heads.
    """

    previous: Float[Tensor, "layer head"]
    """The token just before."""
    induction: Float[Tensor, "layer head"]
    """The token behind the earlier occurrence of the current one."""
    duplicate: Float[Tensor, "layer head"]
    """The earlier occurrence itself."""
    first: Float[Tensor, "layer head"]
    """The very first token: where heads rest that have nothing to do."""
    n: int
    """Rows averaged over."""

    def best(self, kind: str) -> tuple[int, int, float]:
        """Layer, head and score of the head that scores highest on ``"previous"``, ``"induction"`` ..."""
        grid = getattr(self, kind)
        layer, head = divmod(int(grid.argmax()), grid.shape[1])
        return layer, head, float(grid[layer, head])

    def to_frame(self) -> pd.DataFrame:
        """A row per kind, layer and head."""
        kinds = ("previous", "induction", "duplicate", "first")
        grids = np.stack([getattr(self, kind).cpu().numpy() for kind in kinds])
        layers, heads = grids.shape[1:]
        return tidy({"kind": kinds, "layer": range(layers), "head": range(heads)}, value=grids).assign(
            n=self.n
        )

    def plot(self, kind: str = "induction") -> go.Figure:
        """One kind of score of every head, a row per layer."""
        from interp.plots import heatmap

        grid = getattr(self, kind).cpu().numpy()
        rows, columns = [f"layer {i}" for i in range(len(grid))], [f"head {i}" for i in range(grid.shape[1])]
        return heatmap(
            grid, rows=rows, columns=columns, title=f"attention to the {kind} place", span=(0.0, 1.0)
        )


def head_scores(model: Any, ids: Int64[Tensor, "batch pos"], *, batch_size: int = 64) -> HeadScores:
    """Score every head of ``model`` on repeated sequences (see :func:`repeated`), from its attention patterns.

    Raises
    ------
    ModelError
        The model offers no attention patterns.
    InputError
        The rows are no repeated sequences.

    Notes
    -----
    Cost: one forward pass of ``ids``.
    """
    period = period_of(ids)
    sites = [site for site in model.sites if site.kind == "pattern"]
    if not sites:
        raise ModelError(f"{model.name} offers no attention patterns to score")
    query = torch.arange(period + 1, 2 * period + 1)
    looked_at = {
        "previous": query - 1,
        "induction": query - period + 1,
        "duplicate": query - period,
        "first": torch.zeros_like(query),
    }
    n_heads = max(model.sites.n_heads(site) or 0 for site in sites)
    grids = {kind: torch.zeros(model.n_layers, n_heads, dtype=torch.float64) for kind in looked_at}

    def score(site: Any, pattern: Tensor) -> None:
        for kind, key in looked_at.items():
            paid = pattern[:, :, query, key].double().mean(2).sum(0)
            grids[kind][site.layer, : len(paid)] += paid.cpu() / len(ids)

    model.capture(ids, sites, batch_size=batch_size, sink=score)
    return HeadScores(**grids, n=len(ids))
