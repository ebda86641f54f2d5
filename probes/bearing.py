"""What the probe station hands to the index over the layers: each label's accuracy by site, and the directions read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from interp.sites import Site
from interp.study.findings import STREAM, Bearings, Finding
from interp.study.sampling import Rows
from probes.sweep_result import SweepResult

__all__ = ["anchor_of", "bearings_of", "findings_of"]

MANY = 12
"""A label of more classes has no directions worth a name each."""


def anchor_of(label: str) -> str:
    """Where on the page a label's figure is."""
    return "probe-" + "".join(c if c.isascii() and c.isalnum() else "-" for c in label.lower())


def findings_of(sweeps: Mapping[str, SweepResult]) -> tuple[Finding, ...]:
    """The accuracy of every label at every site; the index shows each at its best and where it is not far below."""
    found = []
    for name, result in sweeps.items():
        value, majority = np.asarray(result.value, dtype=float), float(np.mean(result.chance or 0.0))
        best = int(np.nanargmax(value))
        for i, site in enumerate(result.ticks[0]):
            ends = (None, None) if result.interval is None else tuple(map(float, result.interval[i]))
            found.append(
                Finding(
                    kind="probe",
                    name=name,
                    site=site,
                    measure="accuracy",
                    value=float(value[i]),
                    low=ends[0],
                    high=ends[1],
                    n=result.n_groups,
                    href=f"#{anchor_of(name)}",
                    shown=i == best,
                    chance=max(majority, float(result.shuffled[i]), 1 / len(result.classes)),
                )  # fmt: skip
            )
    return tuple(found)


def bearings_of(used: Mapping[str, tuple[Rows, Tensor]], sites: Sequence[Site]) -> tuple[Bearings, ...]:
    """At every site the difference of class means of each label: of two classes, or of each class to all rows."""
    found = []
    for site in sites:
        names, vectors = [], []
        for label, (rows, classes) in used.items():
            x, values = rows.acts[site].double(), classes.unique()
            means = torch.stack([x[classes == value].mean(0) for value in values])
            if len(values) == 2:
                names.append(label)
                vectors.append(means[1] - means[0])
            elif len(values) <= MANY:
                names += [f"{label} = {int(value)}" for value in values]
                vectors += list(means - x.mean(0))
        if names:
            space = STREAM if site.kind in ("resid_pre", "resid_mid", "resid_post") else str(site)
            found.append(
                Bearings(
                    kind="probe",
                    space=space,
                    site=str(site),
                    names=tuple(names),
                    vectors=torch.stack(vectors),
                    hrefs=tuple(f"#{anchor_of(name.partition(' = ')[0])}" for name in names),
                )  # fmt: skip
            )
    return tuple(found)
