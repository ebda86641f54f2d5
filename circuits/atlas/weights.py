"""A model's matrices as the residual stream meets them: a norm's centring and weight folded into whoever reads.

``x`` normalised and multiplied by ``W`` is ``scale(x)`` times ``x`` multiplied by ``folded(W)``: all that is left out
is the scale, one number a position.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuits.stream import Stream
from interp.errors import InputError, ModelError, nearest
from interp.models.anatomy import Norm, linear_weight, norm_weight, parameter

__all__ = ["embedding", "folded", "head_weights", "mlp_output", "parse_node", "unembedding"]


def folded(weight: Tensor, norm: Norm | None, module: Any) -> Tensor:
    """``weight`` [d_model ...] with the norm in front of it folded in (its centring and weight), float64."""
    out = weight.detach().double()
    if norm is None or module is None:
        return out
    gain = norm_weight(module, norm)
    if gain is not None:
        out = out * gain.detach().double().view(-1, *[1] * (out.ndim - 1))
    return out - out.mean(0) if norm.kind == "layer" else out


def head_weights(
    stream: Stream, layer: int
) -> dict[str, Float[Tensor, "head d_model d_head"] | Float[Tensor, "head d_head d_model"]]:
    """``q``, ``k``, ``v`` [head d_model d_head] with the norm folded in, ``o`` [head d_head d_model]; float64.

    Under grouped keys and values every query head is given those of its group.

    Raises
    ------
    ModelError
        The block has no attention.
    """
    part = stream.parts[layer]
    if not part.n_heads:
        raise ModelError(f"block {layer} of {stream.model.name} has no attention heads")
    out = {"o": part.output.double()}
    for port in "qkv":
        weight = folded(part.weight(port), part.spec.ln1, part.norm).transpose(0, 1)
        out[port] = weight.repeat_interleave(part.n_heads // len(weight), dim=0)
    return out


def mlp_output(stream: Stream, layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """What each neuron writes to the stream, times its activation; float64."""
    spec = stream.parts[layer].spec.mlp
    if spec is None:
        raise ModelError(f"block {layer} of {stream.model.name} has no MLP")
    return linear_weight(stream.model.submodule(spec.down)).detach().double()


def embedding(stream: Stream) -> Float[Tensor, "token d_model"]:
    """The embedding's rows; float64."""
    weight = parameter(stream.model.submodule(stream.model.anatomy.embed), "weight")
    if weight is None or weight.ndim != 2:
        raise ModelError(f"{stream.model.name} has no embedding matrix")
    return weight.detach().double()


def unembedding(stream: Stream) -> Float[Tensor, "d_model token"]:
    """The unembedding with the final norm folded in; float64."""
    return folded(linear_weight(stream.unembed), stream.model.anatomy.ln_final, stream.final_norm)


def parse_node(stream: Stream, node: str) -> tuple[int, int | None]:
    """Layer and head of ``a1.h2``, layer and None of ``m1``.

    Raises
    ------
    InputError
        There is no such head or MLP; says the nearest.
    """
    known = stream.layout.sources[1:]
    if node not in known:
        raise InputError(f"no head or MLP {node!r}{nearest(node, known)}")
    layer, _, head = node[1:].partition(".h")
    return int(layer), int(head) if head else None


def token_names(model: Any, ids: Tensor) -> list[str]:
    """Token ids as text, where the model has a tokenizer."""
    from interp.models.text import shower

    show = str if model.tokenizer is None else shower(model.tokenizer)
    return [show(int(i)) for i in ids]
