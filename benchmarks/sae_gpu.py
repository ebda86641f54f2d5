"""On a GPU: rows a second of the exact sparse step in bfloat16, beside a compiled dense loop and the roofline.

    python -m benchmarks.sae_training --device cuda                  # d 4096, 131,072 latents, 8192 rows a step
    python -m benchmarks.sae_training --device cpu --tiny            # the same code at sizes that any machine can do

Both loops start from the same weights, on the same rows, with the same rate; their FVU on rows not trained on must
agree within 2% (the products are bfloat16 in both), else the benchmark stops. The roofline is measured here: the time
of the one dense product by itself, and of moving as many bytes as a step must at the speed of a large copy: both weight
matrices with their gradients and moments once each way, their bfloat16 copies, and a row of d numbers four times for
every code. JSON lines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from sae.config import TrainConfig
from sae.learner import Learner
from sae.middle import scales_of

__all__ = ["measure"]


def rows_of(n: int, d: int, n_features: int, seed: int, device: torch.device) -> Tensor:
    """Rows [n, d], each the sum of sixteen random directions, and noise."""
    generator = torch.Generator(device).manual_seed(seed)
    truth = torch.Generator(device).manual_seed(4242)
    directions = normalize(torch.randn(n_features, d, generator=truth, device=device), dim=-1)
    parts = []
    for start in range(0, n, 8192):
        size = min(8192, n - start)
        # squared, so that some directions are far more common than others
        share = torch.rand(size, 16, generator=generator, device=device).square()
        weight = 1 + 0.25 * torch.randn(size, 16, generator=generator, device=device)
        which = (share * n_features).long().clamp_max(n_features - 1)
        part = embedding_bag(which, directions, per_sample_weights=weight, mode="sum")
        parts.append(part + 0.01 * torch.randn(size, d, generator=generator, device=device))
    return torch.cat(parts)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds a call, after one that is not counted."""
    run()
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait(device)
    return (time.perf_counter() - began) / repeats


def _started(rows: Tensor, config: TrainConfig) -> Learner:
    sample = rows[:8192]
    return Learner.start(scales_of(sample, sample, n_sites=1, center="mean", place="rows"), config)


def _compiled(config: TrainConfig, learner: Learner, backend: str) -> Callable[[Tensor, int], None]:
    """A step of the dense loop: autocast, scatter, dense decoder, fused Adam, unit norm."""
    coder, scales = learner.coder, learner.scales
    adam = torch.optim.Adam(coder.parameters(), betas=config.betas, fused=True)

    def loss_of(x: Tensor, encoder: Tensor, decoder: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
        pre = ((x - b_dec) @ encoder + b_enc).relu()
        values, places = pre.topk(config.k, dim=-1, sorted=False)
        codes = torch.zeros_like(pre).scatter(1, places, values)
        return ((codes @ decoder).float() + b_dec - x).square().mean()

    fast = loss_of if backend == "none" else torch.compile(loss_of, backend=backend)

    def step(x: Tensor, number: int) -> None:
        x = (x - scales.center_in) / scales.read
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = fast(x, coder.W_enc, coder.W_dec, coder.b_enc, coder.b_dec)
        adam.param_groups[0]["lr"] = config.rate(number, x.shape[1])
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            grad = coder.W_dec.grad
            assert grad is not None  # backward has just been run
            grad -= (grad * coder.W_dec).sum(1, keepdim=True) * coder.W_dec
        adam.step()
        with torch.no_grad():
            coder.W_dec.div_(coder.W_dec.norm(dim=1, keepdim=True))

    return step


def _loop(step: Callable[[Tensor, int], object], batches: list[Tensor], steps: int) -> dict[str, float]:
    """Warm up for a tenth of the steps, then time the others."""
    device, warm = batches[0].device, max(2, steps // 10)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = 0.0
    for number in range(steps):
        if number == warm:
            _wait(device)
            began = time.perf_counter()
        step(batches[number % len(batches)], number)
    _wait(device)
    seconds = (time.perf_counter() - began) / (steps - warm)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
    return {
        "ms_a_step": round(1e3 * seconds, 3),
        "rows_a_second": round(len(batches[0]) / seconds),
        "peak_mib": round(peak) if peak == peak else 0,
    }


@torch.no_grad()
def _fvu(coder: torch.nn.Module, rows: Tensor) -> float:
    left = sum(float((coder(part) - part).double().square().sum()) for part in rows.split(1024))
    return left / float((rows.double() - rows.double().mean(0)).square().sum())


def _roofline(x: Tensor, config: TrainConfig) -> dict[str, float]:
    n, d = x.shape
    low, weight = x.bfloat16(), torch.randn(d, config.d_sae, device=x.device, dtype=torch.bfloat16)
    part = min(n, max(1, (1 << 28) // config.d_sae))
    out = torch.empty(part, config.d_sae, device=x.device, dtype=torch.bfloat16)
    product = _timed(lambda: torch.mm(low[:part], weight, out=out), 10, x.device) * n / part
    big = torch.empty(1 << (28 if x.is_cuda else 24), device=x.device)
    room = torch.empty_like(big)
    speed = 2 * big.nbytes / _timed(lambda: room.copy_(big), 10, x.device)
    weights = 2 * d * config.d_sae
    # Adam reads four numbers and writes three; a gradient is written once; a copy reads 4 bytes and writes 2
    moved = weights * (7 * 4 + 4 + 6) + 4 * n * config.k * d * 2
    return {
        "product_ms": 1e3 * product,
        "tflops": 2e-12 * n * d * config.d_sae / product,
        "gb_a_second": 1e-9 * speed,
        "bytes_ms": 1e3 * moved / speed,
        "roofline_ms": 1e3 * (product + moved / speed),
    }


def measure(args: argparse.Namespace) -> None:
    """Ours in bfloat16, the dense loop, and the roofline, as JSON lines."""
    device = torch.device(args.device)
    tiny = args.tiny
    d, d_sae, batch, steps = (32, 256, 64, 40) if tiny else (4096, 131_072, 8192, 60)
    k = 4 if tiny else 32
    config = TrainConfig(
        kind="topk",
        d_sae=d_sae,
        k=k,
        steps=steps,
        batch_size=batch,
        lr=1e-3,
        auxk=0.0,
        precision="bf16",
        screen="never",
    )
    rows = rows_of(5 * batch, d, 2 * d, 0, device)
    batches, held = list(rows[: 4 * batch].split(batch)), rows[4 * batch :]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        json.dumps({"device": name, "size": [d, d_sae, k, batch], "steps": steps, "torch": torch.__version__})
    )
    found: dict[str, dict[str, float]] = {}
    for peer, precision in (("ours_bf16", "bf16"), ("ours_tf32", "tf32"), ("dense_compiled", "bf16")):
        if precision == "tf32" and device.type != "cuda":
            continue
        learner = _started(rows, replace(config, precision=precision))
        dense = _compiled(config, learner, args.compile) if peer == "dense_compiled" else None

        def ours(x: Tensor, number: int, learner: Learner = learner) -> object:
            return learner.advance(x, x, config.rate(number, x.shape[1]))

        told = _loop(dense or ours, batches, steps)
        found[peer] = told | {"fvu": round(_fvu(learner.finished(), held), 5)}
        print(json.dumps({"peer": peer} | found[peer]), flush=True)
        del learner, dense, ours
    if abs(found["ours_bf16"]["fvu"] / found["dense_compiled"]["fvu"] - 1) > 0.02:
        raise SystemExit("ours has not the FVU of the dense loop: these are not the same step")
    roof = _roofline(batches[0], config)
    print(json.dumps({"peer": "roofline"} | {key: round(value, 3) for key, value in roof.items()}))
    ours_ms, dense_ms = found["ours_bf16"]["ms_a_step"], found["dense_compiled"]["ms_a_step"]
    ratios = {"dense_over_ours": dense_ms / ours_ms, "ours_over_roofline": ours_ms / roof["roofline_ms"]}
    print(json.dumps({key: round(value, 2) for key, value in ratios.items()}))
