"""Encoded and used? A probe's direction is pushed along and taken out, beside random directions of equal length.

A probe shows that a label can be read. Whether the model reads it is a question about what happens when it is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.directions import Direction
from interp.edits import Edit
from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from probes.directing import ProbeDirection, ablate, direction, steer
from probes.sources import read
from probes.sweeping import sweep

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.tokens import Tokens

__all__ = ["CausalUse", "causal_use"]

NOT_ENCODED, UNUSED, USED = "not encoded", "encoded, not used", "encoded and used"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CausalUse(Result):
    """Effect of steering by dose: half of metric(+dose) - metric(-dose); ``chance``: the controls' 95% point."""

    verdict: str
    """``encoded and used``, ``encoded, not used`` or ``not encoded``."""
    doses: tuple[float, ...]
    """In mean residual norms."""
    controls: np.ndarray
    """[control, dose] the same for random directions of equal length."""
    ablation: float
    """Mean change of the metric when the direction is set to its mean."""
    ablation_controls: np.ndarray
    """[control] the same for random directions."""
    p_value: float
    """Share of directions, this one counted, that act at least as strongly (mean effect per dose)."""
    accuracy: float
    accuracy_interval: tuple[float, float]
    nothing: float
    """What a probe gets right that knows nothing: the larger of majority and shuffled labels."""
    residual_norm: float

    def plot(self) -> go.Figure:
        """Dose-response with the band of random directions."""
        from probes import plots

        return plots.dose_chart(
            self.doses, np.asarray(self.value), self.controls, title=f"{self.name}: {self.verdict}"
        )


def causal_use(
    model: Any,
    tokens: Tokens,
    site: str | Site,
    labels: Any,
    metric: Callable[[Tensor], Tensor],
    *,
    along: Direction | None = None,
    doses: Sequence[float] = (0.1, 0.25, 0.5),
    n_controls: int = 39,
    position: Any = None,
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int | None = None,
) -> CausalUse:
    """Is a two-class label encoded at a site, and does the model use it?

    *Encoded*: a probe's held-out accuracy has an interval above majority and shuffled labels. *Used*: pushing
    activations along the direction moves the metric more than all but 5% of random directions of equal length do. "Not
    used" is said of this direction, metric and these doses.

    Parameters
    ----------
    labels
        [batch, pos] of two classes, negative where a token has none.
    metric
        Logits -> one number an example, such as a task's.
    along
        The direction to test; by default the difference of the two class means at the site.
    doses
        Lengths pushed, in units of the mean norm of a residual row.
    n_controls
        Random directions; at least 19, else no p-value reaches 0.05.
    position
        Columns that are edited; all by default.

    Notes
    -----
    Cost: (2 doses + 1) (1 + n_controls) + 2 forward passes a batch.
    """
    if n_controls < 19:
        raise InputError(f"n_controls = {n_controls}; a verdict at 5% needs at least 19")
    (found,) = model.find(site)
    held = sweep(model, labels, str(found), tokens=tokens, seeds=seeds, probe="lda")
    assert held.interval is not None
    nothing = max(float(np.mean(held.chance or 0.0)), float(held.shuffled[0]))
    rows, direct = _rows_and_direction(model, tokens, str(found), labels, along)
    norm = float(np.linalg.norm(rows, axis=1).mean())
    push = _Push(model, tokens, metric, [d * norm for d in doses], {"position": position}, batch_size)
    own, own_cut = push(direct)
    generator = torch.Generator().manual_seed(int(seeds[0]))
    pairs = [
        push(
            ProbeDirection(
                site=direct.site,
                vector=torch.randn(rows.shape[1], generator=generator, dtype=torch.float64),
                origin=torch.as_tensor(rows.mean(0)).double(),
                name="random",
            )
        )
        for _ in range(n_controls)
    ]
    controls, cuts = np.stack([c for c, _ in pairs]), np.array([c for _, c in pairs])
    strength = np.abs((controls / doses).mean(1))
    mine = abs(float((own / doses).mean()))
    p = float((1 + (strength >= mine).sum()) / (1 + n_controls))
    encoded = float(held.interval[0, 0]) > nothing
    verdict = NOT_ENCODED if not encoded else USED if p <= 0.05 and mine > 0 else UNUSED
    return CausalUse(
        name="causal use", value=own, n=push.n, chance=np.quantile(np.abs(controls), 0.95, axis=0),
        axes=("dose",), ticks=(tuple(f"{d:g}" for d in doses),),
        convention=f"(metric(+dose) - metric(-dose)) / 2, dose in mean residual norms; {n_controls} random directions",
        verdict=verdict, doses=tuple(float(d) for d in doses), controls=controls, ablation=own_cut,
        ablation_controls=cuts, p_value=p, accuracy=float(held.value[0]),
        accuracy_interval=(float(held.interval[0, 0]), float(held.interval[0, 1])), nothing=nothing,
        residual_norm=norm, provenance={"site": str(found), "seeds": [int(s) for s in seeds]},
    )  # fmt: skip


def _rows_and_direction(
    model: Any, tokens: Tokens, site: str, labels: Any, along: Direction | None
) -> tuple[np.ndarray, Direction]:
    from probes.discriminants import MassMeanProbe

    _, data = read(model, labels, site, tokens=tokens, groups=None, types=None)
    rows, known = data.rows(site), data.labels >= 0
    classes = np.unique(data.labels[known])
    if len(classes) != 2:
        raise InputError(
            f"the label has classes {classes.tolist()}; a verdict is given on two (make one against the rest)"
        )
    if along is None:
        return rows, direction(MassMeanProbe().fit(rows[known], data.labels[known]), site)
    if along.vector.shape != (rows.shape[1],):
        raise InputError(f"the direction is {list(along.vector.shape)}; {site} has width {rows.shape[1]}")
    return rows, along


class _Push:
    """Effects of one direction after another on the same batch."""

    def __init__(
        self, model: Any, tokens: Tokens, metric: Callable[[Tensor], Tensor], amounts: list[float],
        where: dict[str, Any], batch_size: int | None,
    ) -> None:  # fmt: skip
        self.model, self.tokens, self.metric = model, tokens, metric
        self.amounts, self.where, self.batch_size = amounts, where, batch_size
        plain = self._run([])
        self.plain, self.n = float(plain.mean()), len(plain)

    def _run(self, edits: list[Edit]) -> np.ndarray:
        logits = self.model.logits(self.tokens, edits=edits, batch_size=self.batch_size)
        return self.metric(logits).detach().double().cpu().numpy()

    def __call__(self, along: Direction) -> tuple[np.ndarray, float]:
        """Effect by dose, and the change under ablation."""
        ends = [
            [float(self._run([steer(along, sign * amount, **self.where)]).mean()) for sign in (1, -1)]
            for amount in self.amounts
        ]
        cut = float(self._run([ablate(along, **self.where)]).mean()) - self.plain
        return np.array([(up - down) / 2 for up, down in ends]), cut
