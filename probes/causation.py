"""Encoded and used? A probe's direction is pushed along, taken out and patched, beside random ones.

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
from interp.edits import Edit, patch
from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from probes.directing import ProbeDirection, ablate, direction, patch_along, steer
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
    """Mean |change| of the metric when the direction is set to its mean."""
    ablation_controls: np.ndarray
    """[control] the same for random directions."""
    p_value: float
    """Share of directions, this one counted, that act at least as strongly (mean effect per dose)."""
    accuracy: float
    accuracy_interval: tuple[float, float]
    nothing: float
    """What a probe gets right that knows nothing: the larger of majority and shuffled labels."""
    residual_norm: float
    patched: float | None = None
    """Mean change of the metric towards the corrupted run when only what lies along the direction comes from there."""
    patched_whole: float | None = None
    """The same when all of the site at the edited columns comes from there."""
    patched_controls: np.ndarray | None = None
    """[control] ``patched`` of random directions."""
    patched_p: float | None = None
    """Share of directions, this one counted, that carry over at least as much."""

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
    corrupted: Tokens | None = None,
    doses: Sequence[float] = (0.1, 0.25, 0.5),
    controls: int | Sequence[Direction] = 39,
    position: Any = None,
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int | None = None,
) -> CausalUse:
    """Is a two-class label encoded at a site, and does the model use it?

    *Encoded*: a probe's held-out accuracy has an interval above majority and shuffled labels. *Used*: pushing
    activations along the direction moves the metric more than all but 5% of random directions of equal length do, and,
    where corrupted prompts are given, carrying over what lies along it does too. "Not used" is said of this direction,
    metric, place and these doses.

    Parameters
    ----------
    labels
        [batch, pos] of two classes, negative where a token has none.
    metric
        Logits -> one number an example, which grows with one and the same class on every prompt ("plural verbs minus
        singular ones"): of "right minus wrong" the pushes on the two classes would cancel.
    along
        The direction to test; by default the difference of the two class means at the site.
    corrupted
        Prompts that line up with ``tokens``, token by token, where the label is the other class.
    doses
        Lengths pushed, in units of the mean norm of a residual row (all columns).
    controls
        How many random directions, or directions of your own (say, those of permuted labels); at least 19, else no
        p-value reaches 0.05.
    position
        Columns that are edited; all by default.

    Notes
    -----
    Cost: (2 doses + 1) (1 + controls) + 2 forward passes a batch; with ``corrupted`` one more a direction and 4.
    """
    own_controls = not isinstance(controls, int)
    n_controls = len(controls) if own_controls else controls
    if n_controls < 19:
        raise InputError(f"controls = {n_controls}; a verdict at 5% needs at least 19")
    (found,) = model.find(site)
    held = sweep(model, labels, str(found), tokens=tokens, seeds=seeds, probe="lda")
    assert held.interval is not None
    nothing = max(float(np.mean(held.chance or 0.0)), float(held.shuffled[0]))
    rows, direct = _rows_and_direction(model, tokens, str(found), labels, along)
    norm = float(np.linalg.norm(rows, axis=1).mean())
    push = _Push(model, tokens, metric, corrupted, found, [d * norm for d in doses], position, batch_size)
    own = push(direct)
    others = controls if own_controls else _random(direct.site, rows, n_controls, int(seeds[0]))
    drawn = [push(one) for one in others]
    effects, cuts = np.stack([one.effect for one in drawn]), np.array([one.cut for one in drawn])
    strength, mine = np.abs((effects / doses).mean(1)), abs(float((own.effect / doses).mean()))
    p, patched = _share(strength, mine), _patches(own, drawn, push)
    encoded = float(held.interval[0, 0]) > nothing
    used = max(p, patched.get("patched_p", 0.0)) <= 0.05 and mine > 0
    return CausalUse(
        name="causal use", value=own.effect, n=push.n, chance=np.quantile(np.abs(effects), 0.95, axis=0),
        axes=("dose",), ticks=(tuple(f"{d:g}" for d in doses),),
        convention=f"(metric(+dose) - metric(-dose)) / 2, dose in mean residual norms; {n_controls} "
        f"{'given' if own_controls else 'random'} directions",
        verdict=NOT_ENCODED if not encoded else USED if used else UNUSED,
        doses=tuple(float(d) for d in doses), controls=effects, ablation=own.cut,
        ablation_controls=cuts, p_value=p, accuracy=float(held.value[0]),
        accuracy_interval=(float(held.interval[0, 0]), float(held.interval[0, 1])), nothing=nothing,
        residual_norm=norm, provenance={"site": str(found), "seeds": [int(s) for s in seeds]}, **patched,
    )  # fmt: skip


def _share(controls: np.ndarray, mine: float) -> float:
    """Permutation p-value: directions that do at least as much, this one counted."""
    return float((1 + (controls >= mine).sum()) / (1 + len(controls)))


def _patches(own: _Effects, drawn: list[_Effects], push: _Push) -> dict[str, Any]:
    if own.patched is None or push.whole is None:
        return {}
    others = np.array([one.patched for one in drawn])
    return {
        "patched": own.patched, "patched_whole": push.whole, "patched_controls": others,
        "patched_p": _share(np.abs(others), abs(own.patched)),
    }  # fmt: skip


def _random(site: str | Site, rows: np.ndarray, n: int, seed: int) -> list[ProbeDirection]:
    generator, origin = torch.Generator().manual_seed(seed), torch.as_tensor(rows.mean(0)).double()
    return [
        ProbeDirection(
            site=site,
            vector=torch.randn(rows.shape[1], generator=generator, dtype=torch.float64),
            origin=origin,
            name="random",
        )
        for _ in range(n)
    ]


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Effects:
    """Of one direction: by dose, under ablation, and when patched along."""

    effect: np.ndarray
    cut: float
    patched: float | None


class _Push:
    """Effects of one direction after another on the same batch."""

    def __init__(
        self, model: Any, tokens: Tokens, metric: Callable[[Tensor], Tensor], corrupted: Tokens | None, site: Site,
        amounts: list[float], position: Any, batch_size: int | None,
    ) -> None:  # fmt: skip
        self.model, self.tokens, self.metric = model, tokens, metric
        self.amounts, self.where, self.batch_size = amounts, {"position": position}, batch_size
        self.plain = self._run([])
        self.n = len(self.plain)
        self.other = self.whole = None
        if corrupted is not None:
            if corrupted.ids.shape != tokens.ids.shape or bool((corrupted.mask != tokens.mask).any()):
                raise InputError(
                    f"corrupted prompts {list(corrupted.ids.shape)} do not line up with the tokens "
                    f"{list(tokens.ids.shape)}, column by column"
                )
            self.other = model.capture(corrupted, site, batch_size=batch_size)
            self.towards = np.sign(self._run([], corrupted) - self.plain)
            self.whole = self._carried(patch(site, self.other, **self.where))

    def _run(self, edits: list[Edit], tokens: Tokens | None = None) -> np.ndarray:
        read = self.tokens if tokens is None else tokens
        logits = self.model.logits(read, edits=edits, batch_size=self.batch_size)
        return self.metric(logits).detach().double().cpu().numpy()

    def _carried(self, one: Edit) -> float:
        return float(((self._run([one]) - self.plain) * self.towards).mean())

    def __call__(self, along: Direction) -> _Effects:
        ends = [
            [float(self._run([steer(along, sign * amount, **self.where)]).mean()) for sign in (1, -1)]
            for amount in self.amounts
        ]
        patched = None if self.other is None else self._carried(patch_along(along, self.other, **self.where))
        return _Effects(
            effect=np.array([(up - down) / 2 for up, down in ends]),
            cut=float(np.abs(self._run([ablate(along, **self.where)]) - self.plain).mean()),
            patched=patched,
        )
