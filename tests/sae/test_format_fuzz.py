"""Damaged folders: an InterpError or the right coder, never another one and never another exception."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safe
from safetensors.torch import save as save_safe
from torch import Tensor

import sae
from interp.errors import InterpError
from sae.formats import FOREIGN
from sae.storage import FORMATS
from tests.sae import producers

Folder = dict[str, bytes]
X = producers.rows(torch.float32)
FEW = settings(derandomize=True, max_examples=60, deadline=None, database=None)
MANY = settings(derandomize=True, max_examples=4000, deadline=None, database=None)


def contents(folder: Path) -> Folder:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    """A coder in every format, as we write it."""
    made = {}
    for format in FORMATS:
        coder = sae.Coder(6, 16, 4, kind="groupmax" if format == "sparsify" else "jumprelu", seed=1)
        with torch.no_grad():
            coder.b_enc.add_(0.1)
            coder.b_dec.add_(0.2)
        made[format] = contents(sae.save(coder, tmp_path_factory.mktemp("ours") / format, format=format))
    return made


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    """Folders as the libraries write them, without a checksum."""
    place = tmp_path_factory.mktemp("theirs")
    producers.saelens(place / "saelens", "topk", rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=True)
    producers.saelens(place / "saelens_legacy", "gated", flat=True)
    producers.sparsify(place / "sparsify", skip_connection=True)
    producers.dictionary_learning(place / "dictionary_learning", "MatryoshkaBatchTopKSAE")
    producers.gemma(place / "gemma_scope")
    producers.gemma(place / "gemma_scope_2", edition=2, skip=True)
    return {name: contents(place / name) for name in FOREIGN}


@pytest.fixture(scope="module")
def shelf() -> Iterator[Path]:
    """A folder in memory where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def loaded(files: Folder, shelf: Path) -> sae.Coder | None:
    """The coder in a folder of these files, None if it is refused; anything but an InterpError passes through."""
    with tempfile.TemporaryDirectory(dir=shelf) as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        try:
            return sae.load(folder)
        except InterpError:
            return None


def alike(a: sae.Coder, b: sae.Coder) -> bool:
    return a.make() == b.make() and a.k == b.k and all(
        torch.equal(v, b.state_dict()[n]) for n, v in a.state_dict().items()
    )  # fmt: skip


damage = st.tuples(
    st.sampled_from(["flip", "cut", "drop", "insert", "zero"]),
    st.floats(0, 1),
    st.integers(0, 7),
    st.integers(1, 64),
)


def damaged(data: bytes, how: str, where: float, bit: int, size: int) -> bytes:
    at = min(int(where * len(data)), len(data) - 1)
    if how == "flip":
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
    if how == "cut":
        return data[:at]
    if how == "drop":
        return data[:at] + data[at + size :]
    if how == "insert":
        return data[:at] + bytes(size) + data[at:]
    return data[:at] + bytes(size) + data[at + size :]


def check_ours(ours: dict[str, Folder], shelf: Path, format: str, which: float, how: tuple) -> None:
    files = ours[format]
    whole = loaded(files, shelf)
    assert whole is not None
    name = sorted(files)[min(int(which * len(files)), len(files) - 1)]
    found = loaded(files | {name: damaged(files[name], *how)}, shelf)
    assert found is None or alike(found, whole)


def check_theirs(theirs: dict[str, Folder], shelf: Path, format: str, which: float, how: tuple) -> None:
    files = theirs[format]
    name = sorted(files)[min(int(which * len(files)), len(files) - 1)]
    found = loaded(files | {name: damaged(files[name], *how)}, shelf)
    if found is not None:
        assert (found.d_in, found.d_sae) == (producers.D, producers.F)
        assert all(bool(torch.isfinite(value).all()) for value in found.state_dict().values())
        found.encode(X.to(found.W_dec.dtype))


@FEW
@given(format=st.sampled_from(FORMATS), which=st.floats(0, 1), how=damage)
def test_damage_to_what_we_wrote_is_noticed_in_every_format(ours, shelf, format, which, how) -> None:
    check_ours(ours, shelf, format, which, how)


@FEW
@given(format=st.sampled_from(sorted(FOREIGN)), which=st.floats(0, 1), how=damage)
def test_damage_to_what_others_wrote_gives_an_error_or_a_finite_coder(
    theirs, shelf, format, which, how
) -> None:
    check_theirs(theirs, shelf, format, which, how)


@pytest.mark.slow
@MANY
@given(format=st.sampled_from(FORMATS), which=st.floats(0, 1), how=damage)
def test_much_damage_to_what_we_wrote_is_noticed(ours, shelf, format, which, how) -> None:
    check_ours(ours, shelf, format, which, how)


@pytest.mark.slow
@MANY
@given(format=st.sampled_from(sorted(FOREIGN)), which=st.floats(0, 1), how=damage)
def test_much_damage_to_what_others_wrote_gives_an_error_or_a_finite_coder(
    theirs, shelf, format, which, how
) -> None:
    check_theirs(theirs, shelf, format, which, how)


STRANGE = [
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    float("nan"),
    "",
    "../../etc/passwd",
    "\x00",
    [],
    {},
    [[1]],
    {"k": 3},
]


@FEW
@given(format=st.sampled_from(sorted(FOREIGN)), which=st.floats(0, 1), value=st.sampled_from(STRANGE))
def test_a_strange_value_of_any_option_is_refused_or_means_nothing(
    theirs, shelf, format, which, value
) -> None:
    files = theirs[format]
    cards = [name for name in files if name.endswith(".json")]
    if not cards:
        return
    card = json.loads(files[cards[0]])
    holder = card["trainer"] if "trainer" in card and which < 0.9 else card
    option = sorted(holder)[min(int(which * len(holder)), len(holder) - 1)]
    holder[option] = value
    whole, found = loaded(files, shelf), loaded(files | {cards[0]: json.dumps(card).encode()}, shelf)
    assert whole is not None
    inert = {
        "normalize_activations",
        "affine_connection",
        "apply_b_dec_to_input",
        "skip_connection",
        "signed",
    }
    assert found is None or alike(found, whole) or (option in inert and value in (None, True, False))


def unpacked(name: str, data: bytes) -> dict[str, Tensor]:
    if name.endswith(".safetensors"):
        return load_safe(data)
    if name.endswith(".pt"):
        return torch.load(io.BytesIO(data), weights_only=True)
    return {key: torch.from_numpy(value) for key, value in np.load(io.BytesIO(data)).items()}


def packed(name: str, tensors: dict[str, Tensor]) -> bytes:
    stream = io.BytesIO()
    if name.endswith(".safetensors"):
        return save_safe({key: value.contiguous() for key, value in tensors.items()})
    if name.endswith(".pt"):
        torch.save(tensors, stream)
    else:
        np.savez(stream, **{key: value.numpy() for key, value in tensors.items()})  # type: ignore[arg-type]
    return stream.getvalue()


Change = Callable[[dict[str, Tensor], str], dict[str, Tensor]]
CHANGES: dict[str, Change] = {
    "NaN": lambda w, n: w | {n: w[n] * float("nan")},
    "infinity": lambda w, n: w | {n: w[n] + float("inf")},
    "another shape": lambda w, n: w | {n: torch.cat([w[n], w[n]]) if w[n].ndim else w[n].repeat(2)},
    "another axis": lambda w, n: w | {n: w[n][None]},
    "no entries": lambda w, n: w | {n: w[n].reshape(-1)[:0]},
    "whole numbers": lambda w, n: w | {n: w[n].long() + (0.5 if n == "k" else 0)},
    "truth values": lambda w, n: w | {n: w[n] > 0},
    "complex numbers": lambda w, n: w | {n: w[n].to(torch.complex64)},
    "missing": lambda w, n: {name: value for name, value in w.items() if name != n},
    "one more": lambda w, n: w | {"zz_more": w[n].clone()},
    "a name that climbs": lambda w, n: {f"../../{name}" if name == n else name: v for name, v in w.items()},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("format", sorted(FOREIGN))
def test_every_tensor_that_is_wrong_is_refused(theirs, shelf, format: str, change: str) -> None:
    files, weights = theirs[format], FOREIGN[format].weights
    tensors = unpacked(weights, files[weights])
    for name in tensors:
        if name in ("k", "group_sizes") and change in ("NaN", "infinity", "whole numbers", "another shape"):
            continue  # whole numbers already, and checked below
        if (format, change, name) == ("gemma_scope", "another shape", "W_enc"):
            continue  # one that reads wider rows than it writes
        files = theirs[format] | {weights: packed(weights, CHANGES[change](dict(tensors), name))}
        assert loaded(files, shelf) is None, name


@pytest.mark.parametrize("sizes", [[4, 11], [16, 0], [-1, 17], [20]])
def test_groups_that_do_not_make_up_the_latents_are_refused(theirs, shelf, sizes: list[int]) -> None:
    files = theirs["dictionary_learning"]
    state = unpacked("ae.pt", files["ae.pt"]) | {"group_sizes": torch.tensor(sizes)}
    assert loaded(files | {"ae.pt": packed("ae.pt", state)}, shelf) is None


@pytest.mark.parametrize("format", sorted(FOREIGN))
def test_two_values_of_one_name_in_a_card_are_refused(theirs, shelf, format: str) -> None:
    for name, data in theirs[format].items():
        if name.endswith(".json"):
            twice = b'{"k": 1, "k": 2, ' + data.strip()[1:]
            assert loaded(theirs[format] | {name: twice}, shelf) is None


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"[" * 100_000, b'{"a": ' * 50_000, b"\xff\xfe", b"9" * 5000]
)
def test_a_card_that_is_no_object_is_refused(theirs, shelf, text: bytes) -> None:
    for files in theirs.values():
        for name in files:
            if name.endswith(".json"):
                assert loaded(files | {name: text}, shelf) is None


def safetensors(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**31) + b"{}" * 100,
        safetensors({"W_dec": ONE | {"shape": [2**40, 2**40]}}, b"0000"),
        safetensors({"W_dec": ONE | {"shape": [0, 2**62], "data_offsets": [0, 0]}}, b""),
        safetensors({"W_dec": ONE | {"dtype": "F4"}}, b"0000"),
        safetensors({"W_dec": ONE | {"data_offsets": [0, 2**63 - 1]}}, b"0000"),
        safetensors(
            b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}", b"0000"
        ),
    ],
)
@pytest.mark.parametrize("format", ["native", "saelens", "sparsify", "gemma_scope_2"])
def test_a_header_that_lies_is_refused(ours, shelf, format: str, data: bytes) -> None:
    weights = "coder.safetensors" if format == "native" else FOREIGN[format].weights
    files = {name: content for name, content in ours[format].items() if name != "interp.json"}
    assert loaded(files | {weights: data}, shelf) is None
