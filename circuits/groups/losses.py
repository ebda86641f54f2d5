"""Does the network compute as said? Losses with the algorithm's part taken out, or with it alone; ablations.

References
----------
Nanda et al. 2023, "Progress measures for grokking", section 5 (excluded and restricted loss). Chughtai, Chan and Nanda
2023, section 4.3 (the same with rho(ab) in the hidden layer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from circuits.groups.spectra import answer_projection
from circuits.groups.subject import BLOCK, Subject
from circuits.groups.tally import HiddenTally, LogitTally
from interp.errors import InputError
from interp.toys import Group

__all__ = ["ablations", "hidden_losses", "logit_losses", "projector", "sampled"]


def projector(group: Group, chosen: Tensor) -> Tensor:
    """The [element, element] projection onto the functions of the chosen irreps."""
    out = torch.zeros(group.order, group.order, dtype=torch.float64)
    for irrep, take in zip(group.irreps(), chosen.tolist(), strict=True):
        if take:
            out += irrep.basis @ irrep.basis.T
    return out


def _cross_entropy(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Loss in nats and whether right, per row."""
    right = logits.gather(1, answer[:, None])[:, 0]
    return logits.logsumexp(1) - right, logits.argmax(1) == answer


def scored(
    subject: Subject, logits: Callable[[Tensor, Tensor, Tensor], Tensor], rows: Int64[Tensor, " row"]
) -> dict[str, float]:
    """Mean loss (nats) and accuracy of ``logits(a, b, answer)`` over the pairs numbered ``rows``."""
    order, losses, rights = subject.group.order, [], []
    for block in rows.split(max(1, BLOCK // order)):
        a, b = block // order, block % order
        answer = subject.answers[a, b]
        with torch.no_grad():
            loss, right = _cross_entropy(logits(a, b, answer).double(), answer)
        losses.append(loss)
        rights.append(right.double())
    return {"loss": float(torch.cat(losses).mean()), "accuracy": float(torch.cat(rights).mean())}


def sampled(rows: Tensor, *, at_most: int, seed: int) -> Tensor:
    """``rows``, or so many of them drawn at random."""
    if len(rows) <= at_most:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:at_most]]


def hidden_losses(
    subject: Subject, tally: HiddenTally, key: Tensor, *, train: Tensor, every: Tensor
) -> dict[str, float]:
    """Excluded loss: the key irreps' rho(w(a, b)) taken out of the hidden layer, on training pairs.
    Restricted loss: they alone, on all pairs (``train`` and ``every`` number them)."""
    parts = subject.parts
    if parts is None:
        raise InputError(subject.reason)
    dtype = parts.unembed.dtype
    table = answer_projection(subject.group, tally, key).to(dtype)

    def excluded(a: Tensor, b: Tensor, answer: Tensor) -> Tensor:
        return parts.read_out(parts.hidden(a, b) - table[answer], a, b)

    def restricted(a: Tensor, b: Tensor, answer: Tensor) -> Tensor:
        return parts.read_out(table[answer], a, b)

    return {
        "excluded": scored(subject, excluded, train)["loss"],
        "restricted": scored(subject, restricted, every)["loss"],
    }


def logit_losses(subject: Subject, tally: LogitTally, key: Tensor, *, train: Tensor) -> dict[str, float]:
    """The same in the logits of any callable: the key irreps' functions of w(a, b), times any function of c.

    The restricted (for cyclic groups: trig) loss adds the logits' mean over pairs back, as published.
    """
    group = subject.group
    counts = subject.answers.flatten().bincount(minlength=group.order).double()
    # mean logits by answer, weighted back to the projection over pairs
    basis_projector = projector(group, key)
    mean = tally.by_answer / counts.clip(min=1)[:, None]
    table = basis_projector @ mean

    def excluded(a: Tensor, b: Tensor, answer: Tensor) -> Tensor:
        return subject.logits_of(a, b) - table[answer]

    shown = counts > 0
    every = torch.arange(group.order)
    loss, _ = _cross_entropy(table + (tally.column_mean - tally.column_mean.mean()), every)
    return {
        "excluded_logits": scored(subject, excluded, train)["loss"],
        "restricted_logits": float((loss * counts)[shown].sum() / counts.sum()),
    }


def ablations(
    subject: Subject, key: Tensor, *, every: Tensor, seed: int = 0
) -> Mapping[str, Mapping[str, float]]:
    """Loss and accuracy with irreps projected out of the weight tables: the algorithm's confirmation.

    ``only key``: tables keep the key irreps and their mean; ``without key``: they lose them; ``without others``: as
    many dimensions of other irreps are lost instead, the control (or all of them, where there are fewer).
    """
    parts, group = subject.parts, subject.group
    if parts is None:
        raise InputError(subject.reason)
    trivial = torch.tensor([irrep.label == "trivial" for irrep in group.irreps()])
    eye = torch.eye(group.order, dtype=torch.float64)
    ranks = torch.tensor([irrep.rank for irrep in group.irreps()])
    others = (~key & ~trivial).nonzero()[:, 0]
    order = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))]
    control = torch.zeros_like(key)
    for i in order.tolist():
        if int(ranks[control].sum()) >= int(ranks[key].sum()):
            break
        control[i] = True
    kept = projector(group, key | trivial)
    cases = {
        "whole": (eye, eye),
        "only key": (kept, kept),
        "without key": (eye - projector(group, key), eye),
        "without others": (eye - projector(group, control), eye),
    }
    out = {}
    for name, (operands, answers) in cases.items():
        logits = parts.projected(operands, answers)
        out[name] = scored(subject, lambda a, b, answer, logits=logits: logits(a, b), every)
    return out
