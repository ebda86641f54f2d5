"""How much of a bare forward pass's token rate does a harvest keep?

    python benchmarks/harvest.py [--texts 96] [--repeats 3] [--threads 1]

A random GPT-2-small configuration on the CPU; texts of 128 tokens, and texts of mixed lengths. The
floor is the plain transformers model, called batch by batch on the same padded batches. Each round
runs the floor and the harvest one after the other; the ratio is of the best rounds' token rates
(real tokens a second, padding not counted), so above 1 the harvest is faster than the bare forward:
it stops behind its last site and never makes logits. ``naive`` is the bare forward on mixed lengths
batched as they come. JSON lines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp

BATCH = 8
CONTEXT = 128


def texts_of(n: int, *, mixed: bool) -> list[list[int]]:
    """``n`` lists of token ids, of 128 tokens or of 16 to 128."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(16, CONTEXT + 1, (n,), generator=generator).tolist() if mixed else [CONTEXT] * n
    return [torch.randint(0, 50257, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def bare(network: torch.nn.Module, texts: list[list[int]]) -> None:
    """The plain model on padded batches, nothing kept."""
    for at in range(0, len(texts), BATCH):
        tokens = interp.Tokens.of(texts[at : at + BATCH])
        padded = None if bool(tokens.mask.all()) else tokens.mask.long()
        network(tokens.ids, attention_mask=padded, use_cache=False)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def check(model: interp.Model, network: torch.nn.Module, store: interp.ActivationStore, texts: list[list[int]]) -> None:
    """The stored rows are the plain model's hidden states."""
    with torch.no_grad():
        hidden = network.transformer(torch.tensor(texts[3][:CONTEXT])[None], output_hidden_states=True).hidden_states
    mine = store.rows("blocks.5.hook_resid_post", (store.doc == 3).nonzero().flatten())
    torch.testing.assert_close(mine, hidden[6][0], rtol=1e-4, atol=1e-4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config()).eval()
    model = interp.load(network)
    model.fingerprint()  # once a model, not once a harvest
    place = Path(tempfile.mkdtemp(prefix="harvest-"))
    try:
        for mixed in (False, True):
            texts = texts_of(asked.texts, mixed=mixed)
            for name, sites in SITES.items():
                print(json.dumps(measured(model, network, texts, sites, place, asked.repeats) | {
                    "benchmark": "harvest", "sites": name, "lengths": "16-128" if mixed else "128",
                    "threads": asked.threads, "texts": asked.texts,
                }), flush=True)  # fmt: skip
    finally:
        shutil.rmtree(place)


SITES = {
    "one in the middle": ["blocks.5.hook_resid_post"],
    "all residual": ["blocks.*.hook_resid_post"],
    "all residual and logits' input": ["blocks.*.hook_resid_post", "ln_final.hook_out"],
}


def measured(
    model: interp.Model, network: torch.nn.Module, texts: list[list[int]], sites: list[str], place: Path, repeats: int
) -> dict[str, float | int]:
    """Token rates of one harvest and of the floor, best of ``repeats`` interleaved rounds."""
    n_tokens = sum(map(len, texts))
    sorted_texts = sorted(texts, key=lambda ids: -len(ids))
    floor, naive, harvest = [], [], []
    for number in range(repeats + 1):
        out = place / str(number)
        floor.append(seconds(lambda: bare(network, sorted_texts)))
        naive.append(seconds(lambda: bare(network, texts)) if sorted_texts != texts else floor[-1])
        harvest.append(
            seconds(lambda out=out: interp.harvest(model, texts, sites, out, batch_size=BATCH, context=CONTEXT))
        )
        store = interp.open_store(out)
        check(model, network, store, texts)
        assert store.n_rows == n_tokens
        n_bytes = sum(shard.n_bytes for shard in store.shards)
        shutil.rmtree(out)
    best = [min(times[1:]) for times in (floor, naive, harvest)]  # the first round warms up
    return {
        "bare_tokens_per_s": round(n_tokens / best[0], 1),
        "naive_tokens_per_s": round(n_tokens / best[1], 1),
        "harvest_tokens_per_s": round(n_tokens / best[2], 1),
        "ratio_to_bare": round(best[0] / best[2], 3),
        "ratio_to_naive": round(best[1] / best[2], 3),
        "megabytes_written": round(n_bytes / 1e6, 1),
    }


if __name__ == "__main__":
    main()
