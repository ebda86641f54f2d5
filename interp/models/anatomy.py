"""The anatomy of a network: which modules write to and read from the residual stream.

One declarative description per architecture, from which the site table (``taps.py``), the weights
of a head and the circuit graphs are all derived, so that no other room holds cases by family. A
plain ``nn.Module`` joins by returning an :class:`Anatomy` from a method ``anatomy()``. Read next:
``families.py`` (the descriptions), ``taps.py`` (sites from a description).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.showing import Shown

__all__ = [
    "MLP",
    "Anatomy",
    "Attention",
    "Block",
    "Mixer",
    "Norm",
    "Projection",
    "head_output_weight",
    "linear_weight",
    "norm_eps",
    "norm_weight",
    "parameter",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A linear map, or the part of a fused one, by the path of its module.

    ``layout`` says where its features lie among the module's outputs: ``"whole"`` (all of them),
    ``"span"`` (``start`` to ``start + width``: GPT-2's ``c_attn``), or ``"interleaved"`` (part
    ``start`` of each head's ``width`` parts: GPT-NeoX's ``query_key_value``).
    """

    path: str
    layout: Literal["whole", "span", "interleaved"] = "whole"
    start: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A normalisation: ``"layer"`` centres, ``"rms"`` does not; ``unit_offset`` for weights stored as w - 1 (Gemma)."""

    path: str
    kind: Literal["layer", "rms"] = "layer"
    unit_offset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One attention layer.

    ``path`` is the module whose output (first item, if a tuple) is added to the residual stream;
    ``core`` the module that computes the attention itself (``path`` unless given). ``scores`` and
    ``pattern`` are modules whose outputs are [batch, head, query, key]; where they are None the
    backend's attention function is asked instead (``interface`` True) or the sites do not exist.
    """

    path: str
    q: Projection
    k: Projection
    v: Projection
    o: Projection
    n_heads: int
    n_kv_heads: int
    d_head: int
    rotary: bool = False
    core: str | None = None
    scores: str | None = None
    pattern: str | None = None
    interface: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP:
    """A feed-forward layer: down(act(up x)), or down(act(gate x) * up x) where there is a gate."""

    path: str
    up: str
    down: str
    gate: str | None = None
    act: str | None = None
    """The module whose output is the post-activation, if it is not simply ``down``'s input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixer:
    """A state-space layer: its in-projection, what goes into its out-projection, its output."""

    path: str
    in_proj: str
    out_proj: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of the residual stream.

    ``placement`` ``"pre"``: norms stand before the layers and the stream is a plain sum;
    ``"sandwich"``: also behind them (``attn_write``/``mlp_write`` name the modules whose output is
    really added); ``"post"``: the stream itself is normalised (BERT), so it is no sum of writes;
    ``"none"``: no norms. ``parallel``: attention and MLP read the same stream (GPT-NeoX).
    """

    path: str
    attn: Attention | None = None
    mlp: MLP | None = None
    mixer: Mixer | None = None
    ln1: Norm | None = None
    ln2: Norm | None = None
    parallel: bool = False
    placement: Literal["pre", "post", "sandwich", "none"] = "pre"
    attn_write: str | None = None
    mlp_write: str | None = None
    resid_mid: str | None = None
    """A module whose output is the stream between attention and MLP (post-norm blocks)."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Anatomy(Shown):
    """A whole network. ``d_model`` is the width of the residual stream; ``causal`` whether position
    t sees only positions up to t."""

    d_model: int
    blocks: tuple[Block, ...]
    embed: str
    pos_embed: str | None = None
    ln_final: Norm | None = None
    unembed: str | None = None
    causal: bool = True
    family: str = "custom"
    chained: bool = False
    """Whether each block is handed the very tensor that the one before returned."""

    @property
    def is_sum(self) -> bool:
        """Whether the residual stream is the plain sum of what the layers write (needed by edge-level methods)."""
        return all(block.placement != "post" for block in self.blocks)


def head_output_weight(o_proj: nn.Module, attn: Attention) -> Float[Tensor, "head d_head d_model"]:
    """W_O of each head, from the output projection: what a head's z [d_head] is multiplied with to reach the stream."""
    weight = linear_weight(o_proj)
    if weight.shape[0] != attn.n_heads * attn.d_head:
        raise ModelError(
            f"{attn.o.path} reads {weight.shape[0]} features; {attn.n_heads} heads of {attn.d_head} were expected"
        )
    return weight.unflatten(0, (attn.n_heads, attn.d_head))


def linear_weight(linear: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """A linear module's weight in x @ W order, whichever way the module stores it (``Conv1D`` is already so)."""
    weight = parameter(linear, "weight")
    if weight is None or weight.ndim != 2:
        raise ModelError(f"{type(linear).__name__} has no 2-dimensional weight")
    stored_as_used = type(linear).__name__ == "Conv1D"
    return weight if stored_as_used else weight.T


def norm_weight(module: nn.Module, norm: Norm) -> Tensor | None:
    """A norm's multiplicative weight as it is applied, None where it has none."""
    weight = parameter(module, "weight")
    return weight + 1 if weight is not None and norm.unit_offset else weight


def parameter(module: nn.Module, name: str) -> Tensor | None:
    """A module's parameter, None where it has none; fetched if accelerate keeps it elsewhere between passes."""
    held = getattr(module, name, None)
    if not isinstance(held, Tensor):
        return None
    if not held.is_meta:
        return held
    from accelerate.utils import align_module_device

    with align_module_device(module):
        return getattr(module, name).clone()


def norm_eps(module: nn.Module) -> float:
    """The epsilon under a norm's square root, by the names the field gives it."""
    for name in ("eps", "variance_epsilon", "epsilon", "layer_norm_epsilon"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
        if isinstance(value, int | Tensor) and value is not None:
            return float(value)
    if isinstance(module, nn.RMSNorm):  # eps=None means the machine epsilon of the input's type
        return torch.finfo(module.weight.dtype).eps
    raise ModelError(f"cannot tell the epsilon of {type(module).__name__}")
