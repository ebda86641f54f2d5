"""Metrics of a run to TensorBoard or Weights & Biases, beside the JSON lines that are always written.

Each function gives what ``sae.train(watch=)`` calls with a line of metrics; a function of your own will do as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from interp.errors import InputError

__all__ = ["to_tensorboard", "to_wandb"]

Watch = Callable[[Mapping[str, float]], None]


def to_tensorboard(folder: str | Path) -> Watch:
    """Scalars for TensorBoard in ``folder``.

    Raises
    ------
    InputError
        The package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as missing:
        raise InputError("tensorboard is not installed: pip install interp-toolkit[tensorboard]") from missing
    writer = SummaryWriter(str(folder))

    def watch(line: Mapping[str, float]) -> None:
        for name, value in line.items():
            if name != "step":
                writer.add_scalar(name, value, int(line["step"]))
        writer.flush()

    return watch


def to_wandb(project: str, **options: Any) -> Watch:
    """Metrics for a run of ``project``; ``options`` go to ``wandb.init``.

    Raises
    ------
    InputError
        The package is not installed.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise InputError("wandb is not installed: pip install interp-toolkit[wandb]") from missing
    run = wandb.init(project=project, **options)

    def watch(line: Mapping[str, float]) -> None:
        run.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))

    return watch
