"""What does ACDC cost beside trying one edge after the other with whole passes?

    python benchmarks/circuits_acdc.py [--layers 6] [--d-model 384] [--heads 6] [--pairs 4] [--tau 1e-3]

A random GPT-2 configuration with 2,188 edges on one thread, pairs of 12 tokens. The reference is the algorithm as it is
written down: every edge in turn is cut on top of those already cut, in one whole forward pass from the first layer on,
and stays cut if the divergence rises by less than the threshold. Both must decide alike on every edge, or nothing is
told. Layer-forwards are blocks run, once for every candidate; CPU seconds of the process. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import circuits
import interp
from circuits.exact import benches
from circuits.passes import Swap, patched_logits
from circuits.stream import Stream


def sequential(model: interp.Model, task: Any, tau: float) -> tuple[np.ndarray, int]:
    """Which edges are cut, and the layer-forwards that took."""
    stream = Stream(model)
    (bench,) = benches(stream, task)
    layout, place = stream.layout, bench.question.clean.last
    clean = stream.head(bench.clean.resid[-1], place).double().log_softmax(-1)
    order = [
        d for layer in range(len(layout.blocks), -1, -1) for d in np.flatnonzero(layout.layer == layer)[::-1]
    ]
    cut, now = torch.zeros(1, layout.n_edges, dtype=torch.bool), 0.0
    stream.block_runs = 0
    for d in order:
        for edge in range(layout.offsets[d + 1] - 1, layout.offsets[d] - 1, -1):
            cut[0, edge] = True
            swap = Swap(mask=cut, source=bench.other)
            logs = (
                patched_logits(stream, bench.clean, [swap], position=place, first=0)[0]
                .double()
                .log_softmax(-1)
            )
            value = float((clean.exp() * (clean - logs)).sum(-1).mean())
            if value - now < tau:
                now = value
            else:
                cut[0, edge] = False
    return cut[0].numpy(), stream.block_runs


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description="ACDC beside one edge after the other")
    for name, value in (
        ("layers", 6),
        ("d-model", 384),
        ("heads", 6),
        ("vocab", 5000),
        ("pairs", 4),
        ("window", 64),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tau", type=float, default=1e-3)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=asked.layers, n_embd=asked.d_model, n_head=asked.heads, vocab_size=asked.vocab,
        bos_token_id=0, eos_token_id=0, initializer_range=0.06,
    )  # fmt: skip
    network: Any = GPT2LMHeadModel(config).eval().requires_grad_(False)
    model = interp.load(network)
    generator = torch.Generator().manual_seed(1)
    clean, other = torch.randint(0, asked.vocab, (2, asked.pairs, 12), generator=generator)
    corrupted = torch.where(torch.arange(12) < 11, other, clean)
    task = (interp.Tokens.full(clean), interp.Tokens.full(corrupted), lambda logits: logits[:, -1, 0])
    circuits.acdc(model, task, tau=1e9)  # warm
    start = time.process_time()
    graph = circuits.acdc(model, task, tau=asked.tau, window=asked.window)
    ours = time.process_time() - start
    start = time.process_time()
    cut, runs = sequential(model, task, asked.tau)
    theirs = time.process_time() - start
    assert graph.chosen is not None
    different = int((graph.chosen == cut).sum())
    assert not different, f"{different} decisions differ"
    line = {
        "benchmark": "circuits_acdc", "n_edges": graph.n_edges, "kept": int(graph.chosen.sum()), "tau": asked.tau,
        "decisions_that_differ": different, "passes": graph.provenance["passes"],
        "layer_forwards": graph.provenance["block_runs"], "reference_layer_forwards": runs,
        "times_fewer": round(runs / graph.provenance["block_runs"], 2),
        "cpu_seconds": round(ours, 1), "reference_cpu_seconds": round(theirs, 1),
        "times_faster": round(theirs / ours, 2),
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
