"""Archives made to hurt: code in a pickle, bombs, lying sizes, climbing names. Nothing runs; all are refused."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae
from interp.cli import main
from interp.errors import StoreError
from tests.sae import producers


class Payload:
    """Unpickled, it runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return __import__("os").system, (f"touch {self.mark}",)


def refused(folder: Path, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        sae.load(folder)


def trainer(folder: Path, state: Any) -> Path:
    producers.dictionary_learning(folder, "AutoEncoderNew")
    torch.save(state, folder / "ae.pt")
    return folder


def state(folder: Path) -> dict[str, Any]:
    producers.dictionary_learning(folder, "AutoEncoderNew")
    return dict(torch.load(folder / "ae.pt", weights_only=True))


def test_code_in_a_pt_is_not_run(tmp_path: Path) -> None:
    mark, good = tmp_path / "ran", state(tmp_path / "a")
    for name, content in (("alone", Payload(mark)), ("among", good | {"bias": Payload(mark)})):
        refused(trainer(tmp_path / name, content), "holds more than tensors")
    assert not mark.exists()


def test_a_bare_pickle_is_not_opened(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    producers.dictionary_learning(tmp_path / "a", "AutoEncoderNew")
    torch.save(Payload(mark), tmp_path / "a" / "ae.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "a", "no zip archive")
    assert not mark.exists()


def test_a_whole_module_in_a_pt_is_refused(tmp_path: Path) -> None:
    refused(trainer(tmp_path, torch.nn.Linear(2, 2)), "holds more than tensors")


@pytest.mark.parametrize(
    "content", [{}, [], {"a": 1}, {"a": {"b": torch.ones(1)}}, {3: torch.ones(1)}, torch.ones(3)]
)
def test_a_pt_of_anything_but_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    refused(trainer(tmp_path, content), "no tensors by name|no plain tensor")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(1 << 20, 1 << 20),  # four bytes that claim to be four terabytes
        torch.ones(3, 3).to_sparse(),
        torch.ones(2, 2, device="meta"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused_without_memory(
    tmp_path: Path, tensor: torch.Tensor
) -> None:
    folder = trainer(tmp_path / "b", state(tmp_path / "a") | {"encoder.weight": tensor})
    tracemalloc.start()
    refused(folder, "no plain tensor|more than tensors")
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def zipped(path: Path, entries: dict[str, bytes], *, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def array(value: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, value, allow_pickle=True)
    return stream.getvalue()


def scope(folder: Path, **changes: bytes) -> Path:
    """A good params.npz with some entries replaced or added."""
    producers.gemma(folder)
    with zipfile.ZipFile(folder / "params.npz") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    zipped(folder / "params.npz", entries | {f"{name}.npy": data for name, data in changes.items()})
    return folder


def test_objects_in_an_npz_are_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    objects = array(np.array([Payload(mark)], dtype=object))
    refused(scope(tmp_path / "a", b_dec=objects), "no array of numbers")
    assert not mark.exists()


def header(shape: str, dtype: str = "'<f8'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        header("(1099511627776, 1099511627776)") + bytes(8),
        header("(-1, 6)") + bytes(48),
        header("(6,)", "'|O'") + bytes(48),
        header("(6,)", "'<U8'") + bytes(6 * 32),
        header("(6,)", "[('a', '<f8')]") + bytes(48),
        header("(6,)", "__import__('os').system('touch ran')") + bytes(48),
        header("(" * 5000 + ")" * 5000) + bytes(48),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"",
    ],
)
def test_an_array_that_lies_about_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(scope(tmp_path / "a", b_dec=data), "damaged or no array of numbers")
    assert not (tmp_path / "ran").exists()


def test_an_array_in_the_other_byte_order_or_by_columns_is_the_same_array(tmp_path: Path) -> None:
    answer = producers.gemma(tmp_path / "a")
    w = producers.draws()
    turned = array(np.asfortranarray(w["W_enc"].numpy()))
    swapped = array(w["b_dec"].numpy().astype(">f8"))
    found = sae.load(scope(tmp_path / "b", W_enc=turned, b_dec=swapped))
    codes, written = answer(producers.rows())
    torch.testing.assert_close(found.encode(producers.rows()), codes)
    torch.testing.assert_close(found(producers.rows()).detach(), written)


def test_names_that_climb_out_of_an_archive_are_only_names(tmp_path: Path) -> None:
    refused(scope(tmp_path / "a", **{"../../evil": array(np.ones(3))}), "a coder of its kind has")
    assert not (tmp_path / "evil.npy").exists()
    assert not (tmp_path.parent / "evil.npy").exists()


def test_an_archive_that_unpacks_to_far_more_than_itself_is_not_unpacked(tmp_path: Path) -> None:
    producers.gemma(tmp_path / "a")
    bomb = array(np.zeros((1 << 22,)))
    zipped(tmp_path / "a" / "params.npz", {"W_enc.npy": bomb}, how=zipfile.ZIP_DEFLATED)
    refused(tmp_path / "a", "would unpack to")
    producers.dictionary_learning(tmp_path / "b", "AutoEncoderNew")
    zipped(tmp_path / "b" / "ae.pt", {"archive/data.pkl": b"0" * 3000}, how=zipfile.ZIP_DEFLATED)
    refused(tmp_path / "b", "compressed, which torch.save never does")


def test_a_compressed_npz_of_real_numbers_is_read(tmp_path: Path) -> None:
    answer = producers.gemma(tmp_path)
    with np.load(tmp_path / "params.npz") as kept:
        np.savez_compressed(tmp_path / "params.npz", **dict(kept))  # type: ignore[arg-type]
    torch.testing.assert_close(sae.load(tmp_path).encode(producers.rows()), answer(producers.rows())[0])


def test_a_link_or_a_folder_in_a_file_s_place_is_refused(tmp_path: Path) -> None:
    producers.saelens(tmp_path / "a", "standard")
    (tmp_path / "a" / "cfg.json").unlink()
    refused(tmp_path / "a", "cfg.json is missing")
    (tmp_path / "a" / "cfg.json").mkdir()
    refused(tmp_path / "a", "cannot read")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "params.npz").symlink_to(tmp_path / "b" / "params.npz")
    refused(tmp_path / "b", "no coder is there")


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "ran"
    trainer(tmp_path / "a", Payload(mark))
    assert (
        main(["sae", "convert", str(tmp_path / "a"), "--out", str(tmp_path / "b"), "--format", "native"]) == 1
    )
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith("error: ")
    assert not mark.exists()
    assert not (tmp_path / "b").exists()


def test_a_seal_that_names_other_files_is_refused(tmp_path: Path) -> None:
    from interp.stores.manifest import sealed

    folder = sae.save(sae.Coder(4, 8, 2), tmp_path / "a", format="saelens")
    seal = json.loads((folder / "interp.json").read_text())
    seal = {"format": "saelens", "provenance": {}, "sha256": seal["sha256"] | {"../../secret": "0"}}
    (folder / "interp.json").write_text(json.dumps(sealed(seal)))
    refused(folder, "damaged")
