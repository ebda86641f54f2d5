"""Clock or pizza, margins, uniformity: what the logits and gradients say about the kind of algorithm.

References
----------
Zhong et al. 2023, "The Clock and the Pizza", section 3 (gradient symmetricity, distance irrelevance). Morwani et al.
2023, "Feature emergence via margin maximization", theorem 7 (the largest margin).
"""

from __future__ import annotations

import random

import torch

from circuits.groups.fourier import is_cyclic
from circuits.groups.subject import PerceptronParts, Subject, TransformerParts
from circuits.groups.tally import LogitTally
from interp.errors import InputError
from interp.toys.perceptron import Square

__all__ = ["distance_irrelevance", "gradient_symmetricity", "margins", "normalised_margin"]


def distance_irrelevance(tally: LogitTally) -> float:
    """For a cyclic group: how much the right answer's logit varies while a - b is fixed, as a share of all it varies.

    The mean over differences d of std over sums s of L[s, d], over std(L). About 0: the logit follows a - b alone
    (pizza); near 1: it does not depend on a - b (clock). nan where the logit does not vary at all.
    """
    n = len(tally.correct)
    row = torch.arange(n)
    by_difference = tally.correct[row[None], (row[None] - row[:, None]) % n]  # [d, a] with b = a - d
    spread = tally.correct.std(unbiased=False)
    if spread <= 1e-9 * tally.correct.abs().max():
        return float("nan")
    return float(by_difference.std(1, unbiased=False).mean() / spread)


def gradient_symmetricity(subject: Subject, *, n: int = 100, seed: int = 42) -> float:
    """The mean cosine between the gradients of a logit by the two operands' embeddings, over random (a, b, c).

    1: the network sees only their sum (pizza); far below: it treats them differently (clock). The triples are those of
    Python's ``random.Random(42)``, as published. A perceptron has two embeddings, so its value is no such contrast: two
    unrelated tables give about 0.

    Raises
    ------
    InputError
        The network's parts are unknown.
    """
    parts, order = subject.parts, subject.group.order
    draw = random.Random(seed)
    triples = torch.tensor([[draw.randrange(order) for _ in range(3)] for _ in range(n)])
    a, b, c = triples.T
    if isinstance(parts, PerceptronParts):
        (left, from_left), (right, from_right) = parts.embeddings
        x, y = left[a].clone().requires_grad_(), right[b].clone().requires_grad_()
        logits = parts.act(x @ from_left.T + y @ from_right.T) @ parts.unembed.T
    elif isinstance(parts, TransformerParts):
        module = parts.module
        x, y = (module.embed.weight.detach()[i].clone().requires_grad_() for i in (a, b))
        equals = module.embed.weight.detach()[torch.full_like(a, order)]
        stream = torch.stack([x, y, equals], 1)
        if module.pos_embed is not None:
            stream = stream + module.pos_embed.weight.detach()[:3]
        for block in module.blocks:
            stream = block(stream)
        logits = module.unembed(stream[:, -1])
    else:
        raise InputError(subject.reason)
    wanted = logits.gather(1, c[:, None]).sum()
    first, second = torch.autograd.grad(wanted, (x, y))
    return float(torch.cosine_similarity(first.double(), second.double(), dim=1).mean())


def margins(tally: LogitTally) -> dict[str, float]:
    """The right answer's lead: its least, mean and spread over pairs, and how uniform the logits are.

    ``uniformity``: 1 - std / mean of the margin over pairs; a network of maximal margin has the same at each pair.
    ``wrong_spread``: the root mean square of the wrong logits about their mean, over the mean gap to the right one;
    0 where every wrong answer is equally wrong.
    """
    margin = tally.margin
    mean = float(margin.mean())
    n = len(margin)
    gap = float(tally.mean_wrong_gap.mean())
    wrong = (max(tally.scatter, 0.0) / (n * n * max(n - 1, 1))) ** 0.5
    return {
        "least": float(margin.min()),
        "mean": mean,
        "std": float(margin.std(unbiased=False)),
        "uniformity": 1 - float(margin.std(unbiased=False)) / mean if mean else float("nan"),
        "wrong_spread": wrong / gap if gap else float("nan"),
    }


def normalised_margin(subject: Subject, tally: LogitTally) -> dict[str, float]:
    """For a perceptron with square activation: the least margin at unit L(2,3) norm, and the largest there can be.

    The norm is (sum over neurons of ||(u, v, w)||^3)^(1/3) with u, v, w a neuron's columns in the tables of left and
    right operand and answer, each neuron rescaled to its least (the function is the same for s u, s v, w / s^2); the
    margin is divided by its cube. For a cyclic group of odd order n the largest is sqrt(2/27) / (sqrt(n) (n - 1)),
    reached by neurons of one frequency each, cosines whose phases add up, all frequencies alike. Empty for any other
    network; without ``largest`` for any other group.

    References
    ----------
    Morwani et al. 2023, theorem 7.
    """
    parts, n = subject.parts, subject.group.order
    if not isinstance(parts, PerceptronParts) or not isinstance(parts.act, Square):
        return {}
    inner = parts.left.double().square().sum(0) + parts.right.double().square().sum(0)
    outer = parts.unembed.double().square().sum(0)
    # min over t = s^2 of t p + q / t^2 is at t^3 = 2 q / p: 3 (p / 2)^(2/3) q^(1/3)
    cubed = float((3 * (inner / 2) ** (2 / 3) * outer ** (1 / 3)).pow(1.5).sum())
    if cubed == 0:
        return {}
    out = {"normalised": float(tally.margin.min()) / cubed}
    if is_cyclic(subject) and n % 2 and n > 1:
        out["largest"] = (2 / 27) ** 0.5 / (n**0.5 * (n - 1))
    return out
