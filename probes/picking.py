"""k-sparse probing: how few neurons hold a label? They are picked on the train texts only, then a probe is refitted.

Beside each accuracy stand as many neurons drawn at random, and the whole procedure, picking included, on shuffled
labels: among many neurons some separate any label on the rows they were picked on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from interp.errors import InputError, nearest
from interp.results import Result
from probes.closed import Scatter
from probes.controls import group_interval, majority_share, split_by_group
from probes.sources import Samples, read, usable
from probes.sweeping import template_of
from probes.tallying import Fits

__all__ = ["RANKINGS", "SparseProbe", "pick", "sparse_probe"]

RANKINGS = ("mean_difference", "mutual_information", "l1", "forward", "exhaustive")
_MOST_SUBSETS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SparseProbe(Result):
    """Held-out accuracy by number of neurons; ``chance`` is the majority class of the train groups."""

    neurons: tuple[tuple[tuple[int, ...], ...], ...]
    """[k][seed] the neurons picked, best first."""
    random: np.ndarray
    """[k] accuracy with as many neurons drawn at random."""
    shuffled: np.ndarray
    """[k] accuracy where neurons were picked and the probe fitted on shuffled labels."""
    everything: float
    """Accuracy with all neurons."""

    def agreement(self) -> np.ndarray:
        """[k] neurons that two splits both picked, as a share of k, mean over pairs of splits."""
        return np.array(
            [
                np.mean([len({*a} & {*b}) / len(a) for a, b in combinations(seeds, 2)] or [1.0])
                for seeds in self.neurons
            ]
        )


def sparse_probe(
    x: Any,
    y: Any,
    *,
    ks: Sequence[int] = (1, 2, 4, 8, 16),
    how: str = "mean_difference",
    groups: Any = "row",
    probe: Any = "logistic",
    seeds: Sequence[int] = (0, 1, 2),
    test_fraction: float = 0.3,
) -> SparseProbe:
    """Accuracy of a probe on the best ``k`` neurons, for every k.

    Parameters
    ----------
    x, y
        Activations [sample, d] and classes [sample] (negative: no label).
    how
        What neurons are picked by, on train rows: ``"mean_difference"`` (largest difference of a class mean from the
        rest, in standard deviations), ``"mutual_information"`` (with the label, 16 bins of equal share),
        ``"l1"`` (first to enter the lasso path), ``"forward"`` (each next one lowers the squared error most given those
        before), ``"exhaustive"`` (the k with the least squared error of all, where there are at most 200,000 sets).
    groups
        [sample] texts, held out whole; ``"row"`` where rows are independent.
    probe
        The probe that is refitted, as for :func:`probes.sweep`.

    Raises
    ------
    InputError
        No such ranking, k above the number of neurons, too many sets, or labels that :func:`probes.sweep` refuses.

    References
    ----------
    Gurnee et al. 2023, Finding neurons in a haystack, section 3.
    """
    _, every = read({"x": x}, y, "x", tokens=None, groups=groups, types=None)
    data, template = usable(every, None, seeds), template_of(probe)
    rows = data.rows("x")
    _check(ks, how, rows.shape[1])
    splits = [split_by_group(data.groups, test_fraction=test_fraction, seed=seed) for seed in seeds]
    names, group = np.unique(data.groups, return_inverse=True)
    right = {kind: np.zeros((len(ks), len(names))) for kind in ("picked", "random", "shuffled")}
    counts, whole, picked = np.zeros(len(names)), 0, []
    for seed, test in zip(seeds, splits, strict=True):
        rng = np.random.default_rng([seed, 3])
        train, noise = data.labels[~test], rng.permutation(data.labels[~test])
        chosen = pick(rows[~test], train, ks=ks, how=how)
        drawn = [rng.choice(rows.shape[1], size=k, replace=False) for k in ks]
        sets = {"picked": (chosen, train), "random": (drawn, train)}
        sets["shuffled"] = (pick(rows[~test], noise, ks=ks, how=how), noise)
        for kind, (columns, learn) in sets.items():
            for i, which in enumerate(columns):
                np.add.at(right[kind][i], group[test], _right(template, rows[:, which], learn, data, test))
        np.add.at(counts, group[test], 1)
        whole += int(_right(template, rows, train, data, test).sum())
        picked.append([tuple(int(j) for j in one) for one in chosen])
    tested = counts > 0
    share = {kind: table.sum(1) / counts.sum() for kind, table in right.items()}
    stderr, ends = group_interval(right["picked"][:, tested], counts[tested])
    return SparseProbe(
        name="k-sparse probe", value=share["picked"], stderr=stderr, interval=ends, n=len(data.labels),
        chance=majority_share(data.labels, splits), axes=("k",), ticks=(tuple(str(k) for k in ks),),
        convention=f"held-out accuracy, neurons by {how} on train groups of {len(seeds)} splits; bootstrap over groups",
        neurons=tuple(zip(*picked, strict=True)), random=share["random"], shuffled=share["shuffled"],
        everything=whole / float(counts.sum()), provenance={"how": how, "seeds": [int(s) for s in seeds]},
    )  # fmt: skip


def _check(ks: Sequence[int], how: str, d: int) -> None:
    if how not in RANKINGS:
        raise InputError(f"how={how!r}{nearest(how, RANKINGS)}; it is one of {', '.join(RANKINGS)}")
    if not len(ks) or min(ks) < 1 or max(ks) > d:
        raise InputError(f"ks = {list(ks)}; each is a number of neurons from 1 to {d}")
    if how == "exhaustive" and comb(d, max(ks)) > _MOST_SUBSETS:
        raise InputError(
            f"{comb(d, max(ks))} sets of {max(ks)} of {d} neurons are too many to try; "
            'take a smaller k, or how="forward"'
        )


def _right(template: Any, rows: np.ndarray, learn: np.ndarray, data: Samples, test: np.ndarray) -> np.ndarray:
    probe, _ = Fits(template, rows, ~test).fit(learn)
    return (probe.predict(rows[test]) if probe else learn[0]) == data.labels[test]


def pick(x: np.ndarray, y: np.ndarray, *, ks: Sequence[int], how: str) -> list[np.ndarray]:
    """For every k the neurons picked on rows ``x`` [sample, d] with classes ``y`` [sample], best first."""
    classes, codes = np.unique(y, return_inverse=True)
    columns = (codes[:, None] == np.arange(len(classes))).astype(np.float64)
    scatter = Scatter.of_rows(x.astype(np.float64), columns)
    scatter = scatter.scaled(np.where(scatter.deviation > 0, scatter.deviation, 1.0))
    if how == "exhaustive":
        return [_exhaustive(scatter, k) for k in ks]
    by: dict[str, Callable[[], np.ndarray]] = {
        "mean_difference": lambda: np.argsort(-_mean_difference(scatter), kind="stable"),
        "mutual_information": lambda: np.argsort(-_mutual_information(x, columns), kind="stable"),
        "l1": lambda: _lasso_order(scatter, max(ks)),
        "forward": lambda: _forward(scatter, max(ks)),
    }
    order = by[how]()
    return [order[:k] for k in ks]


def _mean_difference(scatter: Scatter) -> np.ndarray:
    """[d] the largest |class mean - mean of the rest| over classes, in standard deviations within classes."""
    rest = -scatter.counts[:, None] * scatter.means / (scatter.n - scatter.counts)[:, None]  # total mean is 0
    within = scatter.total.diagonal() - (scatter.counts[:, None] * scatter.means**2).sum(0)
    spread = np.sqrt(np.maximum(within, 0) / scatter.n)
    return np.abs(scatter.means - rest).max(0) / np.maximum(spread, 1e-9)


def _mutual_information(x: np.ndarray, columns: np.ndarray, n_bins: int = 16) -> np.ndarray:
    """[d] plug-in mutual information of each neuron's rank bin with the class, nats."""
    n, found = len(x), np.zeros(x.shape[1])
    for j in range(x.shape[1]):
        cuts = np.unique(np.quantile(x[:, j], np.arange(1, n_bins) / n_bins))
        place = np.searchsorted(cuts, x[:, j], side="right")
        table = np.stack([np.bincount(place, c, len(cuts) + 1) for c in columns.T]) / n
        outer = table.sum(0) * table.sum(1)[:, None]
        held = table > 0
        found[j] = (table[held] * np.log(table[held] / outer[held])).sum()
    return found


def _lasso_order(scatter: Scatter, k: int) -> np.ndarray:
    """Neurons in the order in which they enter the lasso paths of the classes' coded labels, class by class in turn."""
    from sklearn.linear_model import lars_path_gram

    entered: dict[int, None] = {}
    power, cross = scatter.code_power, scatter.coded
    orders = []
    for c in range(cross.shape[1] if cross.shape[1] > 2 else 1):
        path = lars_path_gram(
            cross[:, c] / power[c] ** 0.5, scatter.total, n_samples=scatter.n, max_iter=2 * k, method="lasso",
            return_path=True,
        )[2]  # fmt: skip
        orders.append(list(dict.fromkeys(int(i) for step in path.T for i in np.flatnonzero(step))))
    for step in range(max(map(len, orders), default=0)):
        entered |= dict.fromkeys(one[step] for one in orders if step < len(one))
    rest = np.argsort(-_mean_difference(scatter), kind="stable")  # a path may end before it has k neurons
    return np.array(list(dict.fromkeys([*entered, *rest.tolist()])))


def _forward(scatter: Scatter, k: int) -> np.ndarray:
    """Forward selection by squared error of the coded labels: Cholesky steps on the scatter, pivoted by the gain."""
    total, cross = scatter.total.copy(), scatter.coded / np.sqrt(scatter.code_power)
    start, chosen = total.diagonal().copy(), []
    for _ in range(k):
        left = total.diagonal()
        free = left > 1e-9 * start
        gain = np.where(free, (cross**2).sum(1) / np.where(free, left, 1.0), -1.0)
        gain[chosen] = -2.0
        best = int(gain.argmax())
        chosen.append(best)
        if free[best]:
            column = total[:, best] / left[best]
            cross = cross - np.outer(column, cross[best])
            total = total - np.outer(column, total[best])
    return np.array(chosen)


def _exhaustive(scatter: Scatter, k: int) -> np.ndarray:
    cross, d = scatter.coded / np.sqrt(scatter.code_power), len(scatter.total)
    ridge = 1e-9 * scatter.n * np.eye(k)
    best, found = -1.0, np.arange(k)
    sets = np.array(list(combinations(range(d), k)))
    for part in np.array_split(sets, max(1, len(sets) // 10_000)):
        inner = scatter.total[part[:, :, None], part[:, None, :]] + ridge
        c = cross[part]
        gain = (c * np.linalg.solve(inner, c)).sum((1, 2))
        if gain.max() > best:
            best, found = float(gain.max()), part[int(gain.argmax())]
    return found
