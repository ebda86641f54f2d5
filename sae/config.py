"""What a training run is asked to do: a frozen value that only raises and never rewrites itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from interp.errors import InputError

__all__ = ["TrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train a sparse autoencoder; what is saved with the weights is exactly this."""

    kind: Literal["topk"] = "topk"
    """The sparsity rule. ``"topk"``: the k largest positive codes of every row (Gao et al. 2024)."""
    d_sae: int
    """Latents."""
    k: int = 32
    """Codes kept a row."""
    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 1024
    """Rows a step; every pass over the data draws a new order."""
    lr: float = 2e-3
    """Peak rate of Adam."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises from 0; over the last fifth it falls back to 0."""
    seed: int = 0
    """Of the initial dictionary and of the order of rows."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 keeps only the last. Needs ``out``."""
    log_every: int = 10
    """Steps between metric lines."""

    def __post_init__(self) -> None:
        problems = [
            *(
                f"{name} = {getattr(self, name)} must be at least 1"
                for name in ("d_sae", "k", "steps", "batch_size", "log_every")
                if getattr(self, name) < 1
            ),
            *([f"kind = {self.kind!r} is not known here; it is 'topk'"] if self.kind != "topk" else []),
            *([f"k = {self.k} exceeds d_sae = {self.d_sae}"] if self.k > self.d_sae else []),
            *([f"lr = {self.lr} must be positive"] if not self.lr > 0 else []),
            *([f"warmup = {self.warmup} must lie in [0, 0.8]"] if not 0 <= self.warmup <= 0.8 else []),
            *(
                [f"checkpoint_every = {self.checkpoint_every} must not be negative"]
                if self.checkpoint_every < 0
                else []
            ),
        ]
        if problems:
            raise InputError("this training cannot run: " + "; ".join(problems))

    def rate(self, step: int) -> float:
        """The learning rate of ``step`` (counted from 0): linear warm-up, flat, linear decay over the last fifth."""
        rise = self.warmup * self.steps
        fall = max(1.0, 0.2 * self.steps)
        return self.lr * min(1.0, (step + 1) / rise if rise > 0 else 1.0, (self.steps - step) / fall)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)
