"""Every kind and wiring into every format and back: the same codes and rows, or the name of what cannot be said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sae
from interp.errors import InputError
from sae.formats.agreement import agreement, telling_rows
from sae.rules import RULES
from sae.storage import FORMATS

ABLE = {
    "native": {*RULES},
    "saelens": {*RULES} - {"groupmax", "codebook"},
    "saelens_legacy": {"relu", "panneal", "topk", "jumprelu", "batchtopk", "matryoshka", "gated"},
    "sparsify": {"topk", "groupmax"},
    "dictionary_learning": {"relu", "panneal", "topk", "jumprelu", "batchtopk", "matryoshka", "gated"},
    "gemma_scope": {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
    "gemma_scope_2": {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
}
"""The kinds of autoencoder that each format has words for, as docs/sae.md tells them."""
WIRED = {
    ("saelens", "transcoder"): {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
    ("saelens", "skip"): {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
    ("sparsify", "transcoder"): {"topk", "groupmax"},
    ("sparsify", "skip"): {"topk", "groupmax"},
    ("gemma_scope", "transcoder"): {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
    ("gemma_scope_2", "transcoder"): {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
    ("gemma_scope_2", "skip"): {"relu", "panneal", "jumprelu", "batchtopk", "matryoshka"},
}


def coder(kind: str, wiring: str = "sae", *, dtype: torch.dtype = torch.float32, **make: object) -> sae.Coder:
    """One with nothing at 0: biases, thresholds, directions of unequal length."""
    made = sae.Coder(12, 48, 6, kind=kind, wiring=wiring, dtype=dtype, **make)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in made.state_dict().items():
            noise = torch.randn(value.shape, generator=g, dtype=torch.float64).to(dtype)
            value.add_(0.3 * noise).abs_() if name == "threshold" else value.add_(0.3 * noise)
    return made


def there_and_back(made: sae.Coder, folder: Path, format: str, tolerance: float) -> None:
    found = sae.load(sae.save(made, folder, format=format))
    told = agreement(made, found, tolerance=tolerance)
    assert max(told["codes"], told["rows"], told["undecided"]) <= tolerance, told
    assert 0 < told["l0"] < made.d_sae  # codes that are all off, or all on, prove nothing


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", sorted(RULES))
@pytest.mark.parametrize("format", FORMATS)
def test_an_autoencoder_comes_back_with_its_codes_or_the_format_says_why_not(
    tmp_path: Path, format: str, kind: str, centred: bool
) -> None:
    made = coder(kind, centred=centred)
    if kind not in ABLE[format]:
        with pytest.raises(InputError, match=f"{format} has no words for the kind {kind!r}.*native"):
            sae.save(made, tmp_path, format=format)
        assert not list(tmp_path.iterdir())
        return
    there_and_back(made, tmp_path, format, 1e-6)


@pytest.mark.parametrize("kind", sorted(k for k, rule in RULES.items() if not rule.tied))
@pytest.mark.parametrize("wiring", ["transcoder", "skip", "crosscoder", "cross-layer"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_writes_elsewhere_comes_back_or_the_format_says_why_not(
    tmp_path: Path, format: str, wiring: str, kind: str
) -> None:
    n_sites = 3 if wiring in ("crosscoder", "cross-layer") else 1
    made = coder(kind, wiring, n_sites=n_sites)
    if format == "native" or kind in WIRED.get((format, wiring), ()):
        there_and_back(made, tmp_path, format, 1e-6)
        return
    with pytest.raises(InputError, match=f"{format} has no words for"):
        sae.save(made, tmp_path, format=format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_float_types_come_back_exactly_or_are_refused_by_name(
    tmp_path: Path, format: str, dtype: torch.dtype
) -> None:
    made = coder("topk" if format == "sparsify" else "jumprelu", dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    if format == "dictionary_learning" or (format == "gemma_scope" and dtype == torch.bfloat16):
        with pytest.raises(InputError, match=name):
            sae.save(made, tmp_path, format=format)
        return
    if dtype == torch.float64:
        there_and_back(made, tmp_path, format, 1e-12)
        return
    made.centred = format not in ("gemma_scope", "gemma_scope_2")  # nothing to fold, so nothing may change
    there_and_back(made, tmp_path, format, 0.0)


@pytest.mark.parametrize("format", sorted(ABLE.keys() - {"native", "sparsify"}))
def test_a_code_at_the_threshold_of_batch_topk_stays_on(tmp_path: Path, format: str) -> None:
    """Ours keeps what is not below the threshold, theirs what is above: the written number lies one ulp lower."""
    made = sae.Coder(2, 2, 1, kind="batchtopk", centred=False)
    with torch.no_grad():
        made.W_enc.copy_(torch.eye(2))
        made.threshold.fill_(0.7)
    x = torch.tensor([[0.7, 0.1], [0.0, float(torch.nextafter(torch.tensor(0.7), torch.tensor(0.0)))]])
    assert (made.encode(x) != 0).tolist() == [[True, False], [False, False]]
    if format == "dictionary_learning":  # it takes b_dec off the rows; here that is 0
        made.centred = True
    found = sae.load(sae.save(made, tmp_path, format=format))
    assert (found.encode(x) != 0).tolist() == [[True, False], [False, False]]


def test_what_is_known_of_a_coder_goes_where_a_format_has_a_place(tmp_path: Path) -> None:
    known = {"model": "gpt2", "site": "blocks.3.attn.hook_z", "config": {"prefixes": [8, 48]}}
    sae.save(coder("topk"), tmp_path / "a", format="saelens", provenance=known)
    card = json.loads((tmp_path / "a" / "cfg.json").read_text())
    assert (card["metadata"]["model_name"], card["metadata"]["hook_name"]) == ("gpt2", "blocks.3.attn.hook_z")
    assert card["reshape_activations"] == "hook_z"
    sae.save(coder("matryoshka"), tmp_path / "b", format="dictionary_learning", provenance=known)
    state = torch.load(tmp_path / "b" / "ae.pt", weights_only=True)
    assert state["group_sizes"].tolist() == [8, 40]


def test_provenance_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for value in (object(), float("nan"), {1, 2}):
        for format in ("native", "saelens"):
            with pytest.raises(InputError, match="provenance is kept as JSON"):
                sae.save(coder("topk"), tmp_path, format=format, provenance={"x": value})
    assert not list(tmp_path.iterdir())


def test_saving_changes_neither_the_coder_nor_what_loads_share(tmp_path: Path) -> None:
    made = coder("gated", centred=False)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    folder = sae.save(made, tmp_path, format="dictionary_learning")
    one, two = sae.load(folder), sae.load(folder)
    with torch.no_grad():
        one.W_enc.zero_()
    assert float(two.W_enc.detach().abs().sum()) > 0
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])


def test_latents_that_are_equal_up_to_rounding_are_undecided_and_wrong_ones_are_not() -> None:
    made = sae.Coder(8, 32, 3, seed=3)
    noise = 2e-7 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # four pairs: which of two is kept is a matter of rounding
        made.W_enc[:, 1:8:2] = made.W_enc[:, 0:8:2] + noise
    other = made.alike()
    other.load_state_dict(made.state_dict())
    with torch.no_grad():
        other.b_enc[1:8:2] += 6e-7
    told = agreement(made, other)
    assert told["undecided"] > 0
    assert told["codes"] <= 1e-5
    with torch.no_grad():
        other.b_enc[20] += 0.1
    assert agreement(made, other)["codes"] > 0.01


def test_rows_that_tell_make_some_latents_fire_and_others_not() -> None:
    for kind in RULES:
        made = coder(kind)
        codes = made.encode(telling_rows(made, 128, seed=0))
        assert 0 < float((codes != 0).double().mean()) < 1, kind
        assert float((codes != 0).any(0).double().mean()) > 0.5, kind
