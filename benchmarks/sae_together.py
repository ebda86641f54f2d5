"""When do several dictionaries of one shape that step together cost less than one after the other?

    python -m benchmarks.sae_together [--rounds 7]

Sizes are d, latents, k, rows a step. Both ways are measured in turns in one process, in CPU seconds (medians); before
that both are trained for a few steps and must have the same weights, to the bit. ``auto``: whether ``sae.train`` lets
them step together by itself. JSON lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.sae_quality import planted
from sae.config import TrainConfig
from sae.learner import Learner, Scales
from sae.middle import scales_of
from sae.stacking import Stack, stacked

SIZES = (
    (64, 512, 8, 64), (64, 512, 16, 256), (128, 512, 16, 512), (256, 1024, 16, 256), (256, 1024, 16, 1024),
    (512, 4096, 32, 2048),
)  # fmt: skip


def started(scales: Scales, kind: str, size: tuple[int, int, int, int], many: int) -> list[Learner]:
    """Learners of other seeds."""
    _, d_sae, k, batch = size
    return [
        Learner.start(scales, TrainConfig(kind=kind, d_sae=d_sae, k=k, batch_size=batch, lr=1e-3, seed=seed))
        for seed in range(many)
    ]


def alone(learners: list[Learner], parts: list[Tensor]) -> None:
    """Each step of one after the other; drawing and scaling are shared here too."""
    for part in parts:
        x, _ = learners[0].scales.scaled(part, part)
        for one in learners:
            one.advance(x, x, one.config.rate(one.step, one.coder.d_out), scaled=True)


def abreast(stack: Stack, parts: list[Tensor]) -> None:
    """The same steps in the same calls."""
    for part in parts:
        x, _ = stack.learners[0].scales.scaled(part, part)
        stack.advance([x] * len(stack.learners), [x] * len(stack.learners))


def measured(
    size: tuple[int, int, int, int], kind: str, many: int, rounds: int, rows: Tensor
) -> dict[str, Any]:
    """Milliseconds a step of all, both ways."""
    scales = scales_of(rows, rows, n_sites=1, center="mean", place="rows")
    parts = list(rows.split(size[3]))[:8]
    apart, together = started(scales, kind, size, many), started(scales, kind, size, many)
    auto = len(stacked(together)) == 1 < many
    stack = Stack(together)
    alone(apart, parts)
    abreast(stack, parts)
    for one, other in zip(apart, together, strict=True):
        for name, value in one.coder.state_dict().items():
            if auto and not torch.equal(other.coder.state_dict()[name], value):
                raise SystemExit(f"{name} is not the same: {size}, {kind}, {many}")
    times: dict[str, list[float]] = {"alone": [], "together": []}
    repeats = max(1, (1 << 20) // (size[1] * size[3]))
    for _ in range(rounds):
        for name, run in (
            ("alone", lambda: alone(apart, parts)),
            ("together", lambda: abreast(stack, parts)),
        ):
            began = time.process_time()
            for _ in range(repeats):
                run()
            times[name].append(1e3 * (time.process_time() - began) / repeats / len(parts))
    found = {name: round(statistics.median(values), 2) for name, values in times.items()}
    ratio = round(found["together"] / found["alone"], 2)
    return {"size": size, "kind": kind, "coders": many, "auto": auto} | found | {"together_over_alone": ratio}


def main() -> None:
    """Every size, kind and number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for size in SIZES:
        rows, _ = planted(16_384, size[0], size[1], size[2] / 2, 0)
        for kind in ("topk", "batchtopk"):
            for many in (1, 2, 4, 8):
                print(json.dumps(measured(size, kind, many, args.rounds, rows)), flush=True)


if __name__ == "__main__":
    main()
