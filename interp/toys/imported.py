"""Other people's group networks: state dicts with the layouts of published checkpoints, as networks of this toolkit.

Layout "mlp" (Chughtai, Chan and Nanda 2023): ``W_x`` and ``W_y`` [order, 256], ``W`` [512, 128] on their concatenation,
ReLU, ``W_U`` [128, order], no bias. Layout "transformer": one TransformerLens layer without norms, biases of zero; keys
``embed.W_E`` [order + 1, 128], ``pos_embed.W_pos`` [3, 128], ``blocks.0.attn.W_Q/W_K/W_V`` [4, 128, 32],
``blocks.0.attn.W_O`` [4, 32, 128], ``blocks.0.mlp.W_in`` [128, 512], ``blocks.0.mlp.W_out`` [512, 128],
``unembed.W_U`` [128, order + 1 or order].

The published element orders are their own: cyclic 0..n-1, but permutations in the order in which sympy happened to list
them. ``elements`` says for each of their symbols which element of the group here it is.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError, nearest
from interp.toys.groups import Group
from interp.toys.networks import Shape, Transformer
from interp.toys.perceptron import Perceptron, PerceptronShape

__all__ = ["import_network", "read_state"]

MLP_KEYS = ("W_x", "W_y", "W", "W_U")
TRANSFORMER_KEYS = (
    "embed.W_E", "pos_embed.W_pos", "blocks.0.attn.W_Q", "blocks.0.attn.W_K", "blocks.0.attn.W_V",
    "blocks.0.attn.W_O", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out", "unembed.W_U",
)  # fmt: skip
IGNORED = ("mask", "IGNORE")
"""Buffers of the causal mask."""


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a ``.pt`` file read with weights only (nothing in it is run).

    Raises
    ------
    InputError
        The file is missing, or holds anything but a dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no state dict at {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (unpickling raises many kinds; none is let through)
        raise InputError(f"{path} cannot be read as weights only: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no dict of tensors")
    return state


def import_network(
    state: Mapping[str, Tensor] | str | Path,
    group: Group,
    *,
    activation: str = "relu",
    elements: Sequence[int] | Tensor | None = None,
) -> Perceptron | Transformer:
    """A network of this toolkit with the weights of a published one.

    Parameters
    ----------
    state
        A state dict in one of the two layouts, or a file (:func:`read_state`). A prefix that all keys share is cut off.
    group
        The group it was trained on.
    activation
        The perceptron's.
    elements
        The index here of each of their symbols, where the orders differ: their symbol i is our ``elements[i]``.

    Raises
    ------
    InputError
        Keys are missing or unknown, a shape does not fit, a bias is not zero, a value is not finite, or ``elements`` is
        no permutation.
    """
    given = read_state(state) if isinstance(state, str | Path) else dict(state)
    weights = _stripped(given)
    place = _places(elements, group)
    wanted = MLP_KEYS if "W_x" in weights else TRANSFORMER_KEYS
    for key in wanted:
        if key not in weights:
            raise InputError(
                f"the state dict has no {key!r}{nearest(key, weights)} (it has {', '.join(weights)})"
            )
    for key, value in weights.items():
        if key in wanted and not value.isfinite().all():
            raise InputError(f"{key} holds values that are not finite")
        if key not in wanted and not key.endswith(IGNORED):
            is_bias = ".b_" in f".{key}" or key.endswith("bias")
            if not is_bias:
                raise InputError(
                    f"the state dict has {key!r}, which neither layout knows{nearest(key, wanted)}"
                )
            if value.abs().max() > 0:
                raise InputError(f"{key} is not zero; the networks of this layout have no bias")
    build = _perceptron if wanted is MLP_KEYS else _transformer
    return build(weights, group, activation, place).eval()


def _stripped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    heads = {key.partition(".")[0] for key in state}
    known = {key.partition(".")[0] for key in (*MLP_KEYS, *TRANSFORMER_KEYS)}
    if len(heads) == 1 and not heads & known:
        return {key.partition(".")[2]: value for key, value in state.items()}
    return dict(state)


def _places(elements: Sequence[int] | Tensor | None, group: Group) -> Tensor:
    """For each element here, their symbol."""
    if elements is None:
        return torch.arange(group.order)
    ours = torch.as_tensor(elements)
    if ours.shape != (group.order,) or ours.sort().values.tolist() != list(range(group.order)):
        raise InputError(
            f"elements is a permutation of 0..{group.order - 1}: our index of each of their symbols"
        )
    return ours.argsort()


def _shaped(name: str, value: Tensor, expected: tuple[int, ...]) -> Tensor:
    if tuple(value.shape) != expected:
        raise InputError(f"{name} has shape {list(value.shape)}; {list(expected)} was expected")
    return value


def _perceptron(state: Mapping[str, Tensor], group: Group, activation: str, place: Tensor) -> Perceptron:
    order, d_embed = group.order, state["W_x"].shape[-1]
    d_hidden = state["W"].shape[-1]
    shape = PerceptronShape(order=order, d_embed=d_embed, d_hidden=d_hidden, activation=activation)
    module = Perceptron(shape).to(state["W"].dtype)
    with torch.no_grad():
        module.left.weight.copy_(_shaped("W_x", state["W_x"], (order, d_embed))[place])
        module.right.weight.copy_(_shaped("W_y", state["W_y"], (order, d_embed))[place])
        module.mix.weight.copy_(_shaped("W", state["W"], (2 * d_embed, d_hidden)).T)
        module.unembed.weight.copy_(_shaped("W_U", state["W_U"], (d_hidden, order)).T[place])
    return module


def _transformer(state: Mapping[str, Tensor], group: Group, activation: str, place: Tensor) -> Transformer:
    if activation != "relu":
        raise InputError(f"the transformer's activation is relu, not {activation!r}")
    order = group.order
    n_heads, d_model, d_head = state["blocks.0.attn.W_Q"].shape
    d_mlp = state["blocks.0.mlp.W_in"].shape[-1]
    if n_heads * d_head != d_model:
        raise InputError(f"{n_heads} heads of {d_head} do not make up d_model {d_model}")
    module = Transformer(Shape(d_vocab=order + 1, n_ctx=3, d_model=d_model, n_heads=n_heads, d_mlp=d_mlp)).to(
        state["embed.W_E"].dtype
    )
    # '=' stays the last symbol
    rows = torch.cat([place, torch.tensor([order])])
    block: Any = module.blocks[0]
    attn, mlp = block.attn, block.mlp
    read = state["unembed.W_U"]
    if read.shape == (d_model, order):
        read = torch.cat([read, read.new_zeros(d_model, 1)], 1)
    assert module.pos_embed is not None
    with torch.no_grad():
        module.embed.weight.copy_(_shaped("embed.W_E", state["embed.W_E"], (order + 1, d_model))[rows])
        module.pos_embed.weight.copy_(_shaped("pos_embed.W_pos", state["pos_embed.W_pos"], (3, d_model)))
        for name, linear in (("W_Q", attn.q), ("W_K", attn.k), ("W_V", attn.v)):
            weight = _shaped(name, state[f"blocks.0.attn.{name}"], (n_heads, d_model, d_head))
            linear.weight.copy_(weight.transpose(1, 2).reshape(d_model, d_model))
        out = _shaped("W_O", state["blocks.0.attn.W_O"], (n_heads, d_head, d_model))
        attn.o.weight.copy_(out.reshape(d_model, d_model).T)
        mlp.up.weight.copy_(_shaped("W_in", state["blocks.0.mlp.W_in"], (d_model, d_mlp)).T)
        mlp.down.weight.copy_(_shaped("W_out", state["blocks.0.mlp.W_out"], (d_mlp, d_model)).T)
        module.unembed.weight.copy_(_shaped("unembed.W_U", read, (d_model, order + 1)).T[rows])
    return module
