"""Glasses: does the last token still see the rest? A sequence and the same with its last token repeated end in
representations whose distance shrinks with length, until no float type of the hardware tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.metrics.baselines import Baseline, baselined
from interp.metrics.declared import outcome
from interp.results import Result
from interp.tokens import Tokens, id_matrix

__all__ = ["last_token_gap"]


def last_token_gap(
    model: Any,
    ids: Int[Tensor, "pos"] | Int[Tensor, "batch pos"],
    *,
    lengths: Sequence[int],
    site: Any = None,
    baseline: Baseline = None,
    seed: int = 0,
) -> Result:
    """L1 distance, by length n, between the last token's representation of s and of s with its last token repeated.

    Parameters
    ----------
    ids
        One or several long sequences; s is the first n tokens.
    site
        The last block's output by default.
    baseline
        ``"random_init"`` or ``"shuffled_tokens"``: its curve stands in ``.chance``.

    Returns
    -------
    Result
        Along ``length``, mean over sequences with its error. ``.provenance["lost"]``: for each float type the first
        length at which both representations round to the same vector in every sequence (None: never).

    Notes
    -----
    Cost: two forward passes a length. A causal model without position embeddings must lose the difference as 1 / n.

    References
    ----------
    Barbero et al. 2024 (Transformers need glasses!), theorem 4.2.
    """
    rows = id_matrix(ids)
    if not lengths or min(lengths) < 1 or max(lengths) > rows.shape[1]:
        raise InputError(f"lengths {list(lengths)} of sequences of {rows.shape[1]} tokens")
    limit = model.n_ctx
    if limit is not None and max(lengths) + 1 > limit:
        raise InputError(f"length {max(lengths)} + 1 exceeds the context of {model.name}, {limit}")
    where = site or f"blocks.{model.n_layers - 1}.hook_resid_post"

    def curve(network: Any, table: Tensor) -> tuple[np.ndarray, dict[str, int | None]]:
        gaps: list[np.ndarray] = []
        lost: dict[str, int | None] = {"float32": None, "float16": None, "bfloat16": None}
        for n in lengths:
            short, long = table[:, :n], torch.cat([table[:, :n], table[:, n - 1 : n]], 1)
            ends = [
                network.capture(Tokens.full(s), where, positions="last")[where][:, 0] for s in (short, long)
            ]
            gaps.append((ends[0].double() - ends[1].double()).abs().sum(1).cpu().numpy())
            for kind in lost:
                narrow = [end.to(getattr(torch, kind)) for end in ends]
                if lost[kind] is None and bool((narrow[0] == narrow[1]).all()):
                    lost[kind] = n
        return np.stack(gaps), lost

    gaps, lost = curve(model, rows)
    chance = None
    if baseline is not None:
        network, table = baselined(model, rows, baseline, seed=seed)
        chance = curve(network, table.ids if isinstance(table, Tokens) else table)[0].mean(1)
    k = gaps.shape[1]
    return outcome(
        "last-token gap", gaps.mean(1), n=k, d=model.width(where), axes=("length",), chance=chance,
        ticks=(tuple(map(str, lengths)),), stderr=gaps.std(1, ddof=1) / k**0.5 if k > 1 else None,
        no_stderr="one sequence: the error is over sequences", no_chance="compare with baseline=",
        convention=f"L1 at {where}, s against s with its last token repeated"
        + (f"; chance: {baseline}" if baseline else ""),
        provenance={"lost": lost, "baseline": baseline},
    )  # fmt: skip
