"""Networks whose weights are written down, not trained: a truth for every measure to be tested on.

:func:`irrep_network` computes ``sum_rho chi_rho(a b c^-1)`` exactly; :func:`lookup_network` has memorised pairs and
knows nothing of the group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError
from interp.toys.groups import Group
from interp.toys.perceptron import Perceptron, PerceptronShape

__all__ = ["irrep_network", "lookup_network"]


def irrep_network(
    group: Group, labels: Sequence[str], *, weights: Sequence[float] | None = None
) -> Perceptron:
    """A perceptron whose logits are ``sum_rho weight_rho chi_rho(a b c^-1)`` for the chosen irreps.

    chi(a b c^-1) is the sum of rho_ij(a) rho_jk(b) rho_ik(c) over i, j, k; each product of the first two is
    ((x + y)^2 - (x - y)^2) / 4, so 2 d^3 square neurons do it. The similarity with each chosen irrep is
    ``weight sqrt(e)`` up to a common factor that makes the squares sum to 1.

    Raises
    ------
    InputError
        No irrep is chosen, a label is unknown, or there are not as many weights as labels.
    """
    weights = [1.0] * len(labels) if weights is None else list(weights)
    if not labels or len(weights) != len(labels):
        raise InputError(
            f"{len(labels)} irreps and {len(weights)} weights were given; give at least one of each"
        )
    irreps = [group.irrep(label) for label in labels]
    d_embed = sum(irrep.dim**2 for irrep in irreps)
    d_hidden = sum(2 * irrep.dim**3 for irrep in irreps)
    shape = PerceptronShape(order=group.order, d_embed=d_embed, d_hidden=d_hidden, activation="square")
    module = Perceptron(shape).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        entry = neuron = 0
        for irrep, weight in zip(irreps, weights, strict=True):
            d = irrep.dim
            flat = irrep.matrices.flatten(1)
            module.left.weight[:, entry : entry + d * d] = flat
            module.right.weight[:, entry : entry + d * d] = flat
            i, j, k = torch.cartesian_prod(torch.arange(d), torch.arange(d), torch.arange(d)).view(-1, 3).T
            for sign in (1.0, -1.0):
                row = torch.arange(neuron, neuron + d**3)
                module.mix.weight[row, entry + i * d + j] = 1.0
                module.mix.weight[row, d_embed + entry + j * d + k] = sign
                module.unembed.weight[:, row] = sign * weight / 4 * irrep.matrices[:, i, k]
                neuron += d**3
            entry += d * d
    return module.eval()


def lookup_network(
    group: Group, *, known: Int64[Tensor, " known"] | None = None, word: str = "ab"
) -> Perceptron:
    """A perceptron with one ReLU neuron for each pair (a, b), whose output is the answer: a table and nothing else.

    ``known`` are the pairs it has memorised, as ``a * order + b`` (all by default); it is silent on the others.
    """
    from interp.toys.train_group import pairs

    order = group.order
    _, answers = pairs(group, word)
    kept = torch.arange(order**2) if known is None else known
    module = Perceptron(PerceptronShape(order=order, d_embed=order, d_hidden=order**2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        eye, pair = torch.eye(order), torch.arange(order**2)
        # a0's neuron: 1 at a0 plus 0 at b0; one of them wrong gives at most 0
        module.left.weight.copy_(eye)
        module.right.weight.copy_(eye - 1)
        module.mix.weight[pair, pair // order] = 1.0
        module.mix.weight[pair, order + pair % order] = 1.0
        module.unembed.weight[answers[kept], kept] = 10.0
    return module.eval()
