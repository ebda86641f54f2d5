"""Other libraries' files: the codes of the library that wrote them, or a refusal that names the option."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sae
from interp.errors import InputError, StoreError
from sae.formats import FOREIGN
from sae.formats.agreement import agreement
from tests.sae import producers
from tests.sae.producers import D, F

REAL = Path(__file__).parents[3] / "shared" / "formats" / "saelens_legacy_othello"


def same(folder: Path, answer: producers.Answer, *, dtype: torch.dtype = torch.float64) -> None:
    """The reader's codes and rows are the library's, to the rounding of one sum of 22 terms of size 10."""
    x = producers.rows(dtype)
    codes, written = answer(x)
    coder = sae.load(folder)
    with torch.no_grad():
        assert coder.W_dec.dtype == dtype
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(coder.encode(x), codes, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(coder(x), written, atol=tolerance, rtol=tolerance)
    assert 0 < float((codes != 0).double().mean()) < 1


@pytest.mark.parametrize("centred", [True, False, None])
@pytest.mark.parametrize("architecture", ["standard", "topk", "abstopk", "jumprelu", "gated"])
def test_saelens_6_gives_its_codes(tmp_path: Path, architecture: str, centred: bool | None) -> None:
    flags = {} if centred is None else {"apply_b_dec_to_input": centred}
    same(tmp_path, producers.saelens(tmp_path, architecture, **flags))


@pytest.mark.parametrize("architecture", ["topk", "abstopk", "batchtopk", "matryoshka_batchtopk"])
def test_saelens_ranks_codes_by_the_length_of_their_directions_where_it_says_so(
    tmp_path: Path, architecture: str
) -> None:
    same(tmp_path, producers.saelens(tmp_path, architecture, rescale_acts_by_decoder_norm=True))


def test_a_saelens_training_checkpoint_compares_strictly_with_its_threshold(tmp_path: Path) -> None:
    answer = producers.saelens(tmp_path, "batchtopk", rescale_acts_by_decoder_norm=False)
    code = float(answer(producers.rows())[0].max())
    answer = producers.saelens(tmp_path, "batchtopk", rescale_acts_by_decoder_norm=False, threshold=code)
    assert int((answer(producers.rows())[0] != 0).sum()) == 0  # nothing is above the largest
    assert int((sae.load(tmp_path).encode(producers.rows()) != 0).sum()) == 0


@pytest.mark.parametrize(
    "architecture", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
)
def test_saelens_transcoders_write_elsewhere(tmp_path: Path, architecture: str) -> None:
    same(tmp_path, producers.saelens(tmp_path, architecture))
    assert sae.load(tmp_path).d_out == 4


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_the_flat_configuration_of_saelens_gives_its_codes(tmp_path: Path, architecture: str) -> None:
    same(tmp_path, producers.saelens(tmp_path, architecture, flat=True, normalize_activations="none"))


def test_a_factor_found_after_training_scales_directions_and_no_codes(tmp_path: Path) -> None:
    factor = producers.vector(5) + 0.5
    same(
        tmp_path,
        producers.saelens(tmp_path, "standard", flat=True, factor=factor, finetuning_scaling_factor=True),
    )


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("transcode", [True, False])
def test_sparsify_gives_its_codes(tmp_path: Path, activation: str, skip: bool, transcode: bool) -> None:
    same(
        tmp_path,
        producers.sparsify(tmp_path, activation=activation, skip_connection=skip, transcode=transcode),
    )


def test_an_early_sparsify_may_keep_signed_codes(tmp_path: Path) -> None:
    same(tmp_path, producers.sparsify(tmp_path, signed=True))


@pytest.mark.parametrize(
    "name",
    ["AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
     "JumpReluAutoEncoder", "GatedAutoEncoder"],
)  # fmt: skip
def test_dictionary_learning_gives_its_codes(tmp_path: Path, name: str) -> None:
    same(tmp_path, producers.dictionary_learning(tmp_path, name), dtype=torch.float32)


def test_a_threshold_that_was_never_set_leaves_every_positive_code_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same(
        tmp_path, producers.dictionary_learning(tmp_path, "BatchTopKSAE", threshold=-1.0), dtype=torch.float32
    )
    assert "was never set" in caplog.text


@pytest.mark.parametrize("lower", [True, False])
def test_gemma_scope_gives_its_codes_from_a_folder_and_from_its_file(tmp_path: Path, lower: bool) -> None:
    answer = producers.gemma(tmp_path, lower=lower)
    same(tmp_path, answer)
    same(tmp_path / "params.npz", answer)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("d_out", [D, 4])
def test_the_second_gemma_scope_gives_its_codes(tmp_path: Path, skip: bool, d_out: int) -> None:
    same(tmp_path, producers.gemma(tmp_path, edition=2, skip=skip, d_out=d_out))


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("architecture", "flags", "said"),
    [
        ("temporal", {}, "architecture = 'temporal'"),
        ("standard", {"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm'"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, "'constant_norm_rescale'"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ("standard", {"reshape_activations": "other"}, "reshape_activations"),
        ("standard", {"apply_b_dec_to_input": 1}, "apply_b_dec_to_input = 1"),
        ("standard", {"brand_new_flag": True}, "option 'brand_new_flag' is not known"),
        ("standard", {"d_in": 7}, "d_in = 7, but its weights have 6"),
        ("standard", {"dtype": "float8"}, "dtype"),
        ("topk", {"rescale_acts_by_decoder_norm": "yes"}, "rescale_acts_by_decoder_norm"),
        ("transcoder", {"apply_b_dec_to_input": True}, "apply_b_dec_to_input"),
        ("batchtopk", {}, "rescale_acts_by_decoder_norm = None"),
    ],
)
def test_what_would_change_the_codes_of_saelens_is_refused_by_name(
    tmp_path: Path, architecture: str, flags: dict[str, Any], said: str
) -> None:
    producers.saelens(tmp_path, architecture)
    card = json.loads((tmp_path / "cfg.json").read_text()) | flags
    (tmp_path / "cfg.json").write_text(json.dumps(card))
    with pytest.raises(StoreError, match=said):
        sae.load(tmp_path)


def test_a_scale_that_lies_beside_the_weights_is_refused_until_it_is_folded_in(tmp_path: Path) -> None:
    answer = producers.saelens(tmp_path, "standard", normalize_activations="expected_average_only_in")
    same(tmp_path, answer)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    with pytest.raises(
        StoreError, match="normalize_activations = 'expected_average_only_in, not folded in yet'"
    ):
        sae.load(tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"activation": "jumprelu"}, "activation = 'jumprelu'"),
        ({"k": 17}, "cannot be"),
        ({"k": 3.0}, "k = 3.0 is not a positive whole number"),
        ({"transcode": "no"}, "transcode = 'no'"),
        ({"skip_connection": True}, "skip_connection = True, but its tensors"),
        ({"num_latents": 15}, "15 latents"),
        ({"temperature": 2}, "option 'temperature' is not known"),
    ],
)
def test_what_would_change_the_codes_of_sparsify_is_refused_by_name(
    tmp_path: Path, flags: dict[str, Any], said: str
) -> None:
    producers.sparsify(tmp_path)
    card = json.loads((tmp_path / "cfg.json").read_text()) | flags
    (tmp_path / "cfg.json").write_text(json.dumps(card))
    with pytest.raises(StoreError, match=said):
        sae.load(tmp_path)


def test_pursuit_that_may_stop_early_is_refused_and_one_that_may_not_is_read(tmp_path: Path) -> None:
    w = producers.draws()
    card = {
        "architecture": "matching_pursuit",
        "d_in": D,
        "d_sae": F,
        "dtype": "float64",
        "max_iterations": 3,
    }
    card |= {"metadata": {"sae_lens_version": "6.54.12"}, "stop_on_duplicate_support": False}
    weights = {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}
    names = ("sae_weights.safetensors", "cfg.json")
    producers.folder_of(tmp_path / "a", weights, card, *names)
    with pytest.raises(StoreError, match="residual_threshold = 'its default'"):
        sae.load(tmp_path / "a")
    producers.folder_of(tmp_path / "b", weights, card | {"residual_threshold": 0.0}, *names)
    x, rest = producers.rows(), producers.rows() - w["b_dec"]
    codes = torch.zeros(len(x), F, dtype=torch.float64)
    for _ in range(3):
        best = (rest @ w["W_dec"].T).relu().max(1, keepdim=True).indices
        value = (rest * w["W_dec"][best[:, 0]]).sum(1, keepdim=True).relu()
        codes.scatter_add_(1, best, value)
        rest = rest - value * w["W_dec"][best[:, 0]]
    torch.testing.assert_close(sae.load(tmp_path / "b").encode(x), codes)


@pytest.mark.parametrize("shape", [(D,), (F, D, 1), (0, D)])
def test_tensors_that_cannot_be_a_coder_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    producers.saelens(tmp_path, "standard")
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file(
        weights | {"W_dec": torch.zeros(shape, dtype=torch.float64)}, tmp_path / "sae_weights.safetensors"
    )
    with pytest.raises(StoreError, match="W_dec"):
        sae.load(tmp_path)


def test_two_coders_in_one_folder_are_told_apart_only_by_file(tmp_path: Path) -> None:
    producers.saelens(tmp_path, "standard")
    answer = producers.gemma(tmp_path)
    with pytest.raises(StoreError, match="say which file is meant"):
        sae.load(tmp_path)
    same(tmp_path / "params.npz", answer)
    with pytest.raises(InputError, match="already holds a coder"):
        sae.save(sae.Coder(4, 8, 2), tmp_path)


def test_nothing_and_a_folder_of_something_else_are_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        sae.load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(StoreError, match="no weights of a known format"):
        sae.load(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="a real folder of an early SAELens is not here")
def test_a_real_folder_from_before_version_6_is_read() -> None:
    made, w = sae.load(REAL), load_file(REAL / "sae_weights.safetensors")
    assert (made.kind, made.d_in, made.d_sae, made.centred) == ("relu", 128, 1024, False)
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    codes = (x @ w["W_enc"] + w["b_enc"]).relu()
    with torch.no_grad():
        torch.testing.assert_close(made.encode(x), codes)
        torch.testing.assert_close(made(x), codes @ w["W_dec"] + w["b_dec"])


@pytest.mark.skipif(not REAL.is_dir(), reason="a real folder of an early SAELens is not here")
@pytest.mark.parametrize("format", sorted(FOREIGN))
def test_a_real_coder_comes_back_from_every_format_that_has_words_for_it(tmp_path: Path, format: str) -> None:
    made = sae.load(REAL)
    if format == "sparsify":
        with pytest.raises(InputError, match="the kind 'relu'"):
            sae.save(made, tmp_path, format=format)
        return
    sae.save(made, tmp_path, format=format)
    (tmp_path / "interp.json").unlink()  # as one of theirs, by its own files alone
    apart = agreement(made, sae.load(tmp_path), n_rows=64)
    assert apart["l0"] > 0
    assert max(apart["codes"], apart["rows"]) < 1e-5
