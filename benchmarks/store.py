"""Are rows read faster than an SAE's training needs them?

    python benchmarks/store.py [--rows 200000] [--batch 4096] [--repeats 5] [--threads 1]

A store of 768-wide rows is made; then in one process: random batches (independent rows), shuffled
and ordered passes, each against a plain PyTorch training step of a TopK SAE (768 -> 12288, k = 32,
Adam) on a batch of the same size, and against ``torch.index_select`` on the same rows in memory,
the floor. ``times_faster`` says how many batches can be read while one step is computed. JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import interp

D_IN, D_SAE, K = 768, 768 * 16, 32


class Wide(nn.Module):
    """Token ids to 768 numbers, at no cost worth mentioning."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4096, D_IN)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)


class TopK(nn.Module):
    """The plainest TopK sparse autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(D_IN, D_SAE)
        self.decoder = nn.Linear(D_SAE, D_IN)

    def forward(self, rows: Tensor) -> Tensor:
        top = self.encoder(rows).topk(K)
        latent = torch.zeros(len(rows), D_SAE).scatter(1, top.indices, top.values.relu())
        return self.decoder(latent)


def seconds_each(steps: Iterator[object], n: int) -> list[float]:
    """The time of each of the next ``n`` steps of an iterator."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        next(steps)
        times.append(time.perf_counter() - start)
    return times


def training(store: interp.ActivationStore, batch: int) -> Iterator[float]:
    torch.manual_seed(0)
    coder = TopK()
    adam = torch.optim.Adam(coder.parameters(), lr=1e-3)
    rows = store.rows("table", slice(0, batch)).float()
    while True:
        loss = (coder(rows) - rows).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        yield loss.item()


def repeated(work: Callable[[], object]) -> Iterator[object]:
    while True:
        yield work()


def forget(store: interp.ActivationStore) -> None:
    """Ask the system to drop the store's pages, so that the next reads come from the disk."""
    for shard in store.shards:
        handle = os.open(store.path / shard.name, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def measure(out: Path, dtype: str, asked: argparse.Namespace, step: float) -> None:
    model = interp.load(Wide())
    n_rows = asked.rows
    texts = (torch.arange(i, i + 128) * 2654435761 % 4096 for i in range(0, n_rows, 128))
    store = interp.harvest(model, texts, "table", out, dtype=dtype, context=128, batch_size=64)
    whole = store.rows("table")
    generator = torch.Generator().manual_seed(0)
    drawn = store.random_batch(1000, generator=generator, sites="table")
    assert torch.equal(drawn["table"], whole[drawn.index])
    assert torch.equal(
        drawn["table"], model.module.table.weight.detach().to(store.dtype)[drawn.tokens.long()]
    )

    def indices() -> Tensor:
        return torch.randint(n_rows, (asked.batch,), generator=generator)

    ways: dict[str, Iterator[object]] = {
        "in memory (floor)": repeated(lambda: whole.index_select(0, indices())),
        "random rows": repeated(lambda: store.random_batch(asked.batch, generator=generator)),
        "random rows of one site, bare": repeated(lambda: store.rows("table", indices())),
        "shuffled pass": iter(store.batches(asked.batch, epochs=None)),
        "ordered pass": iter(store.batches(asked.batch, epochs=None, shuffle=False)),
    }
    for name, steps in ways.items():
        next(steps)
        report(name, statistics.median(seconds_each(steps, 4 * asked.repeats)), dtype, asked, step)
    del whole
    if hasattr(os, "posix_fadvise"):
        # mapped pages stay while they are mapped, so this is another opening of the same files
        del ways, store
        store = interp.open_store(out)
        forget(store)
        cold = seconds_each(repeated(lambda: store.random_batch(asked.batch, generator=generator)), 3)
        report("random rows, first three batches from disk", statistics.mean(cold), dtype, asked, step)


def report(name: str, read: float, dtype: str, asked: argparse.Namespace, step: float) -> None:
    print(json.dumps({
        "benchmark": "store", "read": name, "dtype": dtype, "batch": asked.batch, "threads": asked.threads,
        "rows_per_s": round(asked.batch / read), "read_ms": round(1e3 * read, 2),
        "sae_step_ms": round(1e3 * step, 1), "sae_rows_per_s": round(asked.batch / step),
        "times_faster": round(step / read, 1),
    }), flush=True)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Reads of a store beside an SAE training step")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    asked.rows -= asked.rows % 128
    torch.set_num_threads(asked.threads)
    place = Path(tempfile.mkdtemp(prefix="store-"))
    try:
        first = interp.harvest(interp.load(Wide()), torch.arange(asked.batch)[None] % 4096, "table", place / "step",
                               context=asked.batch)  # fmt: skip
        steps = training(first, asked.batch)
        next(steps)
        step = min(seconds_each(steps, 2))
        for dtype in ("float32", "float16", "bfloat16"):
            measure(place / dtype, dtype, asked, step)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
