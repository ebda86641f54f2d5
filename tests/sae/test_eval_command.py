"""`interp sae eval` and `interp sae dashboard`: what they print and write, and bad requests by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sae
from interp.cli import main

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = sae.Coder(128, 64, 4)
    return sae.save(made, tmp_path_factory.mktemp("coder") / "c")


def test_eval_tells_reconstruction_loss_and_labels(coder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sae", "eval", str(coder), "mini", "--site", SITE, "--max-tokens"]
    assert main([*words, "2000", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["n"] == 31 * 64
    assert record["l0"] <= 4
    assert set(record["recovered"]) >= {"ce", "kl", "ce_against_zero", "ce_clean", "ce_spliced"}
    assert {"concept", "latent", "auroc", "precision", "recall", "tokens"} == set(record["labels"][0])
    assert main([*words, "640"]) == 0
    told = capsys.readouterr().out
    assert "640 tokens" in told
    assert "ce recovered (mean ablation)" in told


@pytest.mark.slow
def test_dashboard_writes_the_page_and_prints_its_path(
    coder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page" / "features.html"
    words = [
        "sae",
        "dashboard",
        str(coder),
        "mini",
        "--site",
        SITE,
        "--max-tokens",
        "1280",
        "--out",
        str(out),
    ]
    assert main([*words, "--no-twin", "--causal", "1"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.stat().st_size > 20_000
    assert not out.with_suffix(".jsonl.gz").exists()


def test_bad_requests_are_named(coder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = sae.save(sae.Coder(5, 8, 2), tmp_path / "w")
    for words, message in (
        (["eval", str(wide), "mini", "--site", SITE, "--max-tokens", "500"], "reads rows of width 5"),
        (["eval", str(coder), "mini", "--site", "blocks.1.hook_resid_pst"], "blocks.1.hook_resid_post"),
        (["eval", str(coder), "mini", "--site", "blocks.*.hook_resid_post"], "names 4 sites"),
        (["eval", str(tmp_path / "none"), "mini", "--site", SITE], "none"),
        (["dashboard", str(coder), str(tmp_path), "--site", SITE], "has no texts of its own"),
    ):
        assert main(["sae", *words]) != 0
        assert message in capsys.readouterr().err
