"""What do the circuit methods find on mini, task by task, and does exact edge patching agree?

    python benchmarks/circuits_tasks.py [--tasks ioi sva] [--n 64] [--draws 200] [--trials 10]

EAP-IG scores come from training prompts; all is judged on held-out ones: the smallest circuit with a faithfulness
of 0.9, the exact effect of every edge (the judge), bootstrap stability beside what chance gives, edge masks, and the
discrete-SAE method against the circuit of exact patching. JSON lines, then the tables of docs/circuits.md.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

import circuits
import interp

TASKS = ("ioi", "greater_than", "docstring", "gender", "sva", "induction")
PUBLISHED = {"ioi": (0.868, 0.840), "greater_than": (0.855, 0.873), "docstring": (0.869, 0.896)}
"""Node and vote areas of the discrete-SAE method on GPT-2 small (docstring: a 4-layer model)."""


def jaccard(a: set[str], b: set[str]) -> float:
    """Shared over all."""
    return len(a & b) / len(a | b)


def by_chance(k: int, m: int, n: int) -> float:
    """Expected intersection over expected union of random sets of k and m of n."""
    both = k * m / n
    return both / (k + m - both)


def found_and_judged(model: Any, name: str, n: int, draws: int) -> tuple[dict[str, Any], Any, Any, Any]:
    """The line of the first table, with the task, the exact graph and the scores for the second."""
    train, held = (interp.tasks.load(name, model=model, split=split, n=n) for split in ("train", "heldout"))
    graph = circuits.attribute(model, train, method="eap-ig", steps=5, keep=True)
    small = circuits.shrink(model, graph, held)
    signed = circuits.shrink(model, graph, held, by="signed")
    size = small.provenance["shrunk"]["size"]
    exact = circuits.attribute(model, held, method="exact")
    judged = circuits.shrink(model, exact, held)
    k = judged.provenance["shrunk"]["size"]
    held_scores = circuits.attribute(model, held, method="eap-ig", steps=5)
    x, y = held_scores.require_scores(), exact.require_scores()
    top = held_scores.order()[:50]
    ranks = np.corrcoef(np.argsort(np.argsort(np.abs(x))), np.argsort(np.argsort(np.abs(y))))[0, 1]
    best, true = set(graph.top(k, prune=False).circuit()), set(exact.top(k, prune=False).circuit())
    steady = circuits.stability(graph, k=size, n_draws=draws)
    control = circuits.evaluate(model, graph, held, sizes=[size], n_random=20)
    areas = circuits.evaluate(model, graph, held, n_random=0)
    line = {
        "benchmark": "circuits_tasks", "task": name, "n": n, "n_edges": graph.n_edges,
        "accuracy": held.accuracy(model.logits(held.clean)),
        "size": size, "edges": len(small.circuit()), "faithfulness": small.provenance["shrunk"]["faithfulness"],
        "size_signed": signed.provenance["shrunk"]["size"],
        "random": float(control.control.mean()), "random_most": float(control.control.max()),
        "cpr": areas.cpr, "cmd": areas.cmd, "log_area": areas.log_area,
        "size_exact": k, "auc": float(circuits.compare(graph, true).value),
        "rank": float(ranks), "slope": float(np.polyfit(x[top], y[top], 1)[0]),
        "r2": float(np.corrcoef(x[top], y[top])[0, 1] ** 2),
        "jaccard_exact": jaccard(best, true), "jaccard_exact_chance": by_chance(k, k, graph.n_edges),
        "stability": float(steady.value), "stability_chance": float(np.mean(steady.chance)), "draws": draws,
    }  # fmt: skip
    return line, held, judged, held_scores


def masked(model: Any, held: Any, train: Any, judged: Any, steps: int) -> dict[str, Any]:
    """What a learned mask keeps on held-out prompts, and its area against the exact circuit."""
    mask = circuits.learn_mask(model, train, sparsity=0.01, steps=steps, lr=0.2)
    kept = len(mask.circuit())
    share = circuits.evaluate(model, mask, held, sizes=[kept], n_random=0).value[0] if kept else 0.0
    return {
        "mask_edges": kept,
        "mask_faithfulness": float(share),
        "mask_auc": float(circuits.compare(mask, judged.circuit()).value),
    }


def coded(model: Any, name: str, held: Any, judged: Any, scores: Any, trials: int) -> dict[str, Any]:
    """Areas of the discrete-SAE method against the circuit of exact patching: mean and deviation over seeds."""
    heads = [node for node in judged.nodes if ".h" in node]
    true = judged.circuit()
    inside = {end.split("<")[0] for edge in true for end in edge.split("->")} & set(heads)
    sparsity = 0.05 if name == "docstring" else 0.02
    areas: dict[str, list[float]] = {}

    def noted(key: str, graph: Any) -> None:
        if 0 < len(inside) < len(heads):
            areas.setdefault(key + "_node", []).append(head_area(graph, inside, heads))
        areas.setdefault(key + "_edge", []).append(float(circuits.compare(graph, true).value))

    for seed in range(trials):

        def coder(rows: torch.Tensor, seed: int = seed) -> Any:
            return circuits.discrete_coder(rows, sparsity=sparsity, seed=seed)

        for mode in ("published", "votes"):
            noted(mode, circuits.sae_circuit(model, held, coder, mode=mode, seed=seed))
        for place in ("mean", "last"):
            noted(f"honest_{place}", circuits.sae_circuit(model, held, coder, position=place, seed=seed))
        noted(
            "informed_mean",
            circuits.sae_circuit(model, held, coder, statistic="information", seed=seed),
        )
        noted("ensemble", circuits.sae_circuit(model, held, coder, ensemble=scores, seed=seed))
    noted("eap_ig", scores)
    spread = {key: [float(np.mean(v)), float(np.std(v))] for key, v in areas.items()}
    return {"heads": len(heads), "heads_inside": len(inside), "areas": spread}


def head_area(graph: Any, inside: set[str], heads: list[str]) -> float:
    """The area under the ROC curve over heads, each worth its best edge."""
    from sklearn.metrics import roc_auc_score

    best = dict.fromkeys(heads, -np.inf)
    for edge, worth in zip(graph.edges, graph.worth(), strict=True):
        for end in edge.split("->"):
            node = end.split("<")[0]
            if node in best:
                best[node] = max(best[node], worth)
    return float(roc_auc_score([h in inside for h in heads], [best[h] for h in heads]))


def tables(lines: list[dict[str, Any]]) -> str:
    """Markdown: what was found and judged, and the discrete-SAE method."""
    first = _rows(
        "task", "edges for f >= 0.9 (signed; exact's own)", "f (random of that size: mean, most)", "CPR, CMD",
        "AUC, rank r, slope, r2 against exact", "overlap at exact's size (chance)", "bootstrap overlap (chance)",
        "mask: edges, f, AUC",
    )  # fmt: skip
    second = _rows(
        "task", "heads in exact's circuit", "published, heads (GPT-2's)", "votes, heads (GPT-2's)",
        "honest, heads: mean; last", "honest, edges: mean; last", "information, edges", "with EAP-IG, edges",
        "EAP-IG alone, edges",
    )  # fmt: skip
    for r in lines:
        first += [_line(
            r["task"], f"{r['size']} of {r['n_edges']} ({r['size_signed']}; {r['size_exact']})",
            f"{r['faithfulness']:.2f} ({r['random']:.2f}, {r['random_most']:.2f})", f"{r['cpr']:.2f}, {r['cmd']:.2f}",
            f"{r['auc']:.2f}, {r['rank']:.2f}, {r['slope']:.2f}, {r['r2']:.2f}",
            f"{r['jaccard_exact']:.2f} ({r['jaccard_exact_chance']:.2f})",
            f"{r['stability']:.2f} ({r['stability_chance']:.2f})",
            f"{r['mask_edges']}, {r['mask_faithfulness']:.2f}, {r['mask_auc']:.2f}" if "mask_auc" in r else "-",
        )]  # fmt: skip
        said = {
            key: f"{mean:.2f} ± {dev:.2f}" if dev else f"{mean:.2f}"
            for key, (mean, dev) in r["areas"].items()
        }
        own = [f" ({v:.2f})" for v in PUBLISHED.get(r["task"], ())] or ["", ""]
        pairs = [
            [said.get(f"honest_{at}_{level}", "-") for at in ("mean", "last")] for level in ("node", "edge")
        ]
        second += [_line(
            r["task"], f"{r['heads_inside']} of {r['heads']}", said.get("published_node", "-") + own[0],
            said.get("votes_node", "-") + own[1], *map("; ".join, pairs),
            *(said[f"{key}_edge"] for key in ("informed_mean", "ensemble", "eap_ig")),
        )]  # fmt: skip
    return "\n".join([*first, "", *second])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(*heads: str) -> list[str]:
    return [_line(*heads), _line(*["---"] * len(heads))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Circuits of mini, task by task, beside exact edge patching")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--n", type=int, default=32, help="pairs of each split")
    parser.add_argument("--draws", type=int, default=200, help="bootstrap draws")
    parser.add_argument("--trials", type=int, default=5, help="autoencoders of the discrete-SAE method")
    parser.add_argument("--mask-steps", type=int, default=100, help="of the learned mask; 0: none")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, lines = interp.load("mini"), []
    for name in asked.tasks:
        line, held, judged, scores = found_and_judged(model, name, asked.n, asked.draws)
        train = interp.tasks.load(name, model=model, split="train", n=min(asked.n, 32))
        if asked.mask_steps:
            line |= masked(model, held, train, judged, asked.mask_steps)
        line |= coded(model, name, held, judged, scores, asked.trials)
        print(json.dumps(line), flush=True)
        lines.append(line)
    print(tables(lines))


if __name__ == "__main__":
    main()
