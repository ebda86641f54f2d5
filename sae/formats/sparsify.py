"""sparsify: ``cfg.json`` beside ``sae.safetensors``, one folder a hookpoint.

encoder.weight [d_sae, d_in], encoder.bias, W_dec [d_sae, d_in], b_dec, W_skip [d_in, d_in] (y += W_skip x). Codes are
the k largest of relu(pre), or the largest of each of k equal groups; with ``signed`` (an option of early versions) the
k largest by size. b_dec comes off the rows unless ``transcode``. What is written is as wide as what is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import StoreError
from interp.runs.checkpoints import read_tensors
from sae.coder import Coder
from sae.formats.assembly import assembled, biases, card_of, json_file, known, refused, whole
from sae.formats.saelens import safe_bytes

__all__ = ["CARD", "WEIGHTS", "files", "lacks", "read"]

CARD, WEIGHTS = "cfg.json", "sae.safetensors"
_OPTIONS = (
    "activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "skip_connection",
    "transcode", "d_in", "signed",
)  # fmt: skip
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
_TURNED = ("encoder.weight", "W_skip")


def read(folder: Path) -> Coder:
    """The coder in ``folder``.

    Raises
    ------
    StoreError
        Damaged, or with an option that is not reproduced; the message names it.
    """
    card, tensors = card_of(folder / CARD), read_tensors(folder / WEIGHTS)
    known(card, _OPTIONS, folder / CARD)
    flags = {name: _flag(card, name, folder) for name in ("transcode", "skip_connection", "signed")}
    activation = card.get("activation", "topk")
    if activation not in ("topk", "groupmax") or (flags["signed"] and activation != "topk"):
        raise refused(folder, "activation", activation)
    skip = flags["skip_connection"]
    if skip != ("W_skip" in tensors):
        raise StoreError(f"{folder} says skip_connection = {skip}, but its tensors are {sorted(tensors)}")
    if len(types := {value.dtype for value in tensors.values()}) > 1:
        raise refused(folder, "dtype", sorted(map(str, types)))
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        named[_NAMES.get(name, name)] = value.T if name in _TURNED and value.ndim == 2 else value
    if len(named) < len(tensors):
        raise StoreError(f"{folder} names a tensor twice: {sorted(tensors)}")
    coder = assembled(
        named, kind="abstopk" if flags["signed"] else activation, k=card.get("k"), place=folder,
        wiring="skip" if skip else "transcoder" if flags["transcode"] else "sae", centred=not flags["transcode"],
    )  # fmt: skip
    if activation == "groupmax" and coder.d_sae % coder.k:
        raise refused(folder, "activation", f"groupmax with {coder.d_sae} latents in {coder.k} groups")
    d_in = whole(card.get("d_in"), "d_in", folder)
    latents = card.get("num_latents") or d_in * whole(
        card.get("expansion_factor", 32), "expansion_factor", folder
    )
    if (d_in, d_in, latents) != (coder.d_in, coder.d_out, coder.d_sae):
        raise StoreError(
            f"{folder} says d_in = {d_in} and {latents} latents, but its weights are {coder.d_in} -> {coder.d_sae} "
            f"-> {coder.d_out}"
        )
    return coder


def _flag(card: Mapping[str, Any], name: str, folder: Path) -> bool:
    value = card.get(name, False)
    if not isinstance(value, bool):
        raise refused(folder, name, value)
    return value


def lacks(coder: Coder) -> str | None:
    """What sparsify has no words for."""
    if coder.kind not in ("topk", "groupmax"):
        return f"the kind {coder.kind!r} (it knows topk and groupmax)"
    if coder.wiring not in ("sae", "transcoder", "skip"):
        return f"the wiring {coder.wiring!r}"
    if coder.d_out != coder.d_in:
        return f"rows of width {coder.d_in} written at width {coder.d_out}"
    if coder.kind == "groupmax" and coder.d_sae % coder.k:
        return f"{coder.k} groups that do not divide {coder.d_sae} latents"
    return None


def files(coder: Coder, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The folder of a hookpoint. An autoencoder that leaves b_dec on the rows gets it folded into its bias."""
    transcode = coder.wiring != "sae" and not coder.centred
    tensors = {
        "encoder.weight": coder.W_enc.T,
        "encoder.bias": biases(coder, centred=not transcode)["b_enc"],
        "W_dec": coder.W_dec,
        "b_dec": coder.b_dec,
    }
    if coder.wiring == "skip":
        tensors["W_skip"] = coder.W_skip.T
    card = {
        "activation": coder.kind,
        "expansion_factor": max(1, coder.d_sae // coder.d_in),
        "normalize_decoder": False,  # of training; the directions are as they are
        "num_latents": coder.d_sae,
        "k": coder.k,
        "multi_topk": False,
        "skip_connection": coder.wiring == "skip",
        "transcode": transcode,
        "d_in": coder.d_in,
    }
    return {WEIGHTS: safe_bytes(tensors), CARD: json_file(card)}
