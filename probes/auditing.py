"""After an erasure: is it gone? And did the model use it? Refit probes, recovery maps, amnesic probing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.edits import edit
from interp.errors import InputError
from interp.intervals import wilson_interval
from interp.results import Result
from interp.sites import Site
from probes.controls import split_by_group
from probes.erasing import Eraser, Joint, joint_of, matrix

__all__ = ["Amnesia", "ErasureAudit", "amnesic", "audit_erasure", "forgetting"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ErasureAudit(Result):
    """Held-out accuracy of a fresh probe after erasure; ``chance`` is the majority's on the same rows."""

    before: float
    """Held-out accuracy before erasure."""
    correlation: float
    """Largest |correlation| of a column with the concept after erasure, over all rows given."""
    weight: float
    """Largest standardised weight of a probe refitted on all rows given."""
    loss: float
    """Its cross-entropy there, nats."""
    entropy: float
    """The label's entropy there, nats: the loss of a probe that knows nothing."""
    distortion: float
    """Mean squared change, as a share of the variance."""

    @property
    def erased(self) -> bool:
        """Whether the held-out interval holds the majority's accuracy or lies below it."""
        assert self.interval is not None
        return bool(self.interval[0] <= np.max(self.chance or 0.0))


def audit_erasure(
    eraser: Callable[[np.ndarray], np.ndarray],
    x: Any,
    z: Any,
    *,
    x_test: Any = None,
    z_test: Any = None,
    probe: Any = None,
) -> ErasureAudit:
    """Measure an erasure: refit a probe on erased rows, on the very rows of the eraser and on held-out ones.

    Parameters
    ----------
    eraser
        Anything that maps rows to rows.
    x, z
        The rows the eraser was fitted on, and their classes.
    x_test, z_test
        Held-out rows; without them every fourth of ``x`` is held out of the refitted probe.
    probe
        A classifier with ``coef_``; a weakly penalised :class:`probes.LogisticProbe` by default.
    """
    from sklearn.base import clone

    from probes.linear import LogisticProbe

    rows, labels = matrix(x), np.asarray(z)
    template = LogisticProbe(C=100.0, tol=1e-8, max_iter=2000) if probe is None else probe
    gone = np.asarray(eraser(rows))
    scale = np.where(gone.std(0) > 1e-9 * np.abs(rows).max(), gone.std(0), 1.0)
    refit = clone(template).fit(gone, labels)
    names, codes = np.unique(labels, return_inverse=True)
    share = np.bincount(codes) / len(codes)
    seen = refit.predict_proba(gone)[np.arange(len(codes)), codes]
    if x_test is None:
        held = np.arange(len(rows)) % 4 == 3
    else:
        rows, labels = np.concatenate([rows, matrix(x_test)]), np.concatenate([labels, np.asarray(z_test)])
        held = np.arange(len(rows)) >= len(gone)
    after_rows = np.asarray(eraser(rows))

    def accuracy(features: np.ndarray) -> int:
        return int(
            (
                clone(template).fit(features[~held], labels[~held]).predict(features[held]) == labels[held]
            ).sum()
        )

    right, n = accuracy(after_rows), int(held.sum())
    commonest = names[np.bincount(np.searchsorted(names, labels[~held])).argmax()]
    joint = joint_of(gone, np.asarray(z))
    variance = float(((rows - rows.mean(0)) ** 2).sum(1).mean())
    return ErasureAudit(
        name="accuracy of a refitted probe after erasure",
        value=right / n,
        interval=np.array(wilson_interval(right, n)),
        n=n,
        chance=float((labels[held] == commonest).mean()),
        convention="held-out accuracy, Wilson interval; chance: the train rows' commonest class",
        before=accuracy(rows) / n,
        correlation=_correlation(joint, matrix(x)),
        weight=float(np.abs(np.asarray(refit.coef_) * scale).max()),
        loss=float(-np.log(seen).mean()),
        entropy=float(-(share * np.log(share)).sum()),
        distortion=float(((after_rows - rows) ** 2).sum(1).mean()) / variance,
    )


def _correlation(joint: Joint, rows: np.ndarray) -> float:
    """Largest |cov| after erasure, in units of the columns' spread before it."""
    sx, sz = rows.std(0) * joint.n**0.5, np.sqrt(joint.zz.diagonal())
    return float((np.abs(joint.xz) / np.where(sx > 0, sx, 1)[:, None] / sz).max())


def forgetting(
    before: Any,
    after: Any,
    z: Any,
    *,
    head: Callable[[np.ndarray], np.ndarray] | None = None,
    groups: Any = None,
    seed: int = 0,
) -> Result:
    """Was it forgotten, or only moved out of the readout's sight?

    ``.ticks``: the old readout on the new features; the old readout behind the least-squares map from new to old
    features (recovery without training a classifier); a readout refitted on the new features; and the old one on the
    old features. All held out.

    Parameters
    ----------
    before, after
        Features [sample, d] of the model before and after unlearning, row for row.
    z
        Classes [sample].
    head
        Old features -> classes; :class:`probes.LDAProbe` fitted on the old features by default.
    groups
        [sample] whole groups are held out together; rows are independent by default.

    References
    ----------
    Deep forgetting by one-point contraction (OPC): the recovery map of its white-box audit.
    """
    from probes.discriminants import LDAProbe

    old, new, labels = matrix(before), matrix(after), np.asarray(z)
    if not len(old) == len(new) == len(labels):
        raise InputError(
            f"features before ({len(old)}), after ({len(new)}) and labels ({len(labels)}) differ in number"
        )
    held = split_by_group(
        np.arange(len(old)) if groups is None else np.asarray(groups), test_fraction=0.5, seed=seed
    )
    fit = ~held
    read = LDAProbe().fit(old[fit], labels[fit]).predict if head is None else head
    mean_new, mean_old = new[fit].mean(0), old[fit].mean(0)
    back = np.linalg.lstsq(new[fit] - mean_new, old[fit] - mean_old, rcond=1e-8)[0]
    guesses = {
        "old readout, new features": read(new[held]) if new.shape[1] == old.shape[1] else None,
        "old readout, recovered features": read((new[held] - mean_new) @ back + mean_old),
        "refitted readout": LDAProbe().fit(new[fit], labels[fit]).predict(new[held]),
        "old readout, old features": read(old[held]),
    }
    told = {name: g for name, g in guesses.items() if g is not None}
    right = [int((g == labels[held]).sum()) for g in told.values()]
    n = int(held.sum())
    names, counts = np.unique(labels[fit], return_counts=True)
    return Result(
        name="forgetting audit", value=np.array(right) / n, n=n,
        interval=np.array([wilson_interval(r, n) for r in right]),
        chance=float((labels[held] == names[counts.argmax()]).mean()),
        convention="held-out accuracy, Wilson interval; chance: majority class", axes=("readout",),
        ticks=(tuple(told),), provenance={"seed": seed},
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Amnesia(Result):
    """Change of a metric when a concept is erased at a site; ``chance`` is the mean change over random directions."""

    controls: np.ndarray
    """[control] the same change for random subspaces of equal rank."""
    examples: np.ndarray
    """[batch] the metric without edits."""
    erased: np.ndarray
    """[batch] the metric under erasure."""
    p_value: float
    """Share of controls whose change is at least as large (the eraser counted among them)."""


def amnesic(
    model: Any,
    tokens: Any,
    site: str | Site,
    eraser: Eraser,
    metric: Callable[[Tensor], Tensor],
    *,
    n_controls: int = 19,
    seed: int = 0,
    batch_size: int | None = None,
) -> Amnesia:
    """Does the model's behaviour change when the concept is gone, more than when as many random directions are?

    Parameters
    ----------
    eraser
        Of activations at ``site``.
    metric
        Logits -> one number an example, such as a task's.
    n_controls
        Random subspaces of equal rank, removed about the same mean.

    Notes
    -----
    Cost: 2 + n_controls forward passes a batch.

    References
    ----------
    Elazar et al. 2021, Amnesic probing, section 2.
    """
    if n_controls < 1:
        raise InputError("amnesic probing without a control says nothing; n_controls is at least 1")
    d, rank = len(eraser.mean), eraser.rank
    mean = torch.as_tensor(eraser.mean)
    generator = torch.Generator().manual_seed(seed)

    def run(change: Callable[[Tensor], Tensor] | None) -> np.ndarray:
        edits = () if change is None else [edit(site, change)]
        return (
            metric(model.logits(tokens, edits=edits, batch_size=batch_size)).detach().double().cpu().numpy()
        )

    plain, erased = run(None), run(eraser)
    controls = []
    for _ in range(n_controls):
        q = torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64))[0]
        controls.append((run(lambda x, q=q: _without(x, q, mean)) - plain).mean())
    change, drawn = float((erased - plain).mean()), np.array(controls)
    return Amnesia(
        name="amnesic effect", value=change, n=len(plain),
        stderr=float((erased - plain).std(ddof=1) / len(plain) ** 0.5) if len(plain) > 1 else None,
        chance=float(drawn.mean()), controls=drawn, examples=plain, erased=erased,
        p_value=float((1 + (np.abs(drawn) >= abs(change)).sum()) / (1 + n_controls)),
        convention=f"mean change of the metric; control: {n_controls} random subspaces of rank {rank}",
        provenance={"site": str(site), "rank": rank, "seed": seed, "left_over": eraser.left_over},
    )  # fmt: skip


def _without(x: Tensor, q: Tensor, mean: Tensor) -> Tensor:
    wide = x.double()
    return (wide - (wide - mean.to(x.device)) @ q.to(x.device) @ q.T.to(x.device)).to(x.dtype)
