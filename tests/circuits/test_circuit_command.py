"""`interp circuit find`: a planted circuit from the command line to files that load again."""

from __future__ import annotations

import json

import numpy as np

import circuits
import interp
from interp.cli import main
from interp.toys import planted


def test_a_planted_circuit_is_found_and_written(tmp_path, capsys) -> None:
    out = tmp_path / "c"
    words = [
        "circuit",
        "find",
        "planted",
        "--model",
        "planted:two-hop",
        "--out",
        str(out),
        "--n",
        "40",
        "--json",
    ]
    assert main([*words, "--least", "0.95"]) == 0
    record = json.loads(capsys.readouterr().out)
    truth = {str(edge) for edge in planted("two-hop").graph.edges}
    assert set(record["circuit"]) <= truth  # nothing but true edges is needed
    assert record["kept"]["faithfulness"] > 0.95
    assert record["kept"]["random"] < 0.5
    graph = circuits.Graph.load(out / "graph.safetensors")
    assert graph.n_edges == record["n_edges"]
    assert graph.circuit() == record["circuit"]
    assert np.isfinite(graph.exact).sum() == 50  # the largest were measured too
    kept = circuits.Faithfulness.load(out / "faithfulness.safetensors")
    assert kept.cpr == record["faithfulness"]["cpr"]
    assert (out / "edges.csv").stat().st_size > 0


def test_what_cannot_be_asked_is_said_with_exit_code_1(tmp_path, capsys) -> None:
    assert main(["circuit", "find", "planted", "--model", "mini", "--out", str(tmp_path)]) == 1
    assert "prompts of their own" in capsys.readouterr().err


def test_pairs_from_a_file_are_asked_of_mini(tmp_path, capsys) -> None:
    """Both kinds of question: a task by its name, and the same prompts from a CSV; the circuits are the same."""
    model = interp.load("mini")
    task = interp.tasks.load("gender", model=model, split="heldout", n=6, seed=0)
    rows = task.to_frame()
    for column in ("answer", "wrong"):
        rows[column] = [json.dumps(words) for words in rows[column]]
    rows[["clean", "corrupted", "answer", "wrong"]].to_csv(tmp_path / "pairs.csv", index=False)
    words = ["--model", "mini", "--check", "3", "--json", "--method", "eap"]
    found = []
    for asked, more in (("gender", ["--n", "6"]), (str(tmp_path / "pairs.csv"), [])):
        assert main(["circuit", "find", asked, "--out", str(tmp_path / "c"), *words, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["circuit"] == found[1]["circuit"]
    assert found[0]["kept"]["faithfulness"] >= 0.9
    assert found[0]["task"]["prompts_sha256"] == found[1]["task"]["prompts_sha256"]
    graph = circuits.Graph.load(tmp_path / "c" / "graph.safetensors")
    assert circuits.Faithfulness.load(tmp_path / "c" / "faithfulness.safetensors").n == graph.n == 6
    assert np.isfinite(graph.exact).sum() == 3
