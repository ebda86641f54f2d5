"""Other libraries' files: the same codes as their documented formula, or a refusal that names the option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sae
from interp.errors import StoreError

REAL = Path(__file__).parents[3] / "shared" / "formats" / "saelens_legacy_othello"


def tensors(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    made = {"W_enc": (6, 16), "b_enc": (16,), "W_dec": (16, 6), "b_dec": (6,)}
    return {name: torch.randn(shape, generator=g) for name, shape in made.items()} | more


def saelens(folder: Path, weights: dict[str, torch.Tensor], **card: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": 6, "d_sae": 16} | card))
    return folder


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_saelens_folders_give_their_codes(tmp_path: Path, architecture: str, centred: bool) -> None:
    threshold = {"threshold": torch.rand(16)} if architecture == "jumprelu" else {}
    w, x = tensors(**threshold), torch.randn(9, 6)
    made = sae.load(saelens(tmp_path / "a", w, architecture=architecture, k=3, apply_b_dec_to_input=centred))
    pre = (x - w["b_dec"] if centred else x) @ w["W_enc"] + w["b_enc"]
    if architecture == "topk":
        top = pre.topk(3)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    else:
        z = pre * (pre > threshold["threshold"]) if threshold else pre.relu()
    with torch.no_grad():
        torch.testing.assert_close(made.encode(x), z, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made(x), z @ w["W_dec"] + w["b_dec"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ({"architecture": "temporal"}, "architecture"),
        ({"architecture": "standard", "normalize_activations": "layer_norm"}, "normalize_activations"),
        (
            {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True},
            "rescale_acts_by_decoder_norm",
        ),
        ({"architecture": "topk", "k": 99}, "cannot be"),
        ({"architecture": "jumprelu"}, "threshold"),
    ],
)
def test_what_would_change_codes_is_refused_by_name(tmp_path: Path, card: dict, name: str) -> None:
    with pytest.raises(StoreError, match=name):
        sae.load(saelens(tmp_path / "a", tensors(), **card))


def test_sparsify_subtracts_the_decoder_bias_and_keeps_its_encoder_latent_by_latent(tmp_path: Path) -> None:
    w, x = tensors(), torch.randn(9, 6)
    named = {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"], "W_dec": w["W_dec"]}
    save_file(named | {"b_dec": w["b_dec"]}, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text(
        json.dumps({"k": 3, "d_in": 6, "num_latents": 16, "activation": "topk"})
    )
    top = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu().topk(3)
    with torch.no_grad():
        made = sae.load(tmp_path)(x)
    expected = (top.values[..., None] * w["W_dec"][top.indices]).sum(1) + w["b_dec"]
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(not REAL.is_dir(), reason="a real folder of an early SAELens is not here")
def test_a_real_folder_from_before_version_6_is_read() -> None:
    made = sae.load(REAL)
    assert (made.kind, made.d_in, made.d_sae, made.centred) == ("relu", 128, 1024, False)
