"""The sweep for numbers: at which sites can a latitude, a count, a depth be read off by ridge regression?

Like :func:`probes.sweep`: whole texts are held out, several splits, shuffled numbers and the untrained network beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from interp.errors import InputError, nearest
from interp.results import Result
from probes.controls import group_interval, split_by_group
from probes.discriminants import RidgeRegressor
from probes.sources import Samples, read

if TYPE_CHECKING:
    from interp.tokens import Tokens

__all__ = ["NumberSweep", "sweep_numbers"]

_BASELINES = ("random_init", "shuffled_tokens")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NumberSweep(Result):
    """Held-out R^2 by site and target; ``chance`` is 0, the train mean's. Below 0: worse than the mean."""

    shuffled: np.ndarray
    """[site, target] R^2 of fits to shuffled numbers, judged by the true ones."""
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> [site, target] R^2 of that baseline."""
    n_groups: int


def sweep_numbers(
    source: Any,
    numbers: Any,
    sites: Any,
    *,
    tokens: Tokens | None = None,
    groups: Any = None,
    seeds: Sequence[int] = (0, 1, 2),
    test_fraction: float = 0.3,
    probe: Any = None,
    extras: Sequence[str] = (),
) -> NumberSweep:
    """R^2 of ridge regression at every site, for one or several numbers at once.

    Parameters
    ----------
    source, sites, tokens, groups
        As for :func:`probes.sweep`.
    numbers
        A number for every sample ([batch, pos] for a model, [sample] otherwise), NaN where there is none; or a mapping
        name -> numbers, of which samples that have them all are used.
    probe
        A regressor to clone; :class:`probes.RidgeRegressor` (strength by generalised cross-validation) by default.
    extras
        ``"random_init"``: the same architecture untrained. ``"shuffled_tokens"``: each token with its number, in random
        order.

    Raises
    ------
    InputError
        Numbers and samples differ in number, infinity (the sample is named), a number that is the same everywhere, or
        groups that cannot be split.

    Notes
    -----
    One forward pass a text for a model, two fits a site and seed. The interval resamples whole tested groups.
    """
    for name in extras:
        if name not in _BASELINES:
            raise InputError(f"extras={name!r}{nearest(name, _BASELINES)}; they are {', '.join(_BASELINES)}")
    given = numbers if isinstance(numbers, Mapping) else {"number": numbers}
    table, index = _table(given)
    place: dict[str, Any] = {"tokens": tokens, "groups": groups, "types": None}

    def swept(**baseline: Any) -> tuple[list[str], Samples, _Scores]:
        found, data = read(source, index, sites, **place, **baseline)
        return found, data, _scores(found, data, table, seeds, test_fraction, probe)

    found, data, own = swept()
    return NumberSweep(
        name="probe R^2", value=own.r2, interval=own.interval, n=int((data.labels >= 0).sum()), chance=0.0,
        axes=("site", "target"), ticks=(tuple(found), tuple(given)), shuffled=own.shuffled,
        baselines={kind: swept(baseline=kind, seed=int(seeds[0]))[2].r2 for kind in extras},
        convention=f"held-out R^2 about the train mean, {len(seeds)} splits by group; bootstrap over tested groups",
        n_groups=own.n_groups, provenance={"seeds": [int(s) for s in seeds]},
    )  # fmt: skip


def _table(numbers: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers [sample, target], and a grid of the shape they came in: the row of each sample's, -1 for none."""
    columns = [
        np.asarray(one.detach().cpu() if isinstance(one, Tensor) else one, dtype=float)
        for one in numbers.values()
    ]
    shapes = {name: list(one.shape) for name, one in zip(numbers, columns, strict=True)}
    if len({one.shape for one in columns}) != 1:
        raise InputError(f"the numbers differ in shape: {shapes}")
    table = np.stack([one.ravel() for one in columns], 1)
    whole = np.asarray(~np.isnan(table).any(1))
    for name, column in zip(numbers, table.T, strict=True):
        if np.isinf(column).any():
            raise InputError(f"{name} is infinite for sample {int(np.isinf(column).argmax())}")
        if len(np.unique(column[whole])) < 2:
            raise InputError(f"{name} is the same for all {int(whole.sum())} samples that have all numbers")
    return table, np.where(whole, np.arange(len(whole)), -1).reshape(columns[0].shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scores:
    r2: np.ndarray
    interval: np.ndarray
    shuffled: np.ndarray
    n_groups: int


def _scores(
    names: list[str], data: Samples, table: np.ndarray, seeds: Sequence[int], test_fraction: float, probe: Any
) -> _Scores:
    from sklearn.base import clone

    keep = np.flatnonzero(data.labels >= 0)
    truth, groups = table[data.labels[keep]], data.groups[keep]
    template = RidgeRegressor() if probe is None else probe
    tested, which = np.unique(groups, return_inverse=True)
    shape = (len(names), table.shape[1], len(tested))
    rest, noise, total = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for seed in seeds:
        test = split_by_group(groups, test_fraction=test_fraction, seed=seed)
        learn, mixed = truth[~test], np.random.default_rng([seed, 1]).permutation(truth[~test])
        for i, name in enumerate(names):
            rows = data.rows(name)[keep]
            for t in range(table.shape[1]):
                for into, target in ((rest, learn), (noise, mixed)):
                    guess = clone(template).fit(rows[~test], target[:, t]).predict(rows[test])
                    np.add.at(into[i, t], which[test], (guess - truth[test, t]) ** 2)
                np.add.at(total[i, t], which[test], (truth[test, t] - learn[:, t].mean()) ** 2)
    held = total.sum((0, 1)) > 0
    ends = np.stack([
        np.stack([1 - group_interval(rest[i, t][None, held], total[i, t][held])[1][0][::-1] for t in range(shape[1])])
        for i in range(shape[0])
    ])  # fmt: skip
    return _Scores(
        r2=1 - rest.sum(2) / total.sum(2), interval=ends, shuffled=1 - noise.sum(2) / total.sum(2),
        n_groups=len(tested),
    )  # fmt: skip
