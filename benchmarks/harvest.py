"""How much of a bare forward pass's token rate does a harvest keep?

    python benchmarks/harvest.py [--texts 32] [--repeats 2] [--threads 1]

A random GPT-2-small configuration on the CPU; texts of 128 tokens, and texts of 16 to 128. Three
floors, each the plain transformers model on the same padded batches with nothing kept: ``bare`` (the
whole forward), ``backbone`` (without the unembedding, which a harvest of residual sites never
reaches), ``as they come`` (the whole forward, batches not sorted by length). Each round runs floors
and harvests one after the other; a ratio is of the best rounds' token rates (real tokens a second).
JSON lines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp

BATCH = 8
CONTEXT = 128
SITES = {
    "one site at layer 5 of 12": "blocks.5.hook_resid_post",
    "all 12 residual sites": "blocks.*.hook_resid_post",
}


def texts_of(n: int, *, shortest: int) -> list[list[int]]:
    """``n`` lists of token ids of ``shortest`` to 128 tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(shortest, CONTEXT + 1, (n,), generator=generator).tolist()
    return [torch.randint(0, 50257, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def forward(network: Any, texts: list[list[int]]) -> None:
    """The plain model on padded batches, nothing kept."""
    for at in range(0, len(texts), BATCH):
        tokens = interp.Tokens.of(texts[at : at + BATCH])
        padded = None if bool(tokens.mask.all()) else tokens.mask.long()
        network(tokens.ids, attention_mask=padded, use_cache=False)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of ``work``."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.no_grad()
def check(network: Any, store: interp.ActivationStore, texts: list[list[int]]) -> None:
    """The stored rows are the plain model's hidden states, all of them there."""
    hidden = network.transformer(torch.tensor(texts[3])[None], output_hidden_states=True).hidden_states
    mine = store.rows("blocks.5.hook_resid_post", (store.doc == 3).nonzero().flatten())
    torch.testing.assert_close(mine, hidden[6][0], rtol=1e-4, atol=1e-4)
    assert store.n_rows == sum(map(len, texts))


def measure(
    model: interp.Model, network: Any, place: Path, *, shortest: int, asked: argparse.Namespace
) -> None:
    """Floors and harvests, interleaved; one JSON line for each harvest."""
    texts = texts_of(asked.texts, shortest=shortest)
    by_length = sorted(texts, key=lambda ids: -len(ids))

    def harvest(sites: str) -> interp.ActivationStore:
        return interp.harvest(model, texts, sites, place / "acts", batch_size=BATCH, context=CONTEXT)

    work: dict[str, Callable[[], object]] = {
        "bare": lambda: forward(network, by_length),
        "backbone": lambda: forward(network.transformer, by_length),
        "as they come": lambda: forward(network, texts),
    }
    work |= {name: lambda sites=sites: harvest(sites) for name, sites in SITES.items()}
    best = dict.fromkeys(work, float("inf"))
    n_bytes = {}
    for number in range(asked.repeats + 1):
        for name, call in work.items():
            spent = seconds(call)
            if name in SITES:
                store = interp.open_store(place / "acts")
                check(network, store, texts)
                n_bytes[name] = sum(shard.n_bytes for shard in store.shards)
                shutil.rmtree(place / "acts")
            if number:  # the first round warms up and checks
                best[name] = min(best[name], spent)
    rate = {name: sum(map(len, texts)) / spent for name, spent in best.items()}
    for name in SITES:
        floors = {
            f"ratio to {floor}": round(rate[name] / rate[floor], 3) for floor in work if floor not in SITES
        }
        print(json.dumps({
            "benchmark": "harvest", "sites": name, "lengths": f"{shortest}-{CONTEXT}", "threads": asked.threads,
            "harvest_tokens_per_s": round(rate[name], 1), "bare_tokens_per_s": round(rate["bare"], 1),
            **floors, "megabytes_written": round(n_bytes[name] / 1e6, 1),
        }), flush=True)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Token rate of a harvest against the bare forward")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config()).eval()
    model = interp.load(network)
    model.fingerprint()  # once a model, not once a harvest
    place = Path(tempfile.mkdtemp(prefix="harvest-"))
    try:
        for shortest in (CONTEXT, 16):
            measure(model, network, place, shortest=shortest, asked=asked)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
