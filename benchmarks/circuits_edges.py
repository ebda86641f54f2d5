"""What does scoring every edge cost beside the passes that it is made of?

    python benchmarks/circuits_edges.py [--layers 12] [--d-model 768] [--heads 12] [--vocab 50257] [--method eap]

A random GPT-2 configuration on one thread, 8 pairs of 20 tokens, logit difference at the last token; parameters
frozen. A task says where its answer stands, so logits are made there only (``--bare``: a metric that is shown all of
them, as the floors make them). Floors in the same process: EAP one forward pass (corrupted) and one forward-backward
pass (clean); EAP-IG with 5 steps two forward and five forward-backward passes. CPU seconds, the best of the repeats.
Edges into the logits are checked against their exact effects. JSON lines; ``peak_over_floor`` is of the whole process
so far, so the second line's holds the first's too.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import circuits
import interp
from interp.tasks import Task

STEPS = 5


def cpu(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the process, the best of some repeats after one that warms up."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def megabytes() -> float:
    """The largest resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check(model: interp.Model, task: tuple[Any, ...]) -> None:
    """Of the edges into the logits, where only the final norm lies between, estimate and exact effect correlate."""
    graph = circuits.attribute(model, task, method="eap")
    into = [graph.layout.edge(f"{source}->logits") for source in graph.layout.sources[-12:]]
    exact = circuits.edge_effects(model, task, edges=into, graph=graph).exact[into]
    estimate = graph.require_scores()[into]
    r = float(torch.corrcoef(torch.tensor([estimate.tolist(), exact.tolist()]))[0, 1])
    assert r > 0.95, r


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Edge scores beside their forward and backward passes")
    for name, value in (("layers", 12), ("d-model", 768), ("heads", 12), ("vocab", 50257), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--method", choices=("eap", "eap-ig"), help="one alone, so that the peak is its own")
    parser.add_argument(
        "--bare", action="store_true", help="a metric that is shown logits at all places, no task"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=asked.layers, n_embd=asked.d_model, n_head=asked.heads, vocab_size=asked.vocab
    )
    network: Any = GPT2LMHeadModel(config).eval().requires_grad_(False)
    model = interp.load(network)
    generator = torch.Generator().manual_seed(1)
    clean, other = torch.randint(0, asked.vocab, (2, 8, 20), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 6] = other[:, 6]
    labels = torch.randint(0, asked.vocab, (8, 2), generator=generator)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        right, wrong = logits[:, -1].gather(1, labels).T
        return right - wrong

    def forward() -> None:
        with torch.no_grad():
            network(clean, use_cache=False)

    def both() -> None:
        x = network.transformer.wte(clean).detach().requires_grad_(True)
        metric(network(inputs_embeds=x, use_cache=False).logits).sum().backward()

    pair = (interp.Tokens.full(clean), interp.Tokens.full(corrupted))
    bare = (*pair, metric)
    task = bare if asked.bare else Task(
        name="random", clean=pair[0], corrupted=pair[1], answers=labels[:, :1], wrong=labels[:, 1:],
        measure="logit_difference", facts=({},) * 8, texts=(("", ""),) * 8,
    )  # fmt: skip
    one, two = cpu(forward, asked.repeats), cpu(both, asked.repeats)
    floor_mb, lines = megabytes(), []
    floors = {"eap": one + two, "eap-ig": 2 * one + STEPS * two}
    for method, floor in floors.items():
        if asked.method not in (None, method):
            continue
        spent = cpu(
            lambda method=method: circuits.attribute(model, task, method=method, steps=STEPS), asked.repeats
        )
        lines.append({
            "benchmark": "circuits_edges", "method": method, "layers": asked.layers, "d_model": asked.d_model,
            "n_edges": circuits.Graph.from_model(model).n_edges, "cpu_seconds": round(spent, 3),
            "floor_cpu_seconds": round(floor, 3), "over_floor": round(spent / floor, 2),
            "logits": "all places" if asked.bare else "the answer's place",
            "peak_over_floor": round(megabytes() / floor_mb, 2),
        })  # fmt: skip
    check(model, bare)  # last, so that the peaks are the methods' own; nothing is told of wrong scores
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
