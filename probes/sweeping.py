"""The sweep: at which sites can a label be read, and would a probe have read anything there?

One call fits a probe a site over several splits by group, and beside each the fits that give the number its
meaning: a control task (random label per word type), shuffled labels, and on demand the network without its training,
the text without its order, codelength, transfer between sites, accuracy with fewer rows. Read next: ``tallying.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError, nearest
from interp.results import Result
from interp.sites import Site
from probes.controls import group_interval, majority_share, split_by_group, unseen_classes
from probes.sources import Column, Samples, read, usable
from probes.sweep_result import SweepResult, Sweeps
from probes.tallying import Fits, Tally

if TYPE_CHECKING:
    from interp.tokens import Tokens

__all__ = ["EXTRAS", "SweepResult", "selectivity", "sweep"]

EXTRAS = ("random_init", "shuffled_tokens", "mdl", "transfer", "curve")
_CURVE = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def sweep(
    source: Any,
    labels: Any,
    sites: Sequence[str | Site] | str | Site,
    *,
    tokens: Tokens | None = None,
    groups: Column | str | None = None,
    types: Column | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    test_fraction: float = 0.3,
    max_samples: int | None = 4000,
    probe: Any = None,
    extras: Sequence[str] = (),
    progress: bool = False,
) -> Any:
    """Probe accuracy at every site, with interval, control task, shuffled labels and majority baseline.

    Parameters
    ----------
    source
        A model (then ``tokens`` says on what), an :class:`interp.ActivationStore`, or a mapping site -> rows
        [sample, d].
    labels
        Integer class of every sample: [batch, pos] (or [batch]) for a model, or a list a text with one for each of its
        tokens; [sample] otherwise. Negative: no label. A mapping name -> classes gives one sweep a name
        (:func:`probes.by_position`: one a position).
    sites
        Names, globs or Sites; a head is a site like others (``blocks.0.attn.hook_z[2]``, all: ``[*]``).
    tokens
        What the model reads.
    groups
        Which text each sample comes from; whole groups go to train or test, never single tokens. Known for models
        and stores; for a mapping it must be given, or ``"row"`` where rows are independent.
    types
        Word type of each sample, for the control task; the token ids for models and stores.
    seeds
        One split, one control task and one shuffling each.
    max_samples
        Labelled samples used at most, drawn at random with the first seed.
    probe
        ``"logistic"``, ``"lda"``, ``"ridge"``, ``"mass_mean"``, or any scikit-learn classifier to clone;
        :class:`probes.LogisticProbe` by default. A closed form shares one product of the rows and one
        eigendecomposition among a split's task, control and shuffled labels.
    extras
        Any of ``"random_init"`` (the same architecture untrained) and ``"shuffled_tokens"`` (each token with its label,
        in random order), which need a model and its tokens; ``"mdl"`` (online codelength); ``"transfer"`` (a probe
        of one site used at another); ``"curve"`` (fewer training rows).

    Returns
    -------
    SweepResult or Sweeps
        Sweeps (a dict by label) if labels are a mapping.

    Raises
    ------
    InputError
        Labels and samples differ in number (the text is named), one class only, no more samples than classes, or groups
        that cannot be split. A class that a split's train texts lack is no error: ``.unseen`` names it, and the log.

    Notes
    -----
    One forward pass a text for a model, none otherwise; 3 fits a site and seed, and those of the extras. The interval
    resamples whole groups of the tested samples; it does not include the spread from training on other texts (see
    ``.accuracy`` over seeds).
    """
    for name in extras:
        if name not in EXTRAS:
            raise InputError(f"extras={name!r}{nearest(name, EXTRAS)}; they are {', '.join(EXTRAS)}")
    options: dict[str, Any] = {
        "seeds": seeds, "test_fraction": test_fraction, "max_samples": max_samples, "extras": extras,
        "template": template_of(probe), "progress": progress,
    }  # fmt: skip
    if isinstance(labels, Mapping):
        return Sweeps({
            name: _sweep(source, one, sites, {"tokens": tokens, "groups": groups, "types": types}, **options)
            for name, one in labels.items()
        })  # fmt: skip
    return _sweep(source, labels, sites, {"tokens": tokens, "groups": groups, "types": types}, **options)


def _sweep(
    source: Any, labels: Any, sites: Any, place: dict[str, Any], *, seeds: Sequence[int], test_fraction: float,
    max_samples: int | None, extras: Sequence[str], template: Any, progress: bool,
) -> SweepResult:  # fmt: skip
    names, every = read(source, labels, sites, **place)
    data = usable(every, max_samples, seeds)
    splits = [split_by_group(data.groups, test_fraction=test_fraction, seed=seed) for seed in seeds]
    majority = majority_share(data.labels, splits)
    unseen = unseen_classes(data, seeds, splits)
    tally = _filled(template, names, data, seeds, splits, progress)
    found: dict[str, Any] = {}
    baselines = {}
    for kind in (e for e in extras if e in ("random_init", "shuffled_tokens")):
        other = usable(
            read(source, labels, sites, **place, baseline=kind, seed=seeds[0])[1], max_samples, seeds
        )
        cuts = [split_by_group(other.groups, test_fraction=test_fraction, seed=seed) for seed in seeds]
        baselines[kind] = _filled(template, names, other, seeds, cuts, progress).scores["accuracy"].mean(1)
    if "mdl" in extras:
        found |= _codelengths(template, names, data, seeds)
    if "transfer" in extras:
        found["transfer"] = _transfer(template, names, data, splits)
    if "curve" in extras:
        found |= _curve(template, names, data, seeds, splits)
    return tally.result(names, seeds, splits, majority, baselines=baselines, unseen=unseen, **found)


def _filled(
    template: Any,
    names: list[str],
    data: Samples,
    seeds: Sequence[int],
    splits: list[np.ndarray],
    shown: bool,
) -> Tally:
    tally = Tally(data, len(names), len(seeds))
    for i, name in enumerate(_progress(names, shown)):
        rows = data.rows(name)
        if rows.shape[0] != len(data.labels):
            raise InputError(f"{name} holds {rows.shape[0]} samples, the labels {len(data.labels)}")
        for j, (seed, test) in enumerate(zip(seeds, splits, strict=True)):
            tally.fit(template, rows, i, j, seed=seed, test=test)
    return tally


def _codelengths(template: Any, names: list[str], data: Samples, seeds: Sequence[int]) -> dict[str, Any]:
    from probes.codelength import mdl

    if not hasattr(template, "predict_proba"):
        raise InputError(f"codelength needs probabilities, which {type(template).__name__} does not give")
    lengths = [
        mdl(data.rows(name), data.labels, probe=template, groups=data.groups, seeds=seeds) for name in names
    ]
    return {
        "bits": np.stack([one.orders for one in lengths]),
        "uniform_bits": float(lengths[0].chance or 0.0),
    }


def _transfer(template: Any, names: list[str], data: Samples, splits: list[np.ndarray]) -> np.ndarray:
    table = np.zeros((len(names), len(names)))
    rows = {name: data.rows(name) for name in names}
    widths = {name: x.shape[1] for name, x in rows.items()}
    if len(set(widths.values())) > 1:
        raise InputError(
            f"a probe can be used at another site of the same width only; the widths are {widths}"
        )
    for test in splits:
        for i, name in enumerate(names):
            probe, _ = Fits(template, rows[name], ~test).fit(data.labels[~test])
            for j, other in enumerate(names):
                table[i, j] += float((probe.predict(rows[other][test]) == data.labels[test]).mean()) / len(
                    splits
                )
    return table


def _curve(
    template: Any, names: list[str], data: Samples, seeds: Sequence[int], splits: list[np.ndarray]
) -> dict[str, Any]:
    """Accuracy with the first groups of a random order only; nested, so that more rows are the same rows and more."""
    table = np.zeros((len(names), len(_CURVE)))
    sizes = np.zeros(len(_CURVE))
    for seed, test in zip(seeds, splits, strict=True):
        present = np.unique(data.groups[~test])
        order = np.random.default_rng([seed, 2]).permutation(present)
        for k, share in enumerate(_CURVE):
            kept = ~test & np.isin(data.groups, order[: max(1, round(share * len(order)))])
            sizes[k] += kept.sum() / len(seeds)
            for i, name in enumerate(names):
                rows, truth = data.rows(name), data.labels
                probe, _ = Fits(template, rows, kept).fit(truth[kept])
                guess = truth[kept][0] if probe is None else probe.predict(rows[test])
                table[i, k] += float((guess == truth[test]).mean()) / len(seeds)
    return {"curve": table, "sizes": tuple(round(s) for s in sizes)}


def selectivity(
    x: Any, y: Any, types: Any, *, groups: Any = "row", probe: Any = None, seeds: Sequence[int] = (0, 1, 2)
) -> Result:
    """Accuracy minus accuracy on the control task (one random label a word type), with the interval of the difference.

    Parameters
    ----------
    x, y, types
        Rows [sample, d], classes [sample] and word types [sample].
    groups
        [sample] texts, held out whole; ``"row"`` where rows are independent.

    References
    ----------
    Hewitt & Liang 2019, Designing and interpreting probes with control tasks.
    """
    _, every = read({"x": x}, y, "x", tokens=None, groups=groups, types=types)
    data = usable(every, None, seeds)
    if data.types is None:
        raise InputError("the word types do not differ; the control task would be a constant")
    splits = [split_by_group(data.groups, test_fraction=0.3, seed=seed) for seed in seeds]
    tally = _filled(template_of(probe), ["x"], data, seeds, splits, False)
    tested = tally.counts > 0
    gap = (tally.correct["task"] - tally.correct["control"])[:, tested]
    stderr, ends = group_interval(gap, tally.counts[tested])
    return Result(
        name="selectivity", value=float(gap.sum() / tally.counts.sum()), n=len(data.labels), chance=0.0,
        stderr=float(stderr[0]), interval=ends[0],
        convention=f"accuracy - control accuracy, {len(seeds)} splits by group; bootstrap over tested groups",
    )  # fmt: skip


def template_of(probe: Any) -> Any:
    from probes.discriminants import LDAProbe, MassMeanProbe, RidgeProbe
    from probes.linear import LogisticProbe

    known = {"logistic": LogisticProbe, "lda": LDAProbe, "ridge": RidgeProbe, "mass_mean": MassMeanProbe}
    if probe is None:
        return LogisticProbe()
    if not isinstance(probe, str):
        return probe
    if probe not in known:
        raise InputError(
            f"probe={probe!r}{nearest(probe, known)}; it is one of {', '.join(known)} or a classifier"
        )
    return known[probe]()


def _progress(names: Sequence[str], shown: bool) -> Any:
    from interp.runs.progress import progress

    return progress(names, total=len(names), desc="probes", enabled=None if shown else False)
