"""What a sweep returns: accuracy by site with everything that gives it its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.escaping import encodable
from interp.results import Result
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["SweepResult", "Sweeps"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SweepResult(Result):
    """Held-out accuracy by site. ``chance`` is the majority baseline: always the train set's commonest class."""

    accuracy: np.ndarray
    """[site, seed] accuracy on each split's test groups."""
    control: np.ndarray | None = None
    """[site] accuracy on the control task, or None where word types are unknown."""
    control_interval: np.ndarray | None = None
    shuffled: np.ndarray
    """[site] accuracy of a probe fitted on shuffled labels, tested on the true ones."""
    shuffled_interval: np.ndarray
    classes: tuple[int, ...]
    n_groups: int
    n_train: int
    n_test: int
    """Samples of an average split."""
    converged: float
    """Share of the fits whose solver converged."""
    auroc: np.ndarray | None = None
    """[site, seed] mean over classes of one against the rest; None for a probe without scores."""
    brier: np.ndarray | None = None
    """[site, seed] squared error of the probabilities, 0 to 2; None for a probe without probabilities."""
    ece: np.ndarray | None = None
    """[site, seed] expected calibration error."""
    unseen: tuple[str, ...] = ()
    """Of every class that a split's train groups lack: how many tested rows it has, the first of them, the seed."""
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> [site] accuracy of that baseline: ``random_init``, ``shuffled_tokens``."""
    bits: np.ndarray | None = None
    """[site, seed] online codelength."""
    uniform_bits: float | None = None
    """Bits of the uniform code."""
    transfer: np.ndarray | None = None
    """[site, site] accuracy of the row's probe at the column's site."""
    curve: np.ndarray | None = None
    """[site, size] accuracy with fewer training rows."""
    sizes: tuple[int, ...] = ()
    """Training rows of ``curve``."""

    @property
    def selectivity(self) -> np.ndarray | None:
        """[site] accuracy minus control accuracy (Hewitt & Liang 2019)."""
        return None if self.control is None else np.asarray(self.value) - self.control

    @property
    def compression(self) -> np.ndarray | None:
        """[site] uniform code over online code: 1 where nothing is learnt."""
        return (
            None if self.bits is None or self.uniform_bits is None else self.uniform_bits / self.bits.mean(1)
        )

    def table(self) -> pd.DataFrame:
        """One row a site, a column for every quantity that was measured."""
        frame = self.to_frame().rename(columns={"value": "accuracy", "chance": "majority"})
        for name in ("auroc", "brier", "ece"):
            scores = getattr(self, name)
            if scores is not None:
                frame[name] = scores.mean(1)
        for name in ("control", "selectivity", "shuffled", "compression"):
            if getattr(self, name) is not None:
                frame[name] = getattr(self, name)
        return frame.assign(**dict(self.baselines))

    def plot_transfer(self) -> go.Figure:
        """Accuracy of the row's probe at the column's site."""
        from probes import plots

        if self.transfer is None:
            raise InputError('this sweep measured no transfer; ask for extras=["transfer"]')
        return plots.transfer_chart(self.ticks[0], self.transfer, title=self.name)

    def plot_curve(self) -> go.Figure:
        """Accuracy over the number of training rows, a line a site."""
        from probes import plots

        if self.curve is None:
            raise InputError('this sweep measured no sample-size curve; ask for extras=["curve"]')
        return plots.curve_chart(self.ticks[0], self.sizes, self.curve, title=self.name)

    def plot(self) -> go.Figure:
        """Accuracy over sites with its interval, the control, the shuffled labels and the majority baseline."""
        from probes import plots

        return plots.sweep_chart(
            self.ticks[0],
            np.asarray(self.value),
            self.interval,
            control=self.control,
            shuffled=self.shuffled,
            majority=float(np.mean(self.chance or 0.0)),
            baselines=self.baselines,
            title=self.name,
        )


class Sweeps(Shown, dict[str, SweepResult]):
    """Sweeps by label; a dict that knows its table."""

    def _facts(self) -> dict[str, Any]:
        return {name: repr(one) for name, one in self.items()}

    def _listing(self) -> pd.DataFrame:
        return self.to_frame()

    def to_frame(self) -> pd.DataFrame:
        """One row a label and site: accuracy with its interval."""
        import pandas as pd

        parts = [one.to_frame().assign(label=encodable(name)) for name, one in self.items()]
        return pd.concat(parts, ignore_index=True)

    def table(self) -> pd.DataFrame:
        """One row a label and site."""
        import pandas as pd

        return pd.concat([one.table().assign(label=name) for name, one in self.items()], ignore_index=True)
