"""Folders as other libraries write them, each with that library's own encode and decode, written out from its source.

Nothing of the toolkit is used here: every function makes small random weights, writes them in the documented layout,
and returns what the library would answer, so that a reader can be held against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D, F, K = 6, 16, 3
Answer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows -> codes, what is written."""


def draws(seed: int = 0, dtype: torch.dtype = torch.float64, d_out: int = D) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, d_out), "b_dec": (d_out,)}
    return {
        name: torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for name, shape in shapes.items()
    }


def vector(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(40, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(dtype)


def top(values: Tensor, k: int = K, *, signed: bool = False) -> Tensor:
    places = (values.abs() if signed else values).topk(k, dim=-1).indices
    kept = values.gather(-1, places)
    return torch.zeros_like(values).scatter(-1, places, kept if signed else kept.relu())


def folder_of(folder: Path, weights: dict[str, Tensor], card: dict[str, Any], *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / names[0])
    (folder / names[1]).write_text(json.dumps(card))
    return folder


def saelens(folder: Path, architecture: str, *, flat: bool = False, **flags: Any) -> Answer:  # noqa: C901 - its options
    """Version 6, or the flat configuration before it."""
    transcoder = "transcoder" in architecture
    w = draws(d_out=4 if transcoder else D)
    extra: dict[str, Tensor] = {}
    if "jumprelu" in architecture:
        extra["threshold"] = vector(1) * 1.5 - 0.5  # some below 0: relu cuts there
    if architecture == "gated":
        extra = {"r_mag": vector(1) - 0.5, "b_mag": vector(2) - 0.5, "b_gate": w["b_enc"]}
    if "batchtopk" in architecture:
        extra["topk_threshold"] = torch.tensor(flags.pop("threshold", 0.7), dtype=torch.float64)
    if "skip" in architecture:
        extra["W_skip"] = torch.randn(4, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if (factor := flags.pop("factor", None)) is not None:
        extra["scaling_factor"] = factor
    saved = {name: value for name, value in (w | extra).items() if architecture != "gated" or name != "b_enc"}
    card: dict[str, Any] = {"d_in": D, "d_sae": F, "dtype": "float64", "device": "cpu"} | flags
    if flat:
        card |= {"model_name": "a", "hook_name": "blocks.0.hook_resid_post"}
        if architecture == "topk":
            card |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
        else:
            card["architecture"] = architecture
    else:
        card |= {"architecture": architecture, "metadata": {"sae_lens_version": "6.54.12"}}
        card |= {"d_out": 4, "apply_b_dec_to_input": False} if transcoder else {}
        card |= {"k": K} if "topk" in architecture else {}
    folder_of(folder, saved, card, "sae_weights.safetensors", "cfg.json")
    centred = flags.get("apply_b_dec_to_input", not transcoder)  # true where the card does not say
    norm = (
        w["W_dec"].norm(dim=1)
        if flags.get("rescale_acts_by_decoder_norm")
        else torch.ones(F, dtype=torch.float64)
    )

    def answer(x: Tensor) -> tuple[Tensor, Tensor]:
        shifted = x - w["b_dec"] if centred else x
        pre = shifted @ w["W_enc"] + w["b_enc"]
        if "batchtopk" in architecture:
            z = (pre * norm).relu() * (pre * norm > extra["topk_threshold"])
        elif "topk" in architecture:
            z = top(pre * norm, signed=architecture == "abstopk")
        elif "jumprelu" in architecture:
            z = pre.relu() * (pre > extra["threshold"])
        elif architecture == "gated":
            z = (pre > 0) * (shifted @ (w["W_enc"] * extra["r_mag"].exp()) + extra["b_mag"]).relu()
        else:
            z = pre.relu()
        out = (z * extra.get("scaling_factor", 1.0) / norm) @ w["W_dec"] + w["b_dec"]
        return z, out + x @ extra["W_skip"].T if "W_skip" in extra else out

    return answer


def sparsify(folder: Path, *, activation: str = "topk", **flags: Any) -> Answer:
    k = 4 if activation == "groupmax" else K
    w = draws()
    saved = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    if flags.get("skip_connection"):
        saved["W_skip"] = torch.randn(D, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    card = {
        "activation": activation,
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": F,
        "k": k,
    }
    card |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D} | flags
    folder_of(folder, saved, card, "sae.safetensors", "cfg.json")

    def answer(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = (x if flags.get("transcode") else x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        if activation == "groupmax":
            found = pre.relu().unflatten(-1, (k, -1)).max(-1)
            z = torch.zeros_like(pre).scatter(-1, found.indices + torch.arange(0, F, F // k), found.values)
        else:
            z = top(pre, signed=bool(flags.get("signed")))
        out = z @ w["W_dec"] + w["b_dec"]
        return z, out + x @ saved["W_skip"].mT if "W_skip" in saved else out

    return answer


def dictionary_learning(folder: Path, name: str, *, threshold: float = 0.6) -> Answer:
    """By class; in float32, as its loader computes."""
    w = draws(dtype=torch.float32)
    linear = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T}
    plain = {
        "AutoEncoder": linear | {"bias": w["b_dec"]},
        "AutoEncoderNew": linear | {"decoder.bias": w["b_dec"]},
    }
    counted = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}
    theta, r, mag = vector(1, torch.float32), vector(2, torch.float32) - 0.5, vector(3, torch.float32) - 0.5
    states = plain | {
        "AutoEncoderTopK": linear | counted | {"b_dec": w["b_dec"]},
        "BatchTopKSAE": linear | counted | {"b_dec": w["b_dec"]},
        "MatryoshkaBatchTopKSAE": w | counted | {"group_sizes": torch.tensor([4, 12])},
        "JumpReluAutoEncoder": w | {"threshold": theta},
        "GatedAutoEncoder": {
            "encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, "decoder_bias": w["b_dec"], "r_mag": r,
            "gate_bias": w["b_enc"], "mag_bias": mag,
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.contiguous() for key, value in states[name].items()}, folder / "ae.pt")
    trainer = {"dict_class": name, "activation_dim": D, "dict_size": F, "layer": 0, "lm_name": "a"}
    trainer |= {"k": K} if "TopK" in name else {}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    norm = w["W_dec"].norm(dim=1) if name == "AutoEncoder" else torch.ones(F)  # its loader normalises

    def answer(x: Tensor) -> tuple[Tensor, Tensor]:
        shifted = x if name in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - w["b_dec"]
        pre = shifted @ w["W_enc"] + w["b_enc"]
        if name == "AutoEncoderTopK":
            z = top(pre.relu())
        elif "BatchTopK" in name:
            z = pre.relu() * (pre.relu() > threshold)
        elif name == "JumpReluAutoEncoder":
            z = (pre * (pre > theta)).relu()
        elif name == "GatedAutoEncoder":
            z = (pre > 0) * (r.exp() * (shifted @ w["W_enc"]) + mag).relu()
        else:
            z = pre.relu() * norm
        return z, (z / norm) @ w["W_dec"] + w["b_dec"]

    return answer


def gemma(
    folder: Path, *, edition: int = 1, lower: bool = False, skip: bool = False, d_out: int = D
) -> Answer:
    w = draws(d_out=d_out) | {"threshold": vector(1)}
    names = {name: name.lower() if lower or edition == 2 else name for name in w}
    saved = {names[name]: value for name, value in w.items()}
    linear = torch.randn(D, d_out, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if skip:
        saved["affine_skip_connection"] = linear
    folder.mkdir(parents=True, exist_ok=True)
    if edition == 1:
        np.savez(folder / "params.npz", **{name: value.numpy() for name, value in saved.items()})  # type: ignore[arg-type]
    else:
        card = {"architecture": "jump_relu", "model_name": "a", "hf_hook_point_in": "model.layers.0.output"}
        card |= {"hf_hook_point_out": "b", "affine_connection": skip} if skip or d_out != D else {}
        folder_of(folder, saved, card, "params.safetensors", "config.json")

    def answer(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ w["W_enc"] + w["b_enc"]
        z = (pre > w["threshold"]) * pre.relu()
        out = z @ w["W_dec"] + w["b_dec"]
        return z, out + x @ linear if skip else out

    return answer
