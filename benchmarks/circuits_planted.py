"""What does every circuit method find of a planted circuit, at the level of directed edges?

    python benchmarks/circuits_planted.py [--trials 5]

Area under the ROC curve over directed edges (those that the corruption cannot move left out), the planted edges being
the positives; random scores for 1,000 draws beside it. In ``backup`` two paths can replace each other. JSON lines,
then a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import circuits
import interp
from interp.toys import planted

CIRCUITS = ("previous", "induction", "two-hop", "distractor", "backup")
Scorer = Callable[[Any, Any, int], Any]


def coded(**options: Any) -> Scorer:
    """The discrete-SAE method with an autoencoder of its own for every seed."""
    return lambda model, task, seed: circuits.sae_circuit(
        model, task, lambda rows: circuits.discrete_coder(rows, epochs=200, seed=seed), seed=seed, **options
    )


def masked(gates: str) -> Scorer:
    """A learned mask."""
    return lambda model, task, seed: circuits.learn_mask(
        model, task.select(slice(16)), sparsity=0.02, gates=gates, steps=150, lr=0.2, seed=seed
    )


def scored(method: str, steps: int) -> Scorer:
    """Attribution, the same for every seed."""
    return lambda model, task, seed: circuits.attribute(model, task, method=method, steps=steps)


METHODS: dict[str, Scorer] = {
    "exact": scored("exact", 1),
    "EAP": scored("eap", 1),
    "EAP-IG, 20 steps": scored("eap-ig", 20),
    "EAP-IG activations, 5 steps": scored("eap-ig-activations", 5),
    "clean-corrupted": scored("clean-corrupted", 1),
    "ACDC, tau 0.05": lambda model, task, seed: circuits.acdc(model, task, tau=0.05),
    "mask, hard-concrete": masked("hard-concrete"),
    "mask, uniform": masked("uniform"),
    "discrete SAE, published": coded(mode="published"),
    "discrete SAE, honest": coded(),
    "discrete SAE with EAP-IG": lambda model, task, seed: coded(
        ensemble=circuits.attribute(model, task, method="eap-ig", steps=20)
    )(model, task, seed),
}
SEEDED = ("mask", "discrete")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Every circuit method on every planted circuit")
    parser.add_argument("--trials", type=int, default=5, help="seeds of the methods that draw")
    trials = parser.parse_args().trials
    torch.set_num_threads(1)
    rows = {name: [] for name in (*METHODS, "random scores, 1,000 draws")}
    for name in CIRCUITS:
        circuit = planted(name)
        model, task = interp.load(circuit.module), circuit.task(32)
        still, blank = [str(e) for e in circuit.graph.still], circuits.Graph.from_model(model)

        def area(graph: Any, circuit: Any = circuit, still: Any = still) -> float:
            by = "signed" if graph.method == "acdc" else "abs"
            return float(circuits.compare(graph, circuit.graph, without=still, by=by).value)

        for method, scorer in METHODS.items():
            seeds = range(trials if method.startswith(SEEDED) else 1)
            rows[method].append([area(scorer(model, task, seed)) for seed in seeds])
        rng = np.random.default_rng(0)
        drawn = (replace(blank, scores=rng.normal(size=blank.n_edges)) for _ in range(1000))
        rows["random scores, 1,000 draws"].append([area(graph) for graph in drawn])
    for method, found in rows.items():
        each = {
            name: [float(np.mean(areas)), float(np.std(areas))]
            for name, areas in zip(CIRCUITS, found, strict=True)
        }
        print(json.dumps({"benchmark": "circuits_planted", "method": method, "areas": each}))
    print(f"| method | {' | '.join(CIRCUITS)} |\n|{'---|' * (1 + len(CIRCUITS))}")
    for method, found in rows.items():
        cells = [f"{np.mean(a):.2f}" + (f" ± {np.std(a):.2f}" if len(a) > 1 else "") for a in found]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
