"""`interp sae`: from a model or a store to a run's folder, and every bad request named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sae
from interp.cli import main

SITE = "blocks.1.hook_resid_post"
SMALL = ["--set", "d_sae=64", "--set", "k=4", "--set", "steps=6", "--set", "batch_size=64"]


def asked(*words: str, out: Path) -> list[str]:
    return ["sae", "train", "mini", "--site", SITE, "--n-tokens", "4000", *SMALL, "--out", str(out), *words]


def test_a_model_is_trained_on_and_the_folder_says_how(tmp_path: Path, capsys) -> None:
    assert main(asked("--json", out=tmp_path / "run")) == 0
    card = json.loads(capsys.readouterr().out)
    assert card == json.loads((tmp_path / "run" / "CARD.json").read_text())
    assert card["held_out"]["l0"] == 4
    assert card["data"]["sites"] == [SITE]
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == card["config"]
    assert sae.load(tmp_path / "run").d_sae == 64
    assert f"| {card['held_out']['n_rows']} held out |" in (tmp_path / "run" / "CARD.md").read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys) -> None:
    assert main(asked("--dry-run", "--json", out=tmp_path / "run")) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["rows"] == 6 * 64
    assert cost["d_in"] == 128
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "d_sae=0"], "d_sae = 0 must be at least 1"),
        (["--set", "k=65"], "k = 65 exceeds d_sae = 64"),
        (["--set", "kk=3"], "'kk' is no option of a training; did you mean 'k'"),
        (["--set", "k=many"], "k = 'many' is not of type int"),
        (["--set", "k"], "is not NAME=VALUE"),
        (["--site", "blocks.1.hook_resid_pots"], "blocks.1.hook_resid_post"),
        (["--config", "nowhere.toml"], "there is no such file"),
    ],
)
def test_what_cannot_run_is_named_before_anything_is_written(
    tmp_path: Path, capsys, words: list[str], said: str
) -> None:
    assert main(asked(*words, out=tmp_path / "run")) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_coder_is_converted_and_compared(tmp_path: Path, capsys) -> None:
    sae.save(sae.Coder(6, 16, 3), tmp_path / "a")
    assert main(["sae", "convert", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codes"] == 0
    assert main(["sae", "convert", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
