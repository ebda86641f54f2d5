"""`interp sae`: from a model or a store to a run's folder, and every bad request named."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sae
from interp.cli import main
from tests.interp.stores import id_texts, tiny_harvest, tiny_model

SITE = "blocks.1.hook_resid_post"
SMALL = [
    word
    for option in ("d_sae=64", "k=4", "steps=6", "batch_size=64", "lr=0.003")
    for word in ("--set", option)
]


def asked(*words: str, out: Path) -> list[str]:
    return ["sae", "train", "mini", "--site", SITE, "--max-tokens", "4000", *SMALL, "--out", str(out), *words]


def from_store(store: Path, *words: str, out: Path) -> list[str]:
    return ["sae", "train", str(store), "--site", "mix", *SMALL, "--out", str(out), *words]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations of a tiny network, ten numbers a row at `mix`."""
    return tiny_harvest(tmp_path_factory.mktemp("store")).path


def test_a_model_is_trained_on_and_the_folder_says_how(tmp_path: Path, capsys) -> None:
    assert main(asked("--json", out=tmp_path / "run")) == 0
    card = json.loads(capsys.readouterr().out)
    assert card == json.loads((tmp_path / "run" / "CARD.json").read_text())
    assert card["held_out"]["l0"] == 4
    assert card["data"]["sites"] == [SITE]
    assert card["data"]["model"]["name"] == "mini"
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == card["config"]
    assert sae.load(tmp_path / "run").d_sae == 64
    assert f"| {card['held_out']['n_rows']} held out |" in (tmp_path / "run" / "CARD.md").read_text()
    assert (
        main(["sae", "convert", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--format", "saelens"])
        == 0
    )
    told = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
    assert (told["model_name"], told["hook_name"]) == ("mini", SITE)


def test_the_echoed_configuration_trains_the_same_coder_and_overrides_win(
    tmp_path: Path, store: Path, capsys
) -> None:
    assert main(from_store(store, out=tmp_path / "a")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a'}\n"
    again = [
        "sae",
        "train",
        str(store),
        "--site",
        "mix",
        "--config",
        str(tmp_path / "a" / "config.json"),
        "--out",
    ]
    assert main([*again, str(tmp_path / "b")]) == 0
    one, two = (sae.load(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert main([*again, str(tmp_path / "c"), "--set", "k=2"]) == 0
    assert sae.load(tmp_path / "c").k == 2
    (tmp_path / "c.toml").write_text(
        "d_sae = 32\nk = 2\nsteps = 4\nbatch_size = 64\nlr = 1\nbetas = [0.9, 0.99]\n"
    )
    words = ["--config", str(tmp_path / "c.toml"), "--out", str(tmp_path / "d"), "--set", "lr=0.001"]
    assert main(["sae", "train", str(store), "--site", "mix", *words]) == 0
    card = json.loads((tmp_path / "d" / "CARD.json").read_text())
    assert (card["config"]["lr"], card["config"]["betas"], card["data"]["n_rows"] > 0) == (
        0.001,
        [0.9, 0.99],
        True,
    )


def test_a_transcoder_reads_one_site_and_writes_another(tmp_path: Path, store: Path, capsys) -> None:
    words = ["--target", "table", "--set", "wiring=transcoder", "--json"]
    assert main(from_store(store, *words, out=tmp_path / "run")) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["coder"]["d_in"], card["coder"]["d_out"]) == (10, 6)
    assert r"mix \-\> table" in (tmp_path / "run" / "CARD.md").read_text()
    assert main(from_store(store, "--target", "table", out=tmp_path / "sae")) == 1
    assert "say wiring='transcoder'" in capsys.readouterr().err


def test_rows_kept_apart_are_not_among_those_trained_on(store: Path) -> None:
    from sae.commands.material import material

    found = material(str(store), ["mix"], texts=None, n_tokens=100, batch=4, seed=0)
    held, _ = found.rows(found.held_out, 10_000)
    assert found.data.n_rows + len(held) == found.record["n_rows"]
    assert torch.equal(
        found.held_out.rows("mix", torch.tensor([0])), found.data.store.rows("mix", [found.data.n_rows])
    )
    own = material("mini", [SITE], texts=None, n_tokens=3000, batch=16, seed=0)
    trained = {tuple(ids) for ids in own.data.tokens.ids.tolist()}
    assert own.held_out is not None
    assert not trained & {tuple(ids) for ids in own.held_out.tokens.ids.tolist()}


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, store: Path, capsys) -> None:
    assert main(asked("--dry-run", "--json", out=tmp_path / "run")) == 0
    cost = json.loads(capsys.readouterr().out)
    assert (cost["rows"], cost["d_in"]) == (6 * 64, 128)
    per_pass = 16 * 63  # sixteen windows of 64 tokens, the first position left out
    assert cost["forward_passes"] == -(-(6 * 64 + 16 * 64) // per_pass)
    assert main(from_store(store, "--dry-run", out=tmp_path / "run")) == 0
    assert "6 steps, 384 rows of width 10, 0 forward passes" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "d_sae=0"], "d_sae = 0 must be at least 1"),
        (["--set", "k=65"], "k = 65 exceeds d_sae = 64"),
        (["--set", "k=many"], "k = 'many' is not of type int"),
        (["--set", "lr=NaN"], "lr = nan must"),
        (["--set", "batch_size=100000"], "fewer than one batch"),
        (["--site", "mixx"], "mix"),
        (["--config", "nowhere.toml"], "there is no such file"),
        (["--config", "."], "a .toml or .json file is expected"),
        (["--texts", __file__], "is a store of activations, which needs no --texts"),
    ],
)
def test_what_cannot_run_is_named(tmp_path: Path, store: Path, capsys, words: list[str], said: str) -> None:
    assert main(from_store(store, *words, out=tmp_path / "run")) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert not (tmp_path / "run" / "coder").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere/acts", "--site", SITE], "the folder does not exist"),
        (["gpt2", "--site", SITE], "give a file with --texts"),
        (["mini"], "say with --site where to read"),
        (["mini", "--site", "blocks.1.hook_resid_pots"], "blocks.1.hook_resid_post"),
    ],
)
def test_a_source_or_site_that_is_not_there_is_named(
    tmp_path: Path, capsys, words: list[str], said: str
) -> None:
    assert main(["sae", "train", *words, *SMALL, "--max-tokens", "2000", "--out", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["d_sae = [", "[1, 2]", '{"d_sae": 8, "d_sae": 16}', "\xff"])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, store: Path, capsys, text: str) -> None:
    for name in ("c.toml", "c.json"):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        assert main(from_store(store, "--config", str(tmp_path / name), out=tmp_path / "run")) == 1
        assert f"error: --config {tmp_path / name}" in capsys.readouterr().err


def test_a_folder_is_gone_on_with_only_by_the_same_run(tmp_path: Path, store: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main(from_store(store, out=out)) == 0
    assert main(from_store(store, "--no-resume", out=out)) == 1
    assert "already holds a run; leave out --no-resume" in capsys.readouterr().err
    before = (out / "config.json").read_bytes()
    assert main(from_store(store, "--resume", "--set", "lr=0.1", out=out)) == 1
    assert "has another configuration (lr: 0.003 there, 0.1 now)" in capsys.readouterr().err
    assert (out / "config.json").read_bytes() == before
    other = tiny_harvest(tmp_path / "other", id_texts(60, seed=1)).path
    assert main(from_store(other, "--resume", out=out)) == 1
    assert "has other data (n_rows: 544 there, 504 now; shards_sha256: " in capsys.readouterr().err
    wider = tiny_harvest(tmp_path / "wider", model=tiny_model(d_hidden=14)).path
    assert main(from_store(wider, "--resume", out=out)) == 1
    assert "has other data (" in capsys.readouterr().err
    assert main(from_store(store, "--resume", out=out)) == 0


def test_rows_that_changed_under_the_same_name_are_noticed_on_resuming(tmp_path: Path, capsys) -> None:
    place = tiny_harvest(tmp_path / "acts").path
    assert main(from_store(place, out=tmp_path / "run")) == 0
    overwrite(place, "mix", [3.0] * 200)
    assert main(from_store(place, "--resume", out=tmp_path / "run")) == 1
    assert "was trained on other data" in capsys.readouterr().err


def test_rows_with_nan_are_counted_and_named(tmp_path: Path, capsys) -> None:
    place = tiny_harvest(tmp_path / "acts").path
    overwrite(place, "mix", [float("nan")] * 25)  # the rest of one row, a whole one, half of a third
    assert main(from_store(place, out=tmp_path / "run")) == 1
    assert "3 of " in (said := capsys.readouterr().err)
    assert "sampled rows of mix hold NaN or infinity" in said


def overwrite(store: Path, site: str, values: list[float]) -> None:
    """Other numbers in a shard, its hash left as it was."""
    shard = sorted(store.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    (found,) = [v for name, v in json.loads(data[8 : 8 + length]).items() if site in name]
    start = 8 + length + found["data_offsets"][0]
    data[start : start + 4 * len(values)] = struct.pack(f"<{len(values)}f", *values)
    shard.write_bytes(bytes(data))


def test_a_coder_is_converted_and_compared(tmp_path: Path, capsys) -> None:
    sae.save(sae.Coder(6, 16, 3), tmp_path / "a")
    words = ["sae", "convert", str(tmp_path / "a"), "--out", str(tmp_path / "b"), "--json"]
    assert main([*words, "--format", "saelens"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["codes"], told["format"], told["l0"]) == (0, "saelens", 3)
    assert (tmp_path / "b" / "sae_weights.safetensors").is_file()
    assert main(words) == 1
    assert "not an empty folder" in capsys.readouterr().err
    for format, said in (
        ("gemma_scope", "has no words for the kind 'topk'"),
        ("safelens", "did you mean 'saelens'"),
    ):
        assert (
            main(["sae", "convert", str(tmp_path / "a"), "--out", str(tmp_path / "c"), "--format", format])
            == 1
        )
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_conversion_that_changes_codes_fails(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae.formats import assembly, sparsify

    def forgetful(coder: sae.Coder, *, centred: bool) -> dict[str, torch.Tensor]:
        return {"b_enc": torch.ones_like(coder.b_enc)}

    monkeypatch.setattr(sparsify, "biases", forgetful)
    assert assembly.biases is not forgetful
    sae.save(sae.Coder(6, 16, 3), tmp_path / "a")
    assert (
        main(["sae", "convert", str(tmp_path / "a"), "--out", str(tmp_path / "b"), "--format", "sparsify"])
        == 1
    )
    assert "does not do the same: codes differ by" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupt_leaves_a_checkpoint_from_which_the_same_command_ends_alike(
    tmp_path: Path, store: Path
) -> None:
    long = ["--set", "steps=800", "--set", "log_every=5", "--resume"]
    words = from_store(store, *long, out=tmp_path / "a")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen(
        [sys.executable, "-m", "interp", *words], env=env, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "a" / "metrics.jsonl"
    while not metrics.exists() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=120)
    assert run.returncode == 130, told
    assert "stopped after step" in told
    assert not (tmp_path / "a" / "coder").exists()
    assert main(words) == 0
    assert main(from_store(store, *long, out=tmp_path / "b")) == 0
    one, two = (sae.load(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
