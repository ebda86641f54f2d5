"""dictionary_learning: ``config.json`` beside ``ae.pt``, a state dict that torch.save wrote, read with weights_only.

encoder.weight [d_sae, d], decoder.weight [d, d_sae]; the matryoshka and JumpReLU classes have W_enc [d, d_sae] and
W_dec. What its classes do:

- AutoEncoder takes its ``bias`` off the rows; loaded, its directions are brought to unit norm and its codes multiplied
  by the old norms. AutoEncoderNew and JumpReluAutoEncoder leave the rows as they are.
- All compute in float32, whatever the file holds.
- AutoEncoderTopK keeps the k largest of each row and does not use its ``threshold``. BatchTopKSAE and
  MatryoshkaBatchTopKSAE keep what is above theirs; at -1 it was never set, and every positive code stays on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import StoreError, nearest
from sae.coder import Coder
from sae.config import TrainConfig
from sae.formats.archives import pt_bytes, read_pt
from sae.formats.assembly import (
    DTYPES,
    acts_as,
    assembled,
    biases,
    card_of,
    dtype_name,
    json_file,
    not_below,
    refused,
    thresholds,
    whole,
)

__all__ = ["CARD", "WEIGHTS", "files", "lacks", "read"]

CARD, WEIGHTS = "config.json", "ae.pt"
_log = logging.getLogger(__name__)
_LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
_CLASSES: dict[str, tuple[str, bool, dict[str, str]]] = {
    "AutoEncoder": ("relu", True, _LINEAR | {"bias": "b_dec"}),
    "AutoEncoderNew": ("relu", False, _LINEAR | {"decoder.bias": "b_dec"}),
    "AutoEncoderTopK": ("topk", True, _LINEAR),
    "BatchTopKSAE": ("batchtopk", True, _LINEAR),
    "MatryoshkaBatchTopKSAE": ("matryoshka", True, {}),
    "JumpReluAutoEncoder": ("jumprelu", False, {}),
    "GatedAutoEncoder": (
        "gated",
        True,
        {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "decoder_bias": "b_dec", "gate_bias": "b_enc",
         "mag_bias": "b_mag"},
    ),
}  # fmt: skip
"""Class -> kind, whether b_dec comes off the rows, and our names for its tensors."""
_WHOLE = (torch.int32, torch.int64)
_COUNTED = ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def read(folder: Path) -> Coder:
    """The coder in ``folder``, as the library's own loader gives it.

    Raises
    ------
    StoreError
        Damaged, of a class that is not known, or holding more than tensors.
    """
    trainer = card_of(folder / CARD).get("trainer")
    if not isinstance(trainer, dict):
        raise StoreError(f"{folder / CARD} describes no trainer")
    name = trainer.get("dict_class")
    if not isinstance(name, str) or name not in _CLASSES:
        raise StoreError(f"{folder}: dict_class = {name!r} is not read{nearest(str(name), _CLASSES)}")
    kind, centred, names = _CLASSES[name]
    tensors = read_pt(folder / WEIGHTS)
    k = _taken(tensors, trainer, name, folder)
    made = {names.get(old, old): value for old, value in tensors.items()}
    if len(made) < len(tensors):
        raise StoreError(f"{folder} names a tensor twice: {sorted(tensors)}")
    for ours in ("W_enc", "W_dec") if names else ():
        if ours in made and made[ours].ndim == 2:
            made[ours] = made[ours].T
    if "threshold" in made:
        made["threshold"] = _threshold(made["threshold"], kind, folder)
    if name == "AutoEncoderTopK":
        made.pop("threshold", None)
    coder = assembled(made, kind=kind, k=k, place=folder, dtype=torch.float32, centred=centred)
    for told, have in (("activation_dim", coder.d_in), ("dict_size", coder.d_sae)):
        if trainer.get(told, have) != have:
            raise StoreError(f"{folder} says {told} = {trainer[told]!r}, but its weights have {have}")
    if name == "AutoEncoder" and not torch.allclose(coder.W_dec.detach().norm(dim=1), torch.ones(())):
        coder.normalise_()
    return coder


def _taken(tensors: dict[str, Tensor], trainer: Mapping[str, Any], name: str, folder: Path) -> int:
    """k, which card and weights must agree on, and the group sizes out of the way."""
    if name not in _COUNTED:
        return 1
    k = tensors.pop("k", None)
    if k is None or k.ndim or k.dtype not in _WHOLE or int(k) != trainer.get("k", int(k)):
        raise StoreError(f"{folder}: k is {k} in the weights and {trainer.get('k')!r} in {CARD}")
    if name == "MatryoshkaBatchTopKSAE":
        sizes = tensors.pop("group_sizes", None)
        latents = tensors["b_enc"].numel() if "b_enc" in tensors else -1
        if sizes is None or sizes.ndim != 1 or sizes.dtype not in _WHOLE or not bool((sizes > 0).all()) or (
            int(sizes.sum()) != latents
        ):  # fmt: skip
            raise StoreError(f"{folder}: group_sizes do not make up the latents")
    return whole(int(k), "k", folder)


def _threshold(threshold: Tensor, kind: str, folder: Path) -> Tensor:
    if threshold.dtype not in DTYPES.values() or not bool(torch.isfinite(threshold).all()):
        raise StoreError(f"{folder}: threshold is no finite number")
    if kind not in ("batchtopk", "matryoshka"):
        return threshold.clamp(min=0) if kind == "jumprelu" else threshold
    if threshold.ndim:
        raise refused(folder, "threshold", f"of shape {list(threshold.shape)}")
    if float(threshold) < 0:
        _log.warning(
            "%s: the threshold was never set, so every positive code stays on (its training was short)",
            folder,
        )
    return not_below(threshold.float())


def lacks(coder: Coder) -> str | None:
    """What dictionary_learning has no words for."""
    if coder.wiring != "sae":
        return f"the wiring {coder.wiring!r}"
    if acts_as(coder) not in ("relu", "topk", "jumprelu", "gated"):
        return f"the kind {coder.kind!r}"
    if coder.W_dec.dtype != torch.float32:
        return f"{dtype_name(coder)} (it computes in float32; coder.float() does too)"
    return None


def files(coder: Coder, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """Its folder. b_dec is folded into the encoder's biases where a class wants it off the rows, or on them."""
    name = _class(coder)
    _, centred, names = _CLASSES[name]
    made = {n: v.detach() for n, v in coder.state_dict().items()} | biases(coder, centred=centred)
    site = str(provenance.get("site", ""))
    trainer: dict[str, Any] = {
        "dict_class": name,
        "activation_dim": coder.d_in,
        "dict_size": coder.d_sae,
        "layer": int(site.split(".")[1]) if site.startswith("blocks.") else None,
        "lm_name": provenance.get("model"),
        "submodule_name": site or None,
    }
    if name in _COUNTED:
        trainer["k"] = coder.k
        made["k"] = torch.tensor(coder.k, dtype=torch.int)
        made["threshold"] = thresholds(coder)[0] if coder.rule.pooled else torch.tensor(-1.0)
    if coder.kind == "matryoshka":
        made["group_sizes"] = torch.tensor(_groups(coder, provenance))
    theirs = {ours: old for old, ours in names.items()}
    tensors = {
        theirs.get(ours, ours): value.T if names and ours in ("W_enc", "W_dec") else value
        for ours, value in made.items()
    }
    return {WEIGHTS: pt_bytes(tensors), CARD: json_file({"trainer": trainer, "buffer": {}})}


def _class(coder: Coder) -> str:
    if coder.kind in (
        "relu",
        "panneal",
    ):  # AutoEncoder would be normalised by its loader, which changes codes
        return "AutoEncoderNew"
    return next(name for name, (kind, _, _) in _CLASSES.items() if kind == coder.kind)


def _groups(coder: Coder, provenance: Mapping[str, Any]) -> list[int]:
    """Sizes of the nested groups: those of the training where it is known, else the usual ones."""
    config = provenance.get("config")
    config = config if isinstance(config, Mapping) else {}
    prefixes = config.get("prefixes") or TrainConfig(kind="matryoshka", d_sae=coder.d_sae, k=1).widths
    return [wide - narrow for narrow, wide in zip((0, *prefixes), prefixes, strict=False)]
