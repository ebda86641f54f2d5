"""Gemma Scope: ``params.npz`` with no card, and its second edition, ``params.safetensors`` beside ``config.json``.

Both are JumpReLU: z = relu(pre) where pre > threshold, pre = x W_enc + b_enc, b_dec never taken off the rows. W_enc is
[d_in, d_sae], W_dec [d_sae, d_out]; names may be in lower case. The second edition's ``affine_skip_connection`` is
[d_in, d_out]. The embedding coders of the first read sqrt(d_in) times an embedding, as Gemma itself does;
``coder.rescaled`` brings one to unscaled rows. ReLU is JumpReLU with a threshold of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import StoreError
from interp.runs.checkpoints import read_tensors
from sae.coder import Coder
from sae.formats.archives import npz_bytes, read_npz
from sae.formats.assembly import DTYPES, acts_as, assembled, biases, card_of, json_file, refused, thresholds
from sae.formats.saelens import safe_bytes

__all__ = [
    "NPZ",
    "SAFE",
    "files_npz",
    "files_safe",
    "lacks",
    "lacks_npz",
    "read_npz_folder",
    "read_safe_folder",
]

NPZ, SAFE, CARD = "params.npz", "params.safetensors", "config.json"
_SKIP = "affine_skip_connection"


def read_npz_folder(folder: Path) -> Coder:
    """A coder of the first edition.

    Raises
    ------
    StoreError
        Damaged, or holding other tensors.
    """
    return _read(read_npz(folder / NPZ), folder)


def read_safe_folder(folder: Path) -> Coder:
    """A coder of the second edition; a transcoder where the card says what is written.

    Raises
    ------
    StoreError
        Damaged, or of another architecture.
    """
    card = card_of(folder / CARD)
    if card.get("architecture") != "jump_relu":
        raise refused(folder, "architecture", card.get("architecture"))
    tensors = read_tensors(folder / SAFE)
    affine = card.get("affine_connection", _SKIP in tensors)
    if affine is not (_SKIP in tensors):
        raise StoreError(
            f"{folder} says affine_connection = {affine!r}, but its tensors are {sorted(tensors)}"
        )
    return _read(tensors, folder, written="hf_hook_point_out" in card)


def _read(tensors: Mapping[str, Tensor], folder: Path, *, written: bool = False) -> Coder:
    made = {"W_" + name[2:] if name.startswith("w_") else name: value for name, value in tensors.items()}
    if len(made) < len(tensors):
        raise StoreError(f"{folder} names a tensor twice: {sorted(tensors)}")
    if "W_dec" in made and made["W_dec"].ndim == 3:
        raise StoreError(f"{folder} is a cross-layer transcoder, whose W_dec has three axes; it is not read")
    skip = _SKIP in made
    if skip:
        made["W_skip"] = made.pop(_SKIP)
    if "threshold" in made and made["threshold"].dtype in DTYPES.values():
        made["threshold"] = made["threshold"].clamp(min=0)
    other = "W_dec" in made and "W_enc" in made and made["W_dec"].shape[-1] != made["W_enc"].shape[0]
    wiring = "skip" if skip else "transcoder" if written or other else "sae"
    return assembled(made, kind="jumprelu", k=1, place=folder, wiring=wiring, centred=False)


def lacks(coder: Coder) -> str | None:
    """What the second edition has no words for."""
    if acts_as(coder) not in ("jumprelu", "relu"):
        return f"the kind {coder.kind!r} (it knows codes above a threshold only)"
    if coder.wiring not in ("sae", "transcoder", "skip"):
        return f"the wiring {coder.wiring!r}"
    return None


def lacks_npz(coder: Coder) -> str | None:
    """What the first edition has no words for."""
    if coder.wiring == "skip":
        return "a skip"
    if coder.W_dec.dtype == torch.bfloat16:
        return "bfloat16, which numpy has not"
    return lacks(coder)


def files_npz(coder: Coder, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The one file of the first edition."""
    return {NPZ: npz_bytes(_tensors(coder))}


def files_safe(coder: Coder, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The two files of the second."""
    skip = coder.wiring == "skip"
    tensors = {name.lower(): value for name, value in _tensors(coder).items()}
    if skip:
        tensors[_SKIP] = tensors.pop("w_skip")
    card = {
        "architecture": "jump_relu",
        "model_name": provenance.get("model"),
        "width": coder.d_sae,
        "hf_hook_point_in": provenance.get("site"),
        "affine_connection": skip,
    }
    if coder.wiring != "sae":
        card["hf_hook_point_out"] = provenance.get("target")
    return {SAFE: safe_bytes(tensors), CARD: json_file(card)}


def _tensors(coder: Coder) -> dict[str, Tensor]:
    """JumpReLU that reads rows as they are."""
    made = {name: value.detach() for name, value in coder.state_dict().items()}
    return made | biases(coder, centred=False) | {"threshold": thresholds(coder)}
