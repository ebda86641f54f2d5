"""SAELens: ``cfg.json`` beside ``sae_weights.safetensors``, of version 6 and of the flat configurations before it.

W_enc [d_in, d_sae], W_dec [d_sae, d_out], W_skip [d_out, d_in]. What its flags do to the codes:

- ``apply_b_dec_to_input``: b_dec comes off the rows; true where the card does not say.
- ``rescale_acts_by_decoder_norm`` (top-k kinds): pre-activations are multiplied by the norms of the directions before
  the largest are chosen, and codes divided by them again; the same as encoder and directions with the norms folded in.
- ``topk_threshold`` (training checkpoints of batch top-k): compared with ``>``; ours with ``>=``, so it moves one ulp.
- ``normalize_activations``: ``expected_average_only_in`` does nothing at inference; the others divide each row by
  a statistic of its own and are refused.
- ``reshape_activations = "hook_z"`` lays heads side by side, as our rows have them already.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from safetensors.torch import save as save_tensors
from torch import Tensor

from interp.errors import StoreError
from interp.runs.checkpoints import read_tensors
from sae.coder import Coder
from sae.formats.assembly import (
    DTYPES,
    acts_as,
    assembled,
    card_of,
    dtype_name,
    json_file,
    known,
    not_below,
    refused,
    thresholds,
    whole,
)

__all__ = ["CARD", "WEIGHTS", "files", "lacks", "read", "safe_bytes", "tensors_of"]

CARD, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_KINDS = {
    "standard": ("relu", "sae"),
    "topk": ("topk", "sae"),
    "abstopk": ("abstopk", "sae"),
    "batchtopk": ("batchtopk", "sae"),
    "matryoshka_batchtopk": ("matryoshka", "sae"),
    "jumprelu": ("jumprelu", "sae"),
    "gated": ("gated", "sae"),
    "matching_pursuit": ("pursuit", "sae"),
    "transcoder": ("relu", "transcoder"),
    "skip_transcoder": ("relu", "skip"),
    "jumprelu_transcoder": ("jumprelu", "transcoder"),
    "jumprelu_skip_transcoder": ("jumprelu", "skip"),
}
"""Architecture -> kind and wiring."""
_ARCHITECTURES = {made: name for name, made in _KINDS.items()}
_POOLED = ("batchtopk", "matryoshka")
_COUNTED = ("topk", "abstopk", *_POOLED)
_OPTIONS = (
    "architecture", "d_in", "d_sae", "d_out", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
    "reshape_activations", "metadata", "k", "rescale_acts_by_decoder_norm", "residual_threshold", "max_iterations",
    "stop_on_duplicate_support", "finetuning_scaling_factor", "sae_lens_version", "decoder_init_norm", "lp_norm",
    "l1_coefficient", "l1_warm_up_steps", "l0_coefficient", "l0_warm_up_steps", "use_sparse_activations",
    "aux_loss_coefficient", "topk_threshold_lr", "matryoshka_widths", "use_matryoshka_aux_loss",
    "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode", "pre_act_loss_coefficient",
    "jumprelu_tanh_scale", "jumprelu_ste_to_input", "target_l0",
)  # fmt: skip
"""What a card of version 6 may hold; those of training do nothing to codes."""


def read(folder: Path) -> Coder:
    """The coder in ``folder``.

    Raises
    ------
    StoreError
        Damaged, or with an option that is not reproduced; the message names it.
    """
    card, tensors = card_of(folder / CARD), read_tensors(folder / WEIGHTS)
    if (folder / "activation_scaler.json").exists() and card.get("normalize_activations") not in (
        None,
        "none",
    ):
        raise refused(folder, "normalize_activations", f"{card['normalize_activations']}, not folded in yet")
    if _flat(card, folder):
        card, tensors = _modern(card, folder), _finetuned(card, dict(tensors), folder)
    else:
        known(card, _OPTIONS, folder / CARD)
    architecture = card.get("architecture")
    if not isinstance(architecture, str) or architecture not in _KINDS:
        raise refused(folder, "architecture", architecture)
    kind, wiring = _KINDS[architecture]
    _harmless(card, wiring, folder)
    dtype = DTYPES.get(str(card.get("dtype", "float32")).removeprefix("torch."))
    if dtype is None:
        raise refused(folder, "dtype", card["dtype"])
    tensors = _renamed(tensors, kind, dtype, folder)
    coder = assembled(
        tensors, kind=kind, k=_k(card, kind, tensors, folder), place=folder, dtype=dtype, wiring=wiring,
        centred=wiring == "sae" and card.get("apply_b_dec_to_input", True),
    )  # fmt: skip
    _sized(coder, card, folder)
    default = None if kind in _POOLED else False  # a training checkpoint always says
    if kind in _COUNTED and _flag(card, "rescale_acts_by_decoder_norm", default, folder):
        if float(coder.W_dec.detach().norm(dim=1).min()) == 0:
            raise refused(folder, "rescale_acts_by_decoder_norm", "true, with a direction of length 0")
        coder.normalise_()
    return coder


def _flat(card: Mapping[str, Any], folder: Path) -> bool:
    """Whether the card is of a version before 6."""
    inner = card.get("metadata")
    version = card.get("sae_lens_version") or (
        inner.get("sae_lens_version") if isinstance(inner, dict) else None
    )
    if not version:
        return True
    try:
        return Version(str(version)) < Version("6.0.0rc0")
    except InvalidVersion as error:
        raise refused(folder, "sae_lens_version", version) from error


def _modern(card: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A flat card in the words of version 6."""
    activation = card.get("activation_fn_str", card.get("activation_fn", "relu"))
    given = card.get("activation_fn_kwargs")
    modern = {name: card[name] for name in _OPTIONS if name in card}
    modern["architecture"] = card.get("architecture", "standard")
    modern["finetuning_scaling_factor"] = False  # folded in already
    normal = card.get("normalize_activations", "none")
    modern["normalize_activations"] = (
        ("expected_average_only_in" if normal else "none") if isinstance(normal, bool) else normal
    )
    if activation == "topk" and modern["architecture"] in ("standard", "topk"):
        modern["architecture"] = "topk"
        modern["k"] = given.get("k") if isinstance(given, dict) and "k" in given else card.get("k")
    elif activation != "relu":
        raise refused(folder, "activation_fn", activation)
    return modern


def _finetuned(card: Mapping[str, Any], tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Codes were multiplied by a factor a latent before decoding: the directions take it up."""
    names = [name for name in ("scaling_factor", "finetuning_scaling_factor") if name in tensors]
    if not names:
        if card.get("finetuning_scaling_factor", False) not in (False, None):
            raise StoreError(f"{folder} says finetuning_scaling_factor and holds no such tensor")
        return tensors
    factor = tensors.pop(names[0])
    if factor.dtype not in DTYPES.values() or factor.shape != tensors.get("W_dec", factor).shape[:1]:
        raise StoreError(
            f"{folder}: {names[0]} is {factor.dtype} {list(factor.shape)}; a float a latent is expected"
        )
    if bool((factor == 1).all()):
        return tensors
    if card.get("finetuning_scaling_factor") is not True:
        raise refused(folder, names[0], "there, but finetuning_scaling_factor is not true")
    return tensors | {"W_dec": tensors["W_dec"] * factor[:, None]}


def _harmless(card: Mapping[str, Any], wiring: str, folder: Path) -> None:
    for name, values in (
        ("normalize_activations", ("none", "expected_average_only_in", None)),
        ("reshape_activations", ("none", "hook_z", None)),
        ("finetuning_scaling_factor", (False, None)),
    ):
        value = card.get(name)
        if value not in values or (isinstance(value, int) and value is not False):
            raise refused(folder, name, value)
    if _flag(card, "apply_b_dec_to_input", wiring == "sae", folder) and wiring != "sae":
        raise refused(folder, "apply_b_dec_to_input", "true in a transcoder")


def _flag(card: Mapping[str, Any], name: str, default: bool | None, folder: Path) -> bool:
    value = card.get(name, default)
    if not isinstance(value, bool):
        raise refused(folder, name, value)
    return value


def _renamed(tensors: Mapping[str, Tensor], kind: str, dtype: torch.dtype, folder: Path) -> dict[str, Tensor]:
    """Under our names, thresholds as we compare with them."""
    names = {"b_gate": "b_enc", "topk_threshold": "threshold"}
    made = {names.get(name, name): value for name, value in tensors.items()}
    if len(made) < len(tensors):
        raise StoreError(f"{folder} names a tensor twice: {sorted(tensors)}")
    if "W_skip" in made and made["W_skip"].ndim == 2:
        made["W_skip"] = made["W_skip"].T
    if kind == "jumprelu" and "threshold" in made:
        made["threshold"] = made["threshold"].clamp(min=0)  # relu cuts what lies below 0
    if kind in _POOLED:
        if "topk_threshold" not in tensors or tensors["topk_threshold"].ndim:
            raise StoreError(f"{folder}: a number topk_threshold is expected in a checkpoint of {kind}")
        made["threshold"] = not_below(made["threshold"].to(dtype))
    return made


def _k(card: Mapping[str, Any], kind: str, tensors: Mapping[str, Tensor], folder: Path) -> int:
    if kind == "pursuit":
        for name, harmless in (("residual_threshold", 0), ("stop_on_duplicate_support", False)):
            if card.get(name, "its default") != harmless or isinstance(card[name], bool) != isinstance(
                harmless, bool
            ):
                raise refused(folder, name, card.get(name, "its default"))
        steps = card.get("max_iterations")
        return tensors["W_dec"].shape[-1] if steps is None and "W_dec" in tensors else steps  # pyright: ignore
    k = card.get("k", None if kind in ("topk", "abstopk") else 1)
    if kind in _POOLED and isinstance(k, float) and 0 < k < 2**31:
        k = max(1, round(k))  # a mean over rows; the threshold decides
    return whole(k, "k", folder)


def _sized(coder: Coder, card: Mapping[str, Any], folder: Path) -> None:
    for name in ("d_in", "d_sae", "d_out"):
        if name in card and (type(card[name]) is not int or card[name] != getattr(coder, name)):
            raise StoreError(
                f"{folder} says {name} = {card[name]!r}, but its weights have {getattr(coder, name)}"
            )


def lacks(coder: Coder) -> str | None:
    """What SAELens 6 has no words for."""
    if (acts_as(coder), coder.wiring) not in _ARCHITECTURES:
        return f"the kind {coder.kind!r} with the wiring {coder.wiring!r}"
    if coder.wiring != "sae" and coder.centred:
        return f"a {coder.wiring} that takes b_dec off what it reads"
    return None


def files(coder: Coder, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """A folder of version 6, of an inference coder: batch top-k is written as JumpReLU, as SAELens itself does."""
    kind = acts_as(coder)
    site = str(provenance.get("site", "")) or None
    card: dict[str, Any] = {
        "architecture": _ARCHITECTURES[kind, coder.wiring],
        "d_in": coder.d_in,
        "d_sae": coder.d_sae,
        "dtype": dtype_name(coder),
        "device": "cpu",
        "apply_b_dec_to_input": coder.centred,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if site and site.endswith("hook_z") else "none",
        "metadata": {
            "sae_lens_version": "6.0.0",
            "sae_lens_training_version": None,
            "training_architecture": coder.kind,
            "model_name": provenance.get("model"),
            "hook_name": site,
        },
    }
    if kind in ("topk", "abstopk"):
        card |= {"k": coder.k, "rescale_acts_by_decoder_norm": False}
    if kind == "pursuit":
        card |= {"residual_threshold": 0.0, "max_iterations": coder.k, "stop_on_duplicate_support": False}
    if coder.wiring != "sae":
        card["d_out"] = coder.d_out
        card["metadata"]["hook_name_out"] = provenance.get("target")
    return {WEIGHTS: safe_bytes(tensors_of(coder)), CARD: json_file(card)}


def tensors_of(coder: Coder) -> dict[str, Tensor]:
    """Under SAELens' names."""
    made = {name: value.detach() for name, value in coder.state_dict().items()}
    if coder.kind == "gated":
        made["b_gate"] = made.pop("b_enc")
    if "threshold" in made:
        made["threshold"] = thresholds(coder)
    if "W_skip" in made:
        made["W_skip"] = made["W_skip"].T
    return made


def safe_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file."""
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
