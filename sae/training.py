"""Training: one loop, resumable bit for bit, with metrics on disk from the first step.

The batch of a step is a pure function of (seed, step), so a checkpoint needs the weights, the optimiser's moments and
the step number, and a resumed run is the uninterrupted one. Read next: ``checkpoints.py``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import CheckError, InputError
from interp.runs.checkpoints import prepared
from interp.runs.files import JsonLines
from interp.runs.progress import progress, stop_on_interrupt
from interp.runs.provenance import provenance
from interp.sites import Site
from sae import checkpoints
from sae.coder import Coder
from sae.config import TrainConfig
from sae.data import RowSource, batch_indices, moments_of, row_source
from sae.storage import save

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["Run", "train"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A finished training run."""

    coder: Coder
    """In the coordinates of the data."""
    config: TrainConfig
    history: Mapping[str, np.ndarray]
    """step, loss, fvu, l0, dead, lr: one entry every ``log_every`` steps; of the training batch, so optimistic."""
    out: Path | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        last = {name: float(values[-1]) for name, values in self.history.items() if len(values)}
        shown = ", ".join(
            f"{name} {last[name]:.4g}" for name in ("step", "fvu", "l0", "dead") if name in last
        )
        return f"Run({self.coder.kind} {self.coder.d_in} -> {self.coder.d_sae}, k = {self.coder.k}; {shown})"

    def to_frame(self) -> pd.DataFrame:
        """The history as a table."""
        import pandas as pd

        return pd.DataFrame(dict(self.history))

    def plot(self) -> go.Figure:
        """FVU and dead latents over the steps."""
        from sae import plots

        return plots.training_chart(self.history["step"], self.history["fvu"], self.history["dead"])


@dataclass(slots=True, kw_only=True, eq=False)
class Trainer:
    """What changes while training: the coder in scaled coordinates, the optimiser, who fired when."""

    coder: Coder
    optimizer: torch.optim.Adam
    scale: float
    last_fired: Tensor
    """[latent] the last step in which each latent was used; -1: never."""
    step: int = 0

    @classmethod
    def start(cls, source: RowSource, config: TrainConfig) -> Trainer:
        """A fresh dictionary, with b_dec at the mean of the data."""
        mean, scale = moments_of(source, config.seed)
        coder = Coder(source.d, config.d_sae, config.k, kind=config.kind, seed=config.seed)
        with torch.no_grad():
            coder.b_dec.copy_(mean / scale)
        optimizer = torch.optim.Adam(coder.parameters(), lr=config.lr, betas=(0.9, 0.999))
        return cls(
            coder=coder,
            optimizer=optimizer,
            scale=scale,
            last_fired=torch.full((config.d_sae,), -1, dtype=torch.long),
        )

    def advance(self, rows: Tensor, rate: float) -> dict[str, float]:
        """One optimiser step on ``rows`` [sample, d]; its loss, FVU and L0."""
        coder, x = self.coder, rows / self.scale
        indices, values = coder.sparse_encode(x)
        error = (x - coder.sparse_decode(indices, values)).square().sum(1)
        loss = error.mean() / coder.d_in
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # a direction's own length is fixed: the part of its gradient along itself would only be undone again
        gradient, directions = coder.W_dec.grad, coder.W_dec.detach()
        assert gradient is not None  # the decoder has just taken part in the loss
        gradient -= (gradient * directions).sum(1, keepdim=True) * directions
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        coder.normalise_()
        fired = indices[values > 0]
        self.last_fired[fired] = self.step
        self.step += 1
        total = (x - x.mean(0)).square().sum()
        return {"loss": loss.item(), "fvu": (error.detach().sum() / total).item(), "l0": len(fired) / len(x)}


def train(
    data: Any,
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    site: str | Site | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a sparse autoencoder.

    Parameters
    ----------
    data
        Rows [sample, d], or an :class:`interp.ActivationStore`.
    config
        What to train; never changed.
    out
        A folder for metrics, checkpoints and the coder. None keeps everything in memory.
    resume
        Go on from the newest sound checkpoint in ``out``; start anew if there is none.
    site
        Which site of a store.
    progress
        None: a bar on a terminal only.

    Returns
    -------
    Run
        ``.coder`` is in the coordinates of the data.

    Raises
    ------
    InputError
        Data or configuration cannot be used, or ``out`` holds a run and ``resume`` is False.
    StoreError
        A checkpoint of another configuration or other data, or a folder that cannot be written.
    CheckError
        The loss is no longer finite; the message says at which step and what to try.
    KeyboardInterrupt
        On Ctrl-C, after a checkpoint was written (with ``out``).

    Notes
    -----
    A step costs two dense products of size batch x d x d_sae and O(batch x k x d). n steps are the same numbers as k
    steps, a kill, a resume and n - k steps, bit for bit, on the CPU with the same number of threads.

    References
    ----------
    Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3.
    """
    source = row_source(data, site)
    batch_indices(source.n, config.batch_size, 0, config.seed)  # says at once if there is too little data
    folder = None if out is None else prepared(Path(out), resume=resume)
    if folder is None and (resume or config.checkpoint_every):
        raise InputError("resume and checkpoint_every need a folder: say out=")
    began = time.perf_counter()
    identity = {"config": config.as_dict(), "data": source.fingerprint()}
    trainer = Trainer.start(source, config)
    history: list[dict[str, float]] = []
    if folder is not None and resume:
        history = checkpoints.restore(folder, trainer, identity)
    _loop(trainer, source, config, folder, identity, history, shown=progress)
    coder = trainer.coder.rescaled(trainer.scale)
    record = provenance(
        seed=config.seed,
        config=config.as_dict(),
        data={"place": source.place, "rows": source.n, "sha256": identity["data"]},
    )
    if folder is not None:
        save(coder, folder / "coder", provenance=record)
    names = ("step", "loss", "fvu", "l0", "dead", "lr")
    columns = {name: np.array([line[name] for line in history]) for name in names}
    return Run(
        coder=coder,
        config=config,
        history=columns,
        out=folder,
        provenance=record | {"seconds": time.perf_counter() - began},
    )


def _loop(
    trainer: Trainer,
    source: RowSource,
    config: TrainConfig,
    folder: Path | None,
    identity: dict[str, Any],
    history: list[dict[str, float]],
    *,
    shown: bool | None,
) -> None:
    lines = None if folder is None else JsonLines(folder / "metrics.jsonl", sync=False)
    window = max(1, config.steps // 10)
    bar = progress(total=config.steps, initial=trainer.step, desc="sae", unit="step", enabled=shown)
    with bar, stop_on_interrupt() as stop:
        while trainer.step < config.steps:
            step = trainer.step
            rows = source.draw(batch_indices(source.n, config.batch_size, step, config.seed))
            rate = config.rate(step)
            numbers = trainer.advance(rows, rate)
            if not np.isfinite(numbers["loss"]):
                raise CheckError(
                    f"the loss is {numbers['loss']} at step {step}; look for NaN in the data, or lower lr = {config.lr}"
                )
            done = trainer.step
            if done % config.log_every == 0 or done == config.steps:
                dead = float((trainer.last_fired < done - window).float().mean())
                line = {"step": done, **numbers, "dead": dead, "lr": rate}
                history.append(line)
                if lines is not None:
                    lines.append(line)
                bar.set_postfix(
                    fvu=f"{numbers['fvu']:.3f}", l0=f"{numbers['l0']:.1f}", dead=f"{100 * dead:.0f}%"
                )
            bar.update(1)
            due = config.checkpoint_every and done % config.checkpoint_every == 0
            if folder is not None and (due or done == config.steps or stop.requested):
                checkpoints.write(folder, trainer, identity)
            stop.check(
                f"stopped after step {done}"
                + ("" if folder is None else f"; go on with resume=True in {folder}")
            )
