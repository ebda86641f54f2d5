"""``reverse_engineer``: everything that can be read off a group network, in one call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from circuits.groups import clocks, cosets, fourier, losses, spectra, triples
from circuits.groups.reading import GroupReading
from circuits.groups.similarity import RULE, LogitIrreps, logit_irreps
from circuits.groups.subject import Subject, subject_of
from circuits.groups.tally import HiddenTally, LogitTally, tally
from interp.errors import InputError
from interp.runs.provenance import versions
from interp.toys import Group, GroupRun
from interp.toys.train_group import split

__all__ = ["reverse_engineer"]

SUBGROUPS_UP_TO = 720
"""The largest order whose subgroups are all listed for the coset reading (S6: a few seconds)."""
LOSS_PAIRS = 1 << 16
"""Losses of a changed network are measured on at most so many pairs: on all up to order 256."""


def reverse_engineer(
    network: Any,
    group: Group | str | None = None,
    *,
    word: str | None = None,
    train: Int64[Tensor, " train"] | None = None,
    least: float = 0.05,
    with_cosets: bool = True,
    seed: int = 0,
) -> GroupReading:
    """Take a group network apart.

    Parameters
    ----------
    network
        A :class:`~interp.toys.GroupRun`, a perceptron or transformer of ``interp.toys``, a loaded model, any module
        that answers rows ``a b =``, or any function (a, b) -> logits [sample, order].
    group
        The group, or its name; a run knows its own.
    word
        What the network should compute; a run knows, otherwise the product.
    train
        Numbers ``a * order + b`` of the training pairs; a run knows. Without them the excluded loss is over all pairs.
    least
        By how much an irrep's similarity must pass that of a lookup table to be key.
    with_cosets
        List all subgroups and read cosets too (groups up to order 720).
    seed
        Of the controls: shuffles and the ablated control irreps.

    Returns
    -------
    GroupReading

    Raises
    ------
    InputError
        The network is of the wrong size, gives something else than logits, or no group is given.

    Notes
    -----
    Cost: one forward pass of all order^2 pairs and six of at most 65,536 (losses of the changed network; exact up to
    order 256). Above order 200 no array of order^3 is made: S5 takes under a second, S6 at the published sizes under a
    minute and 2 GB; triples of irreps are left out there.

    References
    ----------
    Chughtai, Chan and Nanda 2023; Nanda et al. 2023; Stander et al. 2024; Zhong et al. 2023; Morwani et al. 2023;
    Shutman, Louidor and Tessler 2025 (in the modules that compute each measure).
    """
    given = Group(group) if isinstance(group, str) else group
    if isinstance(network, GroupRun):
        given = given or network.group
        word = word or network.card["word"]
        if train is None:
            train = split(network.group, network.card["recipe"]["train_fraction"], seed=network.card["seed"])[
                0
            ]
    if given is None:
        raise InputError("give the group that the network computes in, such as 'S4'")
    return _read(
        network, given, word=word or "ab", train=train, least=least, with_cosets=with_cosets, seed=seed
    )


def _read(
    network: Any,
    group: Group,
    *,
    word: str,
    train: Tensor | None,
    least: float,
    with_cosets: bool,
    seed: int,
) -> GroupReading:
    started = time.process_time()
    subject = subject_of(network, group, word=word)
    if train is not None and (len(train) == 0 or train.min() < 0 or train.max() >= group.order**2):
        raise InputError(f"training pairs are numbers a * order + b from 0 to {group.order**2 - 1}")
    logits, hidden = tally(subject)
    found = logit_irreps(group, logits, least=least)
    every = torch.arange(group.order**2)
    known = every if train is None else train
    drawn = _Pairs(*(losses.sampled(rows, at_most=LOSS_PAIRS, seed=seed) for rows in (known, every)))
    parts = _parts(subject, logits, hidden, found, drawn, seed=seed, with_cosets=with_cosets)
    rest = _functional(subject, logits, found, train, drawn)
    absent = {**parts.pop("absent"), **rest.pop("absent")}
    losses_found = {**rest.pop("losses"), **parts.pop("losses")}
    return GroupReading(
        name=subject.name,
        value=found.similarity.numpy(),
        chance=found.null.numpy(),
        n=group.order**2,
        axes=("irrep",),
        ticks=(tuple(irrep.label for irrep in group.irreps()),),
        convention="cosine of the row-centred logits with chi(w(a,b) c^-1), not centred; all pairs",
        reason="rows are centred, so the trivial irrep has no similarity",
        provenance={
            "seed": seed,
            "versions": versions(),
            "n_excluded": len(drawn.train),
            "n_ablation": len(drawn.every),
        },
        group=group.name,
        word=subject.word.text,
        irreps=tuple(irrep.label for irrep in group.irreps()),
        dims=np.array([irrep.dim for irrep in group.irreps()]),
        kinds=tuple(irrep.kind for irrep in group.irreps()),
        key=tuple(
            irrep.label for irrep, is_key in zip(group.irreps(), found.key.tolist(), strict=True) if is_key
        ),
        rule=RULE.format(least=least),
        null_sd=found.null_sd.numpy(),
        logits={
            "explained": found.explained,
            "key": float(found.similarity[found.key].square().sum()),
            "other_symmetric": found.other_symmetric,
            "residual": found.residual,
        },
        losses=losses_found,
        absent=absent,
        seconds=time.process_time() - started,
        **rest,
        **parts,
    )


class _Pairs(NamedTuple):
    """The numbers of the pairs on which a changed network is measured."""

    train: Tensor
    every: Tensor


def _functional(
    subject: Subject, tally: LogitTally, found: LogitIrreps, train: Tensor | None, drawn: _Pairs
) -> dict[str, Any]:
    """What any callable has: losses, accuracy, margins, triples, distance irrelevance."""
    absent: dict[str, str] = {}
    loss, right = tally.loss.flatten(), tally.right.flatten().double()
    parts = {"all": torch.arange(len(loss))}
    if train is not None:
        held_out = torch.ones(len(loss), dtype=torch.bool)
        held_out[train] = False
        parts |= {"train": train, "test": held_out.nonzero()[:, 0]}
    else:
        absent["train and test loss"] = (
            "the training pairs are not known; the excluded loss is over all pairs"
        )
    measured = {
        "losses": {name: float(loss[rows].mean()) for name, rows in parts.items() if len(rows)}
        | losses.logit_losses(subject, tally, found.key, train=drawn.train),
        "accuracy": {name: float(right[rows].mean()) for name, rows in parts.items() if len(rows)},
        "margins": clocks.margins(tally) | clocks.normalised_margin(subject, tally),
        "triples": {},
    }
    if subject.group.order <= triples.LARGEST:
        table = triples.network_triples(subject)
        measured["triples"] = {
            "shares": table.shares.numpy(),
            "predicted": table.predicted.numpy(),
        }
        measured["inside"] = table.inside
    else:
        absent["triples"] = f"computed up to order {triples.LARGEST}"
    return measured | {"absent": absent}


def _parts(
    subject: Subject,
    tally: LogitTally,
    hidden: HiddenTally | None,
    found: LogitIrreps,
    drawn: _Pairs,
    *,
    seed: int,
    with_cosets: bool,
) -> dict[str, Any]:
    """What needs the network's weights (and the distance irrelevance, which stands beside the gradients)."""
    group, parts = subject.group, subject.parts
    absent: dict[str, str] = {}
    clock: dict[str, float] = {}
    if fourier.is_cyclic(subject):
        clock["distance_irrelevance"] = clocks.distance_irrelevance(tally)
    else:
        absent["distance irrelevance, Fourier view"] = (
            f"{group.name} is not a cyclic group in its usual numbering"
        )
    if parts is None or hidden is None:
        absent["weights, hidden layer, neurons, ablations, cosets, gradients"] = subject.reason
        return {"absent": absent, "clock": clock, "losses": {}}
    shares, rest = spectra.hidden_shares(group, hidden)
    clock["gradient_symmetricity"] = clocks.gradient_symmetricity(subject)
    neurons = spectra.neuron_irreps(group, hidden, parts)
    measured = {
        "tables": {
            name: spectra.table_shares(group, getattr(parts, name)).numpy()
            for name in ("left", "right", "unembed")
        },
        "hidden": {name: share.numpy() for name, share in shares.items()},
        "neurons": {name: values.numpy() for name, values in neurons.items()},
        "hidden_rest": rest,
        "chance_purity": spectra.chance_purity(group),
        "losses": losses.hidden_losses(subject, hidden, found.key, train=drawn.train, every=drawn.every),
        "ablations": losses.ablations(subject, found.key, every=drawn.every, seed=seed),
        "fourier": _fourier(subject, hidden),
        "cosets": {},
        "clock": clock,
    }
    if not with_cosets:
        absent["cosets"] = "not asked for"
    elif group.order > SUBGROUPS_UP_TO:
        absent["cosets"] = f"subgroups are listed up to order {SUBGROUPS_UP_TO}"
    elif all(subgroup.order in (1, group.order) for subgroup in group.subgroups()):
        absent["cosets"] = f"{group.name} has no subgroups but itself and the trivial one"
    else:
        measured["cosets"] = _cosets(subject, hidden, seed)
    return measured | {"absent": absent}


def _fourier(subject: Subject, hidden: HiddenTally) -> Mapping[str, Any]:
    if not fourier.is_cyclic(subject) or subject.parts is None:
        return {}
    left, right = spectra.responses(subject.parts, hidden)
    unembed = subject.parts.unembed
    out: dict[str, Any] = {"phases": {k: v.numpy() for k, v in fourier.phases(left, right, unembed).items()}}
    out["neurons"] = {k: v.numpy() for k, v in fourier.neuron_frequencies(subject).items()}
    for name in ("left", "right", "unembed"):
        power = fourier.fourier_powers(getattr(subject.parts, name))
        out[name] = power.numpy()
        out[f"{name}_gini"] = fourier.gini(power.sqrt())
    return out


def _cosets(subject: Subject, hidden: HiddenTally, seed: int) -> dict[str, np.ndarray]:
    if subject.parts is None:
        raise InputError(subject.reason)
    out = {}
    # a function of the left operand is constant on cosets Hg, of the right one on gH
    responses = spectra.responses(subject.parts, hidden)
    for operand, side, table in (("left", "right", responses[0]), ("right", "left", responses[1])):
        read = cosets.coset_reading(subject.group, table, side=side, seed=seed)
        for name in ("subgroup", "order", "explained", "best", "null"):
            out[f"{operand}_{name}"] = getattr(read, name).numpy()
    return out
