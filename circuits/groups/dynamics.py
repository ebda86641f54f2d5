"""Over training: progress measures at every checkpoint, the order in which irreps are learned, and the phase of a run.

References
----------
Nanda et al. 2023, "Progress measures for grokking" (excluded and restricted loss rise and fall before the test loss).
Liu et al. 2022, "Towards Understanding Grokking: An Effective Theory of Representation Learning" (the four phases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from torch import Tensor

from circuits.groups import losses, spectra
from circuits.groups.similarity import logit_irreps
from circuits.groups.subject import subject_of
from circuits.groups.tally import tally
from interp.errors import InputError
from interp.showing import Shown
from interp.toys import GroupRun
from interp.toys.effective_theory import phase_of
from interp.toys.train_group import split

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["Progress", "progress_of"]

PER_PAIR = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Progress(Shown):
    """Measures of one run at each of its checkpoints."""

    run: str
    epochs: tuple[int, ...]
    irreps: tuple[str, ...]
    key: tuple[str, ...]
    """The key irreps of the last checkpoint, to which excluded and restricted losses refer throughout."""
    similarity: Float64[Tensor, "epoch irrep"]
    measures: dict[str, tuple[float, ...]]
    """``train_loss``, ``test_loss``, ``excluded``, ``restricted`` in nats; accuracies; ``explained``;
    ``squared_weights``; ``key_share`` and ``participation`` (ratio) of the left operand's table."""
    phase: str
    """Comprehension, grokking, memorisation or confusion."""

    def order_of_learning(self, *, least: float = 0.05) -> list[tuple[str, int]]:
        """Each irrep whose similarity passes ``least``, with the first epoch from which it stays there, in order."""
        found = []
        for i, label in enumerate(self.irreps):
            above = self.similarity[:, i] > least
            if label == "trivial" or not above[-1]:
                continue
            last_below = (~above).nonzero()
            first = int(last_below[-1]) + 1 if len(last_below) else 0
            found.append((label, self.epochs[first]))
        return sorted(found, key=lambda item: item[1])

    def first_epoch(self, measure: str, above: float) -> int | None:
        """The first checkpoint's epoch at which a measure is above a value, None if at none."""
        return next((e for e, v in zip(self.epochs, self.measures[measure], strict=True) if v > above), None)

    def fallen(self, measure: str) -> int:
        """The number of the checkpoint from which a measure stays at or below half of where it began (their count if
        it never does)."""
        values = self.measures[measure]
        high = [i for i, value in enumerate(values) if value > values[0] / 2]
        return high[-1] + 1 if high else 0

    @property
    def excluded_rise(self) -> float:
        """The excluded loss at the end over its lowest value: memorising first lowers it, the algorithm raises it.

        It starts at the logarithm of the order, as every loss does, so the start is nothing to compare with.
        """
        return self.measures["excluded"][-1] / min(self.measures["excluded"])

    @property
    def rises_first(self) -> bool:
        """Whether the excluded loss has left its lowest value, by a tenth of it, at a checkpoint before the test loss
        has fallen to half of where it began."""
        values = self.measures["excluded"]
        lowest = min(range(len(values)), key=values.__getitem__)
        return any(value > 1.1 * values[lowest] for value in values[lowest : self.fallen("test_loss")])

    @property
    def falls_first(self) -> bool:
        """Whether the restricted loss has fallen to half of where it began no later than the test loss."""
        return self.fallen("restricted") <= self.fallen("test_loss")

    def to_frame(self) -> pd.DataFrame:
        """A row per checkpoint."""
        import pandas as pd

        columns = {f"similarity {label}": self.similarity[:, i] for i, label in enumerate(self.irreps)}
        columns.pop("similarity trivial", None)
        return pd.DataFrame({"epoch": self.epochs, **self.measures, **columns})

    def plot(self) -> go.Figure:
        """Losses over training, in decades of nats."""
        from interp.plots import Series, lines

        shown = ("train_loss", "test_loss", "excluded", "restricted")
        series = [
            Series(name=name, y=torch.tensor(self.measures[name]).clip(min=1e-12).log10().numpy())
            for name in shown
        ]
        return lines(
            list(self.epochs),
            series,
            title=f"{self.run}: {self.phase}",
            x_title="epoch",
            y_title="log10 loss (nats)",
        )


def progress_of(run: GroupRun, *, least: float = 0.05, every: int = 1) -> Progress:
    """Progress measures of a run with checkpoints.

    Parameters
    ----------
    run
        Trained with ``keep_every`` (as :func:`interp.toys.grok` does).
    least
        See :func:`circuits.groups.reverse_engineer`.
    every
        Take each so many checkpoints only; the last is always taken.

    Raises
    ------
    InputError
        The run has no checkpoints.

    Notes
    -----
    Cost: three forward passes of all pairs for each checkpoint.
    """
    if not run.checkpoints:
        raise InputError("the run kept no checkpoints; train with keep_every, or use interp.toys.grok")
    kept = [*run.checkpoints[:-1:every], run.checkpoints[-1]]
    group, word = run.group, run.card["word"]
    train, test = split(group, run.card["recipe"]["train_fraction"], seed=run.card["seed"])
    pairs = torch.arange(group.order**2)
    final, _ = tally(subject_of(run.at(kept[-1]), group, word=word))
    key = logit_irreps(group, final, least=least).key
    measures: dict[str, list[float]] = {}
    similarity = []
    for checkpoint in kept:
        module = run.at(checkpoint)
        subject = subject_of(module, group, word=word)
        sums, hidden = tally(subject)
        read = logit_irreps(group, sums, least=least)
        similarity.append(read.similarity)
        loss, right = sums.loss.flatten(), sums.right.flatten().double()
        row = {
            "train_loss": float(loss[train].mean()),
            "test_loss": float(loss[test].mean()),
            "train_accuracy": float(right[train].mean()),
            "test_accuracy": float(right[test].mean()),
            "explained": read.explained,
            "squared_weights": float(sum(p.detach().double().square().sum() for p in module.parameters())),
        }
        if subject.parts is not None and hidden is not None:
            row |= losses.hidden_losses(subject, hidden, key, train=train, every=pairs)
            row["key_share"] = float(spectra.table_shares(group, subject.parts.left)[key].sum())
            row["participation"] = _participation(subject.parts.left)
        for name, value in row.items():
            measures.setdefault(name, []).append(value)
    epochs = tuple(checkpoint.epoch for checkpoint in kept)
    return Progress(
        run=f"{group.name} {run.card['network']}, seed {run.card['seed']}",
        epochs=epochs,
        irreps=tuple(irrep.label for irrep in group.irreps()),
        key=tuple(irrep.label for irrep, is_key in zip(group.irreps(), key.tolist(), strict=True) if is_key),
        similarity=torch.stack(similarity),
        measures={name: tuple(values) for name, values in measures.items()},
        phase=phase_of(
            _reached(epochs, measures["train_accuracy"]), _reached(epochs, measures["test_accuracy"])
        ),
    )


def _reached(epochs: Sequence[int], accuracy: Sequence[float], threshold: float = 0.9) -> int | None:
    return next((e for e, value in zip(epochs, accuracy, strict=True) if value >= threshold), None)


def _participation(table: Tensor) -> float:
    """(sum of eigenvalues)^2 / sum of squares, of the covariance over elements."""
    squares = torch.linalg.svdvals(table.double() - table.double().mean(0)).square()
    return float(squares.sum().square() / squares.square().sum())
