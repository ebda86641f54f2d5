"""Coders that other libraries wrote, read from their files alone; what would change codes is refused by name.

SAELens (6 and the flat configuration before it) and sparsify. Layouts: SAELens keeps W_enc [d_in, d_sae] and W_dec
[d_sae, d_in] beside ``cfg.json``; sparsify keeps ``encoder.weight`` [d_sae, d_in] and W_dec [d_sae, d_in].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError, StoreError
from interp.runs.checkpoints import read_tensors
from interp.runs.files import read_json
from sae.coder import Coder

__all__ = ["read_foreign"]

_SAELENS = {
    "standard": "relu",
    "topk": "topk",
    "abstopk": "abstopk",
    "jumprelu": "jumprelu",
    "gated": "gated",
}
_GATED = {"b_gate": "b_enc"}


def read_foreign(folder: Path) -> Coder | None:
    """The coder in ``folder``; None if no other library's files are there.

    Raises
    ------
    StoreError
        Damaged, or with an option that this reader does not reproduce; the message names it.
    """
    if not (folder / "cfg.json").is_file():
        return None
    card = read_json(folder / "cfg.json")
    if not isinstance(card, dict):
        raise StoreError(f"{folder / 'cfg.json'} is damaged: a JSON object was expected")
    if (folder / "sae_weights.safetensors").is_file():
        return _saelens(card, read_tensors(folder / "sae_weights.safetensors"), folder)
    if (folder / "sae.safetensors").is_file():
        return _sparsify(card, read_tensors(folder / "sae.safetensors"), folder)
    return None


def _saelens(card: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Coder:
    kind = _SAELENS.get(str(card.get("architecture", "standard")))
    k = card.get("k", 1)
    if (
        "activation_fn_str" in card
    ):  # the flat configuration: the activation says what the architecture did not
        name = card["activation_fn_str"]
        kind = {"relu": kind, "topk": "topk"}.get(name)
        k = (card.get("activation_fn_kwargs") or card.get("activation_fn") or {}).get("k", k)
    if kind is None:
        raise _refused(folder, "architecture", card.get("architecture", card.get("activation_fn_str")))
    for name, harmless in (
        ("normalize_activations", ("none", None)),
        ("reshape_activations", ("none", None)),
        ("finetuning_scaling_factor", (False, None)),
    ):
        if card.get(name) not in harmless:
            raise _refused(folder, name, card[name])
    if "scaling_factor" in tensors:
        raise _refused(folder, "finetuning_scaling_factor", True)
    centred = card.get("apply_b_dec_to_input", False)
    if not isinstance(centred, bool):
        raise _refused(folder, "apply_b_dec_to_input", centred)
    norms = (
        tensors["W_dec"].norm(dim=1) if "W_dec" in tensors and tensors["W_dec"].ndim == 2 else torch.ones(1)
    )
    if card.get("rescale_acts_by_decoder_norm") and float((norms - 1).abs().max()) > 1e-3:
        raise _refused(
            folder, "rescale_acts_by_decoder_norm", "true, with directions that are not of unit norm"
        )
    if "threshold" in tensors and bool((tensors["threshold"] < 0).any()):
        raise _refused(folder, "threshold", "negative")
    renamed = {_GATED.get(name, name): value for name, value in tensors.items()}
    return _filled(renamed, kind, k, centred, folder)


def _sparsify(card: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Coder:
    if card.get("activation", "topk") != "topk":
        raise _refused(folder, "activation", card["activation"])
    if card.get("transcode") or card.get("skip_connection") or "W_skip" in tensors:
        raise _refused(folder, "transcode / skip_connection", True)
    named = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
    renamed = {
        named.get(name, name): v.T if name == "encoder.weight" and v.ndim == 2 else v
        for name, v in tensors.items()
    }
    return _filled(renamed, "topk", card.get("k"), True, folder)


def _filled(tensors: Mapping[str, Tensor], kind: str, k: Any, centred: bool, folder: Path) -> Coder:
    from sae.storage import fill

    for name in ("W_enc", "W_dec"):
        if name not in tensors or tensors[name].ndim != 2 or not tensors[name].is_floating_point():
            raise StoreError(f"{folder} holds no matrix {name}")
    d_sae, d_in = tensors["W_dec"].shape
    if type(k) is not int:
        raise _refused(folder, "k", k)
    try:
        coder = Coder(d_in, d_sae, k, kind=kind, centred=centred, dtype=tensors["W_dec"].dtype)
    except InputError as error:
        raise StoreError(f"{folder} describes a coder that cannot be: {error}") from error
    return fill(coder, tensors, folder)


def _refused(folder: Path, name: str, value: Any) -> StoreError:
    return StoreError(
        f"{folder}: {name} = {value!r} changes the codes in a way that is not reproduced here, so it is not read"
    )
