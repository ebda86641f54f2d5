"""`interp metrics` and profiles of stores: a store reads as the model that filled it; what is written can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner
from typer.testing import Result as Answer

import interp
from interp.commands.metrics import register
from interp.errors import InputError, SiteError
from interp.metrics import layer_profile, layer_similarity
from interp.results import Result
from interp.tokens import Tokens
from tests.models import ids, loaded

SITES = ["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"]


def asked(*words: str) -> Answer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return CliRunner().invoke(app, ["metrics", *words])


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens.of([row[:n].tolist() for row, n in zip(ids(12, 20), [20, 7, 20, 11] * 3, strict=True)])


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Path:
    out = tmp_path_factory.mktemp("acts")
    interp.harvest(loaded("gpt2", "transformers"), tokens, SITES, out)
    return out


def test_a_stores_profile_is_that_of_the_model_that_filled_it(acts: Path, tokens: Tokens) -> None:
    store, model = interp.open_store(acts), loaded("gpt2", "transformers")
    stored, live = layer_profile(store, parts=2), layer_profile(model, tokens, parts=2)
    assert list(stored) == list(live)
    for name, result in live.items():
        np.testing.assert_allclose(stored[name].value, result.value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(stored[name].stderr, result.stderr, rtol=1e-3, err_msg=name)
        assert stored[name].n == result.n
    for method in ("blocks", "exact"):
        pair = [layer_similarity(*given, method=method, block=16) for given in ((store,), (model, tokens))]
        np.testing.assert_allclose(pair[0].value, pair[1].value, rtol=1e-5)
    one = layer_profile(store, sites="blocks.1.*", quantities=["curvature"], parts=2)["curvature"]
    assert one.ticks == (("blocks.1.hook_resid_post",),)


def test_what_does_not_go_with_a_store_is_refused(acts: Path, tokens: Tokens) -> None:
    store = interp.open_store(acts)
    with pytest.raises(InputError, match="tokens, labels and a baseline go with a model"):
        layer_profile(store, baseline="random_init")
    with pytest.raises(InputError, match="other= goes with a model"):
        layer_similarity(store, other=loaded("gpt2", "transformers"))
    with pytest.raises(SiteError, match="did you mean 'blocks.0.hook_resid_post'"):
        layer_profile(store, sites="blocks.0.hook_resid_posts")
    with pytest.raises(InputError, match="tokens are needed with a model"):
        layer_profile(loaded("gpt2", "transformers"))
    answer = asked(str(acts), "--out", str(acts / "geometry"), "--baseline", "random_init")
    assert "--baseline goes with a model" in str(answer.exception)
    assert not (acts / "geometry").exists()


def test_the_command_writes_tables_results_and_a_page(acts: Path, tmp_path: Path) -> None:
    out = tmp_path / "geometry"
    chosen = [word for name in ("effective rank", "curvature") for word in ("--quantity", name)]
    answer = asked(str(acts), "--out", str(out), "--parts", "2", "--json", *chosen)
    assert answer.exit_code == 0, answer.exception
    said = json.loads(answer.stdout)
    rows = pd.read_csv(out / "metrics.csv")
    assert len(rows) == len(said["rows"]) == 2 * 4
    live = layer_profile(interp.open_store(acts), parts=2, quantities=["effective rank"])
    kept = Result.load(out / "results" / "effective-rank.safetensors")
    np.testing.assert_array_equal(kept.value, live["effective rank"].value)
    here = rows[rows.quantity == "effective rank"]
    np.testing.assert_allclose(here.value, kept.value)
    np.testing.assert_allclose(here.stderr, np.asarray(kept.stderr))
    matrix = Result.load(out / "results" / "similarity.safetensors")
    assert np.shape(matrix.value) == (4, 4)
    twin = json.loads((out / "metrics.json").read_text())
    assert [section["name"] for section in twin["sections"]] == ["profile", "similarity"]
    assert len(twin["sections"][0]["plates"]) == 2
    assert "<script" in (out / "metrics.html").read_text()
    again = asked(str(acts), "--config", str(out / "command.json"), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0, again.exception
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()


def test_a_dry_run_counts_and_writes_nothing(acts: Path, tmp_path: Path) -> None:
    out = tmp_path / "geometry"
    for subject in (str(acts), "induction"):
        answer = asked(subject, "--out", str(out), "--dry-run", "--json", "--max-tokens", "300")
        assert answer.exit_code == 0, answer.exception
        cost = json.loads(answer.stdout)
        assert cost["tokens"] > 0
        assert (cost["forward_passes"] > 0) == (subject == "induction")
        assert min(cost["memory_bytes"], cost["disk_bytes"]) > 0
    assert not out.exists()


def test_a_models_own_labels_and_baseline_reach_the_table(tmp_path: Path) -> None:
    words = [
        "mini",
        "--max-tokens",
        "512",
        "--baseline",
        "random_init",
        "--similarity",
        "none",
        "--parts",
        "2",
    ]
    answer = asked(*words, "--quantity", "curvature", "--out", str(tmp_path))
    assert answer.exit_code == 0, answer.exception
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert (np.abs(rows.chance - 120) > 1e-6).all()
    assert np.allclose(rows.chance, 120, atol=3)  # an untrained network turns as independent points do
    unknown = asked("induction", "--label", "nonsense", "--out", str(tmp_path / "x"), "--max-tokens", "64")
    assert "knows no label 'nonsense'" in str(unknown.exception)
