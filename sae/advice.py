"""What a run should be told while it can still be helped: each warning names a remedy, and comes once."""

from __future__ import annotations

from collections.abc import Mapping

from sae.config import TrainConfig

__all__ = ["advice"]


def advice(line: Mapping[str, float], config: TrainConfig) -> dict[str, str]:
    """Name -> warning for the metrics of one step."""
    said: dict[str, str] = {}
    done = line["step"] / config.steps
    if done >= 0.05 and line["dead"] > 0.1:
        cure = (
            "raise auxk or resample_every, lower lr"
            if config.keeps_few
            else "set resample_every, lower sparsity"
        )
        said["dead"] = (
            f"{line['dead']:.0%} of the latents are dead at step {line['step']:.0f} (they have not fired in the last "
            f"{config.window} rows): {cure}, or lower d_sae; raise dead_after if they are only rare"
        )
    if done >= 0.05 and line["l0"] < (0.1 * config.k if config.keeps_few else 1.0):
        cure = "lower lr" if config.keeps_few else f"lower sparsity = {config.sparsity:g}"
        said["l0"] = f"rows use {line['l0']:.2g} codes at step {line['step']:.0f}: they collapse; {cure}"
    if done >= 0.05 and line["fvu"] > 1:
        said["fvu"] = (
            f"FVU is {line['fvu']:.3g} at step {line['step']:.0f}, worse than the mean: "
            f"lower lr (now {line['lr']:.3g}), or look for rows of another size (the first position of a text, say)"
        )
    return said
