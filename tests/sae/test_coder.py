"""The coder and its files: sparse and dense forms agree, folding is exact, and only a sound folder is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import sae
from interp.errors import InputError, StoreError
from interp.stores.manifest import sealed, unsealed


def coder(d: int = 6, n: int = 20, k: int = 3) -> sae.Coder:
    made = sae.Coder(d, n, k, seed=1)
    with torch.no_grad():
        made.W_enc.add_(0.1 * torch.randn(d, n, generator=torch.Generator().manual_seed(2)))
        made.b_enc.normal_(generator=torch.Generator().manual_seed(3)).mul_(0.1)
        made.b_dec.normal_(generator=torch.Generator().manual_seed(4))
    return made


def rows(n: int = 40, d: int = 6) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_at_most_k_codes_are_used_and_they_are_the_largest() -> None:
    made, x = coder(), rows()
    with torch.no_grad():
        codes = made.encode(x)
        pre = (x - made.b_dec) @ made.W_enc + made.b_enc
    assert int((codes != 0).sum(1).max()) <= 3
    for row in range(len(x)):  # by sorting, one row at a time
        kept = sorted(pre[row].tolist())[-3:]
        expected = [v if v in kept and v > 0 else 0.0 for v in pre[row].tolist()]
        torch.testing.assert_close(codes[row], torch.tensor(expected))


def test_leading_axes_are_kept() -> None:
    made, x = coder(), rows(24).reshape(2, 3, 4, 6)
    assert made.encode(x).shape == (2, 3, 4, 20)
    torch.testing.assert_close(made(x).reshape(24, 6), made(x.reshape(24, 6)))


@given(st.floats(0.01, 100))
def test_rescaling_the_coder_is_rescaling_the_data(scale: float) -> None:
    made, x = coder().double(), rows().double()
    with torch.no_grad():
        torch.testing.assert_close(made.rescaled(scale)(scale * x), scale * made(x), rtol=1e-9, atol=1e-9)


def test_rows_of_another_width_and_impossible_sizes_are_named() -> None:
    with pytest.raises(InputError, match="reads rows of width 6"):
        coder().encode(torch.zeros(2, 5))
    with pytest.raises(InputError, match="has 20 latents"):
        coder().decode(torch.zeros(2, 5))
    with pytest.raises(InputError, match="1 <= k <= d_sae"):
        sae.Coder(4, 3, 5)
    with pytest.raises(InputError, match="kind 'rellu' is not known here.*did you mean 'relu'"):
        sae.Coder(4, 8, 2, kind="rellu")


def test_a_saved_coder_is_the_same_coder(tmp_path: Path) -> None:
    made = coder()
    loaded = sae.load(sae.save(made, tmp_path / "coder"))
    assert (loaded.k, loaded.d_in, loaded.d_sae, loaded.kind) == (3, 6, 20, "topk")
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert sae.load(tmp_path).k == 3  # a run's folder, with the coder inside


def test_what_is_not_a_sound_coder_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no coder\.json"):
        sae.load(tmp_path)
    with pytest.raises(InputError, match="format 'other'"):
        sae.save(coder(), tmp_path / "x", format="other")
    folder = sae.save(coder(), tmp_path / "coder")
    card = json.loads((folder / "coder.json").read_text())

    def written(**changes: object) -> Path:
        (folder / "coder.json").write_text(json.dumps(sealed(unsealed(card, "") | changes)))
        return folder

    with pytest.raises(StoreError, match="schema 9"):
        sae.load(written(schema=9))
    with pytest.raises(StoreError, match="impossible sizes"):
        sae.load(written(k=99))
    with pytest.raises(StoreError, match="impossible sizes"):
        sae.load(written(d_in=True))
    with pytest.raises(StoreError, match="unknown kind"):
        sae.load(written(kind="__import__"))
    with pytest.raises(StoreError, match="torn or changed"):
        sae.load(written(sha256="0" * 64))
    with pytest.raises(StoreError, match=r"d_sae = 20; coder\.json says 21"):
        sae.load(written(d_sae=21))
    (folder / "coder.json").write_text(json.dumps(card | {"k": 4}))
    with pytest.raises(StoreError, match="do not match their check"):
        sae.load(folder)


@pytest.mark.parametrize("where", [3, 40, 200, 1000])
def test_one_changed_byte_is_noticed(tmp_path: Path, where: int) -> None:
    folder = sae.save(coder(), tmp_path / "coder")
    weights = folder / "coder.safetensors"
    data = bytearray(weights.read_bytes())
    data[where] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="torn or changed"):
        sae.load(folder)


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    from interp.runs.files import sha256_file

    folder = sae.save(coder(), tmp_path / "coder")
    tensors = load_file(folder / "coder.safetensors")
    tensors["b_enc"][2] = float("nan")
    save_file(tensors, folder / "coder.safetensors")
    card = json.loads((folder / "coder.json").read_text())
    changed = unsealed(card, "") | {"sha256": sha256_file(folder / "coder.safetensors")}
    (folder / "coder.json").write_text(json.dumps(sealed(changed)))
    with pytest.raises(StoreError, match="b_enc holds NaN"):
        sae.load(folder)
