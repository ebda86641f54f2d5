"""From tensors to a coder and back: what every format needs, whatever it calls its tensors.

A reader hands :func:`assembled` the tensors under our names; nothing is built before names, shapes, types and
finiteness are known to be right, and nothing is larger than the file. A writer asks :func:`biases` for the
encoder's biases as its format wants them: with b_dec taken off the rows first, or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError, StoreError, nearest
from interp.runs.files import json_bytes, read_json
from sae.coder import Coder
from sae.rules import RULES

__all__ = [
    "DTYPES", "acts_as", "assembled", "biases", "card_of", "dtype_name", "json_file", "known", "not_below", "refused",
    "thresholds", "whole",
]  # fmt: skip

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def dtype_name(coder: Coder) -> str:
    """Such as ``"float32"``."""
    return str(coder.W_dec.dtype).removeprefix("torch.")


def assembled(
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    k: Any,
    place: Path,
    dtype: torch.dtype | None = None,
    **make: Any,
) -> Coder:
    """The coder that ``tensors`` (by our names) make up.

    Parameters
    ----------
    dtype
        What they become; that of W_dec by default.
    **make
        ``wiring``, ``n_sites``, ``centred``, ``bandwidth`` as :class:`~sae.coder.Coder` takes them.

    Raises
    ------
    StoreError
        A tensor is missing, superfluous, of another shape, no float, or not finite; or no coder is like that.
    """
    tied = kind in RULES and RULES[kind].tied
    for name in ("W_dec",) if tied else ("W_dec", "W_enc"):
        if name not in tensors or tensors[name].ndim != 2 or not tensors[name].numel():
            raise StoreError(f"{place} holds no matrix {name}")
    for name, value in tensors.items():
        if value.dtype not in DTYPES.values():
            raise StoreError(f"{place}: {name} is {value.dtype}; one of {list(DTYPES)} was expected")
    dtype = tensors["W_dec"].dtype if dtype is None else dtype
    d_sae, d_out = tensors["W_dec"].shape
    d_in = d_out if tied else tensors["W_enc"].shape[0]
    k = whole(k, "k", place)
    try:
        with torch.device("meta"):  # sizes are checked before anything is allocated
            coder = Coder(d_in, d_sae, k, kind=kind, d_out=d_out, dtype=dtype, **make)
    except InputError as error:
        raise StoreError(f"{place} describes a coder that cannot be: {error}") from error
    wanted = coder.state_dict()
    if set(tensors) != set(wanted):
        raise StoreError(f"{place} holds {sorted(tensors)}; a coder of its kind has {sorted(wanted)}")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise StoreError(f"{place}: {name} is {list(value.shape)}; expected {list(wanted[name].shape)}")
    ready = {name: _laid(name, value.detach().to(dtype)) for name, value in tensors.items()}
    for name, value in ready.items():
        if not bool(torch.isfinite(value).all()):
            raise StoreError(f"{place}: {name} holds NaN or infinity (as {dtype})")
    coder.load_state_dict(ready, assign=True)
    return coder


def _laid(name: str, value: Tensor) -> Tensor:
    """A copy of our own; of W_enc, a latent's weights lie side by side, as training wants them."""
    return value.T.clone(memory_format=torch.contiguous_format).T if name == "W_enc" else value.clone()


def whole(value: Any, name: str, place: Path) -> int:
    """``value`` if it is a positive whole number that a size can be."""
    if type(value) is not int or not 0 < value < 2**31:
        raise StoreError(f"{place}: {name} = {value!r} is not a positive whole number")
    return value


def card_of(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    card = read_json(path, limit=1 << 24)
    if not isinstance(card, dict):
        raise StoreError(f"{path} is damaged: a JSON object was expected")
    return card


def known(card: Mapping[str, Any], names: Collection[str], place: Path) -> None:
    """Refuse an option that the reader does not know: it may change the codes."""
    for name in card:
        if name not in names:
            raise StoreError(f"{place}: option {name!r} is not known to this reader{nearest(name, names)}")


def refused(place: Path, name: str, value: Any) -> StoreError:
    """The error for an option that would give other codes."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return StoreError(
        f"{place}: {name} = {shown} changes the codes in a way that is not reproduced here, so it is not read"
    )


@torch.no_grad()
def biases(coder: Coder, *, centred: bool) -> dict[str, Tensor]:
    """b_enc (and b_mag of a gated coder) that give the same codes with b_dec taken off the rows first, or not.

    (x - b_dec) W + b = x W + (b - b_dec W); summed in float64. Cost: one matrix-vector product.
    """
    kept = {name: getattr(coder, name).detach() for name in ("b_enc", "b_mag") if hasattr(coder, name)}
    if coder.centred == centred:
        return kept
    shift = coder.b_dec.double() @ coder.W_enc.double() * (1 if centred else -1)
    moved = {"b_enc": (kept["b_enc"].double() + shift).to(coder.W_enc.dtype)}
    if "b_mag" in kept:
        moved["b_mag"] = (kept["b_mag"].double() + coder.r_mag.double().exp() * shift).to(coder.W_enc.dtype)
    return moved


def acts_as(coder: Coder) -> str:
    """The kind that gives the same codes at inference with the fewest words."""
    return "jumprelu" if coder.rule.pooled else "relu" if coder.kind == "panneal" else coder.kind


def not_below(threshold: Tensor) -> Tensor:
    """The number that a positive code is not below exactly where it is above ``threshold``."""
    return torch.where(threshold > 0, _moved(threshold, 1), threshold.clamp(min=0))


@torch.no_grad()
def thresholds(coder: Coder) -> Tensor:
    """[latent] the number above which a code stays on, of a kind that has one; 0 for ReLU."""
    if not hasattr(coder, "threshold"):
        return torch.zeros_like(coder.b_enc)
    edge = coder.threshold.detach()
    if coder.rule.pooled:  # it keeps what is not below
        edge = torch.where(edge > 0, _moved(edge, -1), 0.0).to(edge.dtype)
    return edge.expand(coder.d_sae)


def _moved(value: Tensor, by: int) -> Tensor:
    """The next positive floating-point number above or below."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    return (value.contiguous().view(bits) + by).view(value.dtype)


def json_file(value: Any) -> bytes:
    """A JSON file's bytes."""
    return json_bytes(value, indent=1) + b"\n"
