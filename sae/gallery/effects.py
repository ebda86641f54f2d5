"""What a latent writes into the logits: its direction through the final norm's weight and the unembedding.

The stream's direction d adds s(x) (d - mean d) gamma W_U to the logits, where s(x) > 0 is the final norm's scale at a
token (and the mean is taken off by LayerNorm only). Shown is that with s = 1 and the mean over the vocabulary taken
off, which a softmax does not see: order and proportions are right, the unit is arbitrary. What the layers between the
site and the end make of the direction is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.lenses.readout import Readout
from interp.models.anatomy import norm_weight
from interp.sites import Site

__all__ = ["LogitEffects", "STREAM", "logit_directions", "logit_effects"]

STREAM = (
    "embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mixer_out",
)  # fmt: skip
"""Sites whose values are added to, or are, the residual stream."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogitEffects:
    """Direct effect of every latent on every logit, summed up."""

    top: np.ndarray
    """[latent, shown] token ids, the most promoted first."""
    top_value: np.ndarray
    bottom: np.ndarray
    """[latent, shown] the most suppressed first."""
    bottom_value: np.ndarray
    counts: np.ndarray
    """[latent, bin] tokens of the vocabulary."""
    edges: np.ndarray
    """[latent, 2] lowest and highest edge of the bins."""


def logit_directions(
    model: Any, directions: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "latent d_vocab"]:
    """Directions of the stream as logits; see the head of this file.

    Raises
    ------
    ModelError
        The model has no unembedding that is known.
    """
    readout = Readout.of(model)
    made = directions.detach()
    norm = model.anatomy.ln_final
    if norm is not None and readout.norm is not None:
        if norm.kind == "layer":
            made = made - made.mean(1, keepdim=True)
        weight = norm_weight(readout.norm, norm)
        made = made if weight is None else made * weight.detach()
    logits = made @ readout.directions().detach() * readout.scale
    return logits - logits.mean(1, keepdim=True)


def logit_effects(
    model: Any, site: Site, directions: Tensor, *, n_shown: int = 10, n_bins: int = 40
) -> LogitEffects | str:
    """The extremes and the histogram for every latent; or why there are none.

    Raises
    ------
    ModelError
        The model has no unembedding that is known.
    """
    Readout.of(model)
    if site.kind not in STREAM or directions.shape[1] != model.d_model:
        return (
            f"{site} is not added to the residual stream, so its directions have no direct effect on logits"
        )
    parts = [_one(logit_directions(model, d), n_shown, n_bins) for d in directions.split(512)]
    names = ("top", "top_value", "bottom", "bottom_value", "counts", "edges")
    return LogitEffects(**{n: np.concatenate([p[i] for p in parts]) for i, n in enumerate(names)})


def _one(logits: Tensor, n_shown: int, n_bins: int) -> tuple[np.ndarray, ...]:
    n_shown = min(n_shown, logits.shape[1])
    top, bottom = logits.topk(n_shown), (-logits).topk(n_shown)
    low, high = logits.amin(1, keepdim=True), logits.amax(1, keepdim=True)
    span = (high - low).clamp_min(1e-12)
    place = ((logits - low) / span * n_bins).long().clamp_max(n_bins - 1)
    counts = place.new_zeros(len(logits), n_bins).scatter_add_(1, place, torch.ones_like(place))
    held = (
        top.indices, top.values, bottom.indices, -bottom.values, counts, torch.cat([low, high], 1),
    )  # fmt: skip
    return tuple(x.cpu().numpy() for x in held)
