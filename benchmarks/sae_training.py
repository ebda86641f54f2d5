"""How much faster is the exact sparse training step than a plain dense loop, at the same quality?

    python benchmarks/sae_training.py [--steps 12] [--d 512] [--d-sae 4096] [--k 32] [--batch 2048] [--threads 2]

In one process, on the same sparse sums of known directions: the shortest honest dense loop (dense encode,
scatter, dense decode, autograd, Adam, unit-norm decoder), ours, and the floor (one dense product and the
selection). CPU seconds are of the whole process; ``times_faster`` is dense over ours, ``over_floor`` ours over
the floor. JSON lines.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor

from sae.config import TrainConfig
from sae.learner import Learner
from sae.middle import scales_of


def planted(n: int, d: int, n_features: int, mean_l0: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows that are sparse sums of unit directions with power-law rates, a mean and noise; and the directions."""
    generator = torch.Generator().manual_seed(10_007 * seed + 4242)
    truth = torch.nn.functional.normalize(torch.randn(n_features, d, generator=generator), dim=1)
    rate = (1.0 + torch.arange(n_features)).rsqrt()
    rate = (rate / rate.sum() * mean_l0).clamp(max=0.5)
    rows = torch.empty(n, d)
    for part in rows.split(4096):
        on = torch.rand(len(part), n_features, generator=generator) < rate
        size = (1 + 0.25 * torch.randn(len(part), n_features, generator=generator)).abs()
        torch.matmul(on * size, truth, out=part)
        part += 0.01 * torch.randn(part.shape, generator=generator)
    return rows + 0.5 * torch.randn(d, generator=generator) / d**0.5, truth


def dense_loop(rows: Tensor, config: TrainConfig) -> float:
    """CPU seconds a step of the plain loop."""
    d, n = rows.shape[1], config.batch_size
    w = torch.nn.functional.normalize(torch.randn(config.d_sae, d), dim=1)
    encoder, decoder = torch.nn.Parameter(w.T.contiguous()), torch.nn.Parameter(w.clone())
    b_enc, b_dec = torch.nn.Parameter(torch.zeros(config.d_sae)), torch.nn.Parameter(rows[:n].mean(0))
    adam = torch.optim.Adam([encoder, decoder, b_enc, b_dec], lr=config.lr)

    def step(x: Tensor) -> None:
        pre = ((x - b_dec) @ encoder + b_enc).relu()
        if config.kind == "batchtopk":
            values, places = pre.flatten().topk(config.k * n, sorted=False)
            codes = torch.zeros_like(pre).flatten().scatter(0, places, values).view_as(pre)
        else:
            values, places = pre.topk(config.k, dim=-1, sorted=False)
            codes = torch.zeros_like(pre).scatter(1, places, values)
        loss = (codes @ decoder + b_dec - x).square().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        decoder.data /= decoder.data.norm(dim=1, keepdim=True)

    return each(step, rows, config)


def ours(rows: Tensor, config: TrainConfig) -> float:
    """CPU seconds a step of the toolkit."""
    sample = rows[:8192]
    learner = Learner.start(scales_of(sample, sample, n_sites=1, center="mean", place="rows"), config)
    return each(lambda x: learner.advance(x, x, config.lr), rows, config)


def floor(rows: Tensor, config: TrainConfig) -> float:
    """CPU seconds of one dense product and the largest k of each row."""
    weight = torch.randn(rows.shape[1], config.d_sae)
    return each(lambda x: (x @ weight).topk(config.k, sorted=False), rows, config)


def each(step, rows: Tensor, config: TrainConfig) -> float:
    """CPU seconds of a step, two for warming up left out."""
    n, began = config.batch_size, 0.0
    for i in range(config.steps + 2):
        if i == 2:
            began = time.process_time()
        start = i * n % (len(rows) - n + 1)
        step(rows[start : start + n])
    return (time.process_time() - began) / config.steps


def main() -> None:
    """Both kinds, one JSON line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        ("steps", 12),
        ("d", 512),
        ("d-sae", 4096),
        ("k", 32),
        ("batch", 2048),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows, _ = planted(8 * args.batch, args.d, args.d_sae, args.k / 2, 0)
    for kind in ("topk", "batchtopk"):
        config = TrainConfig(
            kind=kind, d_sae=args.d_sae, k=args.k, steps=args.steps, batch_size=args.batch, lr=1e-3
        )
        dense, fast, least = dense_loop(rows, config), ours(rows, config), floor(rows, config)
        line = {
            "kind": kind,
            "dense_cpu_s": round(dense, 4),
            "ours_cpu_s": round(fast, 4),
            "times_faster": round(dense / fast, 2),
            "over_floor": round(fast / least, 2),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
