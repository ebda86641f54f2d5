"""SAELens before version 6: one flat ``cfg.json``; read in ``saelens.py``, written here for tools of that time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sae.coder import Coder
from sae.formats import saelens
from sae.formats.assembly import acts_as, dtype_name, json_file

__all__ = ["files", "lacks"]

_ARCHITECTURES = {"relu": "standard", "topk": "standard", "jumprelu": "jumprelu", "gated": "gated"}


def lacks(coder: Coder) -> str | None:
    """What the flat configuration has no words for."""
    if coder.wiring != "sae":
        return f"the wiring {coder.wiring!r}"
    if acts_as(coder) not in _ARCHITECTURES:
        return f"the kind {coder.kind!r}"
    return None


def files(coder: Coder, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """A folder as version 5 would have it."""
    site = str(provenance.get("site", "")) or None
    card: dict[str, Any] = {
        "architecture": _ARCHITECTURES[acts_as(coder)],
        "d_in": coder.d_in,
        "d_sae": coder.d_sae,
        "dtype": dtype_name(coder),
        "device": "cpu",
        "model_name": provenance.get("model"),
        "hook_name": site or "",
        "hook_layer": int(site.split(".")[1]) if site and site.startswith("blocks.") else 0,
        "hook_head_index": None,
        "activation_fn_str": "topk" if coder.kind == "topk" else "relu",
        "activation_fn_kwargs": {"k": coder.k} if coder.kind == "topk" else {},
        "apply_b_dec_to_input": coder.centred,
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": None,
        "prepend_bos": True,
        "dataset_path": None,
        "dataset_trust_remote_code": False,
        "context_size": None,
        "normalize_activations": "none",
    }
    return {saelens.WEIGHTS: saelens.safe_bytes(saelens.tensors_of(coder)), saelens.CARD: json_file(card)}
