"""What a training would cost, from a few trial steps; nothing is written."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.runs.files import free_bytes

if TYPE_CHECKING:
    from sae.commands.material import Material
    from sae.commands.reading import Read
    from sae.config import TrainConfig

__all__ = ["estimate", "estimate_page", "told", "told_page"]


def estimate(found: Material, config: TrainConfig, out: Path) -> dict[str, Any]:
    """Rows, forward passes, seconds, memory and disk bytes of a training.

    Rows are counted, passes from the rows of the first; the time is that of a step and of drawing a row, times their
    numbers; memory is the coder with its gradient and two moments, and what is held of the rows; on the disk lie two
    checkpoints of coder, moments and buffer, and the coder.
    """
    from sae.streaming import ModelRows

    flowing = isinstance(found.data, ModelRows)
    began = time.perf_counter()
    x, y = found.rows(found.data, 2 * config.batch_size)
    drawing = (time.perf_counter() - began) / len(x)
    drawn, held = config.steps * config.batch_size, (16 if flowing else 1) * config.batch_size
    widths = x.shape[1] + (y.shape[1] if found.targets else 0)
    weights = 4 * (x.shape[1] * config.d_sae + y.shape[1] * config.d_sae + config.d_sae + y.shape[1])
    passes = 0
    if flowing:
        first = next(iter(found.data))
        passes = -(-(drawn + held) // len(first[0] if found.targets else first))
        x, y = (
            rows.repeat(-(-2 * config.batch_size // len(rows)), 1) for rows in (x, y)
        )  # it reads texts again
    return {
        "rows": drawn,
        "steps": config.steps,
        "d_in": x.shape[1],
        "forward_passes": passes,
        "seconds": config.steps * _step((x, y) if found.targets else x, config) + (drawn + held) * drawing,
        "memory_bytes": 4 * weights + 4 * held * widths,
        "disk_bytes": 7 * weights + (8 * held * widths if flowing else 0),
        "free_bytes": free_bytes(out),
    }


def _step(rows: Any, config: TrainConfig) -> float:
    """Seconds of one optimiser step."""
    from sae import train

    seconds = []
    for steps in (2, 6):
        began = time.perf_counter()
        train(rows, replace(config, steps=steps, checkpoint_every=0, log_every=steps), progress=False)
        seconds.append(time.perf_counter() - began)
    return max(0.0, seconds[1] - seconds[0]) / 4


def told(cost: dict[str, Any]) -> str:
    """The estimate in a line."""
    return (
        f"{cost['steps']} steps, {cost['rows']} rows of width {cost['d_in']}, {cost['forward_passes']} forward "
        f"passes: about {cost['seconds']:.0f} s, {cost['memory_bytes'] / 1e6:.0f} MB of memory, "
        f"{cost['disk_bytes'] / 1e6:.0f} MB of disk ({cost['free_bytes'] / 1e9:.1f} GB free)"
    )


def estimate_page(found: Read, out: Path, *, causal: int) -> dict[str, Any]:
    """Passes, seconds, memory and disk bytes of a feature page, from all of it on a thirty-second of the texts.

    The latents that are tried out (``causal``) are counted in passes only, since which they are is not known yet.
    """
    from sae.gallery.gathering import gather
    from sae.gallery.page import blocks

    n = len(found.tokens)
    few = found.tokens[: max(2, n // 32)]
    gather(found.coder, found.model, few, found.site)  # the first pass warms up
    began = time.perf_counter()
    features = gather(found.coder, found.model, few, found.site)
    seconds = time.perf_counter() - began
    facts = {"model": found.model.name, "site": found.site}
    codes = found.coder.d_sae * 4 * 2
    weights = sum(p.numel() * p.element_size() for p in found.model.module.parameters())
    return {
        "texts": n,
        "tokens": int(found.tokens.mask.sum()),
        "forward_passes": n * (1 + (2 * causal > 0)) + 2 * causal,
        "seconds": round(seconds * n / len(few), 1),
        "memory_bytes": weights
        + 2 * found.coder.d_in * codes
        + 12 * len(features.codes.rows) * n // len(few),
        "disk_bytes": 2 * sum(len(text) for text in blocks(features, facts).values()),
        "free_bytes": free_bytes(out),
    }


def told_page(cost: dict[str, Any]) -> str:
    """The estimate in a line."""
    return (
        f"{cost['texts']} texts, {cost['tokens']} tokens: about {cost['seconds']:.0f} s, "
        f"{cost['memory_bytes'] / 1e6:.0f} MB of memory, {cost['disk_bytes'] / 1e6:.1f} MB of disk "
        f"({cost['free_bytes'] / 1e9:.1f} GB free)"
    )
