"""Readout: from a vector of the residual stream to logits, exactly as the model itself goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import CheckError, ModelError
from interp.models.anatomy import linear_weight, parameter
from interp.showing import Shown
from interp.sites import Site

__all__ = ["Readout", "stream_sites"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Readout(Shown):
    """The final norm (recomputed on what it is given), the unembedding, and what the model does to logits after it."""

    norm: nn.Module | None
    unembed: nn.Module
    scale: float = 1.0
    """What logits are multiplied with (Granite, Cohere)."""
    softcap: float | None = None
    """c tanh(logits / c) (Gemma 2)."""

    @classmethod
    def of(cls, model: Any) -> Readout:
        """The readout of a decoder with an anatomy.

        Raises
        ------
        ModelError
            The model has no known anatomy, no unembedding, or a stream that is no sum (post-norm).
        """
        anatomy = model.anatomy
        if anatomy is None or anatomy.unembed is None:
            raise ModelError(f"{model.name} has no known unembedding: a lens needs a decoder with an anatomy")
        if not anatomy.is_sum or not anatomy.causal:
            raise ModelError(
                f"{model.name} is no causal pre-norm decoder: its stream has no readout at each layer"
            )
        config = getattr(model.module, "config", None)
        divided = getattr(config, "logits_scaling", None)
        times = getattr(config, "logit_scale", None)
        return cls(
            norm=None if anatomy.ln_final is None else model.submodule(anatomy.ln_final.path),
            unembed=model.submodule(anatomy.unembed),
            scale=(float(times) if times else 1.0) / (float(divided) if divided else 1.0),
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def __call__(self, stream: Float[Tensor, "*where d_model"]) -> Float[Tensor, "*where d_vocab"]:
        """Logits of stream vectors."""
        x = stream if self.norm is None else self.norm(stream)
        logits = self.unembed(x) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def check(self, stream: Tensor, logits: Tensor) -> None:
        """Raise CheckError unless the last layer's stream reads out as the model's own logits."""
        mine = self(stream)
        if not torch.allclose(mine, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
            worst = float((mine - logits).abs().max())
            raise CheckError(
                f"norm and unembedding give logits that differ from the model's by up to {worst:.3g}:"
                " it does something else to them"
            )

    def directions(self) -> Float[Tensor, "d_model d_vocab"]:
        """W_U."""
        return linear_weight(self.unembed)

    def bias(self) -> Float[Tensor, "d_vocab"] | None:
        """b_U, where there is one."""
        return parameter(self.unembed, "bias")


def stream_sites(model: Any, sites: Any = None) -> tuple[Site, ...]:
    """The stream before the first block and after every block, or the given sites."""
    if sites is not None:
        return model.find(sites)
    return model.find(["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"])
