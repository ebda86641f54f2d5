"""What does capture cost beside the bare forward pass, and beside TransformerBridge and nnsight?

    python benchmarks/capture.py [toy] [small] [memory] [--rounds 40] [--threads 2]

``toy``: 3 layers, d_model 32, 2 x 10 tokens: the fixed cost of a call shows, which is what studies of
group networks pay. ``small``: a random GPT-2-small configuration, 8 x 128 tokens. ``memory``: peak
resident memory of the same, each case in a process of its own. Every case is checked against the bare
model before it is timed. Times are CPU seconds of the process; the cases of one round run in shuffled
order, a ratio is the median over rounds of case / bare of the same round. JSON lines.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import random
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Case = Callable[[], object]
EVERY_BLOCK = "blocks.*.hook_resid_post"
ALL_RESIDUAL = ["blocks.*.hook_resid_pre", "blocks.*.hook_resid_mid", "blocks.*.hook_resid_post"]


def network(size: str) -> tuple[Any, torch.Tensor]:
    """A random GPT-2 and token ids for it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    if size == "toy":
        config = GPT2Config(
            n_layer=3, n_embd=32, n_head=4, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config).eval(), torch.randint(0, 64, (2, 10))
    return GPT2LMHeadModel(GPT2Config()).eval(), torch.randint(0, 50257, (8, 128))


def cases(size: str) -> dict[str, Case]:
    """Each case by name; the first is the bare forward. Each is checked against it here."""
    import interp

    module, ids = network(size)
    model = interp.load(module)

    @torch.no_grad()
    def bare() -> torch.Tensor:
        return module(ids, use_cache=False).logits

    found: dict[str, Case] = {
        "bare": bare,
        "interp logits": lambda: model.logits(ids),
        "interp every block": lambda: model.capture(ids, EVERY_BLOCK),
        "interp all residual sites": lambda: model.capture(ids, ALL_RESIDUAL),
        "interp one site, layer 2": lambda: model.capture(ids, "blocks.2.hook_resid_post"),
        "interp every block + logits": lambda: model.capture(ids, [EVERY_BLOCK, "logits"]),
    }
    assert torch.equal(model.logits(ids), bare())
    with torch.no_grad():
        hidden = module.transformer(ids, output_hidden_states=True, use_cache=False).hidden_states
    acts = model.capture(ids, [*ALL_RESIDUAL, "logits"])
    for layer in range(model.n_layers):
        assert torch.equal(acts[f"blocks.{layer}.hook_resid_pre"], hidden[layer])
    assert torch.equal(acts["logits"], bare())
    return found | peers(module, ids, hidden)


def peers(module: Any, ids: torch.Tensor, hidden: tuple[torch.Tensor, ...]) -> dict[str, Case]:
    """TransformerBridge (on a copy) and nnsight, called as their users do, and their block outputs checked."""
    import copy

    import nnsight
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    copied = copy.deepcopy(module)
    copied.set_attn_implementation("eager")
    bridge = build_bridge_from_module(
        copied, "GPT2LMHeadModel", hf_config=copied.config, tokenizer=None
    ).eval()
    n_layers = len(hidden) - 1
    names = [f"blocks.{layer}.hook_out" for layer in range(n_layers)]
    traced = nnsight.NNsight(module)

    @torch.no_grad()
    def bridge_forward() -> object:
        return bridge(ids)

    @torch.no_grad()
    def bridge_blocks() -> object:
        return bridge.run_with_cache(ids, names_filter=names)[1]

    @torch.no_grad()
    def nnsight_blocks() -> object:
        with traced.trace(ids, use_cache=False):
            kept = nnsight.save([traced.transformer.h[layer].output for layer in range(n_layers)])
        return kept  # noqa: RET504 - a return inside the trace would not be one

    cache, kept = bridge_blocks(), nnsight_blocks()
    for layer in range(n_layers - 1):  # the last hidden state of transformers lies behind the final norm
        torch.testing.assert_close(cache[names[layer]], hidden[layer + 1], atol=1e-4, rtol=1e-4)  # type: ignore[index]
        torch.testing.assert_close(kept[layer], hidden[layer + 1], atol=1e-4, rtol=1e-4)  # type: ignore[index]
    return {
        "bridge forward": bridge_forward,
        "bridge every block": bridge_blocks,
        "nnsight every block": nnsight_blocks,
    }


def timed(size: str, rounds: int) -> None:
    """Ratios to the bare forward, one JSON line a case."""
    work = cases(size)
    spent: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        order = list(work)
        random.Random(number).shuffle(order)
        for name in order:
            start = time.process_time()
            held = work[name]()
            used = time.process_time() - start
            del held
            if number:  # the first round warms up
                spent[name].append(used)
    for name, times in spent.items():
        ratios = sorted(t / b for t, b in zip(times, spent["bare"], strict=True))
        print(
            json.dumps(
                {
                    "benchmark": "capture",
                    "size": size,
                    "case": name,
                    "ratio": round(statistics.median(ratios), 3),
                    "quartiles": [round(ratios[rounds // 4], 3), round(ratios[3 * rounds // 4], 3)],
                    "milliseconds": round(1e3 * statistics.median(times), 2),
                    "rounds": rounds,
                    "threads": torch.get_num_threads(),
                }
            ),
            flush=True,
        )


MEMORY_CASES = ("bare", "interp every block", "interp all residual sites", "interp one site, layer 2")


def memory(threads: int) -> None:
    """Peak resident memory of each case in a fresh process, as a ratio to the bare forward's."""
    peak = {}
    for name in MEMORY_CASES:
        command = [sys.executable, __file__, "--peak-of", name, "--threads", str(threads)]
        env = {
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        }  # freed memory goes back at once
        import os

        ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **env})
        peak[name] = float(ran.stdout.split()[-1])
    for name, size in peak.items():
        print(
            json.dumps(
                {
                    "benchmark": "capture memory",
                    "case": name,
                    "ratio": round(size / peak["bare"], 3),
                    "peak_mib": round(size, 1),
                }
            ),
            flush=True,
        )


def peak_of(name: str) -> None:
    """Print the growth of resident memory, in MiB, while a case runs (second run: the first warms up)."""

    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    import interp

    module, ids = network("small")
    model = interp.load(module)

    @torch.no_grad()
    def bare() -> object:
        return module(ids, use_cache=False).logits

    asked = {
        "bare": bare,
        "interp every block": lambda: model.capture(ids, EVERY_BLOCK),
        "interp all residual sites": lambda: model.capture(ids, ALL_RESIDUAL),
        "interp one site, layer 2": lambda: model.capture(ids, "blocks.2.hook_resid_post"),
    }[name]
    asked()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    start, highest, running = resident(), [0.0], [True]

    def watch() -> None:
        while running[0]:
            highest[0] = max(highest[0], resident())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    held = asked()
    running[0] = False
    watcher.join()
    del held
    print(highest[0] - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of capture beside the bare forward and peers")
    parser.add_argument("parts", nargs="*", default=["toy", "small", "memory"])
    parser.add_argument("--rounds", type=int, default=0, help="rounds of timing (default: 200 toy, 6 small)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(asked.threads)
    if asked.peak_of:
        peak_of(asked.peak_of)
        return
    for part in asked.parts:
        if part == "memory":
            memory(asked.threads)
        else:
            timed(part, asked.rounds or (200 if part == "toy" else 6))


if __name__ == "__main__":
    main()
