"""Metrics of a run to TensorBoard or Weights & Biases, beside the JSON lines that are always written.

Each function gives what ``sae.train(watch=)`` calls with a line of metrics; a function of your own will do as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from interp.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Watcher", "to_tensorboard", "to_wandb"]

Watch = Callable[[Mapping[str, float]], None]


class Watcher:
    """Hears each line of metrics; :meth:`close`, or the end of a ``with`` block, ends its record.

    Training does not close it, so that several runs can be told to one.
    """

    def __init__(self, tell: Watch, close: Callable[[bool], None]) -> None:
        self._tell, self._close, self._open = tell, close, True

    def __call__(self, line: Mapping[str, float]) -> None:
        """Record a line; ``step`` is its place and every other number a curve."""
        if not self._open:
            raise InputError("this record of metrics is closed; open another for another run")
        self._tell(line)

    def close(self, *, failed: bool = False) -> None:
        """End the record, once; ``failed`` marks the run so where the service has a word for it."""
        if self._open:
            self._open = False
            self._close(failed)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close(failed=kind is not None)


def to_tensorboard(folder: str | Path) -> Watcher:
    """Scalars for TensorBoard in ``folder``.

    A run that is resumed goes on in the same folder: what an earlier attempt wrote of steps that are made again is
    hidden by the viewer.

    Raises
    ------
    InputError
        The package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as missing:
        raise InputError("tensorboard is not installed: pip install interp-toolkit[tensorboard]") from missing
    opened: list[SummaryWriter] = []

    def tell(line: Mapping[str, float]) -> None:
        step = int(line["step"])
        if not opened:  # at the first line, for only then it is known where this attempt begins
            opened.append(SummaryWriter(str(folder), purge_step=step))
        for name, value in line.items():
            if name != "step":
                opened[0].add_scalar(name, value, step)
        opened[0].flush()

    def close(failed: bool) -> None:
        for writer in opened:
            writer.close()

    return Watcher(tell, close)


def to_wandb(project: str, **options: Any) -> Watcher:
    """Metrics for a run of ``project``; ``options`` go to ``wandb.init``.

    ``mode="offline"``, or ``WANDB_MODE=offline`` in the environment, keeps the run on disk, for ``wandb sync``.

    Raises
    ------
    InputError
        The package is not installed, or the service takes no run.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise InputError("wandb is not installed: pip install interp-toolkit[wandb]") from missing
    try:
        run = wandb.init(project=project, **options)
    except wandb.Error as refused:
        raise InputError(
            f"wandb begins no run of {project!r} ({refused}); with WANDB_MODE=offline it is kept on disk"
        ) from refused

    def tell(line: Mapping[str, float]) -> None:
        run.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))

    return Watcher(tell, lambda failed: run.finish(exit_code=int(failed)))
