"""What a coder reads and writes, and between which entries of its matrices there is a wire at all.

A crosscoder is an autoencoder of several sites laid side by side in one row; a cross-layer transcoder has an equal
share of its latents at each site, reads that site only, and writes to it and all later ones. Wires that do not exist
are zeros that receive no gradient, so that everything else is the same code.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import InputError

__all__ = ["WIRINGS", "reach"]

WIRINGS = {
    "sae": "reads a site and writes it",
    "transcoder": "reads a site and writes another",
    "skip": "a transcoder beside a linear map",
    "crosscoder": "reads and writes several sites with one code",
    "cross-layer": "reads each site with its own latents and writes it and the later ones",
}


def reach(
    wiring: str, n_sites: int, d_in: int, d_sae: int, d_out: int
) -> tuple[Bool[Tensor, "d_in latent"] | None, Bool[Tensor, "latent d_out"] | None]:
    """Which entries of W_enc and W_dec exist; None for all.

    Raises
    ------
    InputError
        A cross-layer transcoder whose latents its sites do not share evenly.
    """
    if wiring != "cross-layer":
        return None, None
    if d_sae % n_sites:
        raise InputError(f"{d_sae} latents do not divide among {n_sites} sites; choose a multiple")
    home = torch.arange(d_sae) // (d_sae // n_sites)
    source = torch.arange(d_in) // (d_in // n_sites)
    target = torch.arange(d_out) // (d_out // n_sites)
    return source[:, None] == home, home[:, None] <= target
