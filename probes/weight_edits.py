"""Concepts edited out of a linear map in closed form (UCE), and what still leads to them hunted down (RECE)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError

__all__ = ["rece", "uce"]


def uce(
    weight: Float[Tensor, "d_out d_in"],
    keys: Float[Tensor, "concept d_in"],
    values: Float[Tensor, "concept d_out"],
    *,
    preserve: Float[Tensor, "kept d_in"] | None = None,
    strength: float = 0.1,
) -> Float[Tensor, "d_out d_in"]:
    """The weight that sends each key to its value and otherwise stays as it was, as far as possible.

    Minimises sum |W k - v|^2 + sum_preserve |W p - W0 p|^2 + strength |W - W0|^2. As ``strength`` goes to 0 edited
    keys map to their values exactly (if they are linearly independent). The result has the weight's type.

    References
    ----------
    Gandikota et al. 2024, Unified concept editing, (7).
    """
    if strength <= 0:
        raise InputError(f"strength = {strength}; it is above 0 (what holds the weight where it is)")
    if keys.shape[0] != values.shape[0]:
        raise InputError(f"{len(keys)} keys and {len(values)} values; one value a key")
    old, k, v = weight.double(), keys.double(), values.double()
    left = v.T @ k + strength * old
    right = k.T @ k + strength * torch.eye(k.shape[1], dtype=torch.float64, device=k.device)
    if preserve is not None:
        kept = preserve.double().T @ preserve.double()
        left, right = left + old @ kept, right + kept
    return torch.linalg.solve(right, left, left=False).to(weight.dtype)


def rece(
    weight: Float[Tensor, "d_out d_in"],
    keys: Float[Tensor, "concept d_in"],
    values: Float[Tensor, "concept d_out"],
    *,
    preserve: Float[Tensor, "kept d_in"] | None = None,
    strength: float = 0.1,
    n_rounds: int = 5,
) -> Float[Tensor, "d_out d_in"]:
    """:func:`uce`, and then again on the keys that the edited weight still sends where the old one sent the concept.

    Each round derives k' = argmin |W k' - W0 k|^2 + strength |k'|^2, and edits it to the same value.

    References
    ----------
    Gong et al. 2024, Reliable and efficient concept erasure, (6) and (8).
    """
    edited, everything, wanted = uce(weight, keys, values, preserve=preserve, strength=strength), keys, values
    for _ in range(n_rounds):
        now = edited.double()
        gram = now.T @ now + strength * torch.eye(now.shape[1], dtype=torch.float64, device=now.device)
        derived = torch.linalg.solve(gram, now.T @ weight.double() @ keys.double().T).T.to(keys.dtype)
        everything, wanted = torch.cat([everything, derived]), torch.cat([wanted, values])
        edited = uce(weight, everything, wanted, preserve=preserve, strength=strength)
    return edited
