"""`interp circuit find`: a planted circuit from the command line to files that load again."""

from __future__ import annotations

import json

import numpy as np

import circuits
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
    assert max(record["faithfulness"]["value"]) > 0.95
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
