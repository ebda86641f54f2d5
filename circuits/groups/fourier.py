"""The Fourier view of networks on cyclic groups: frequencies, sparsity, phases.

References
----------
Nanda et al. 2023, "Progress measures for grokking" (neuron frequencies, Gini coefficient). Morwani et al. 2023,
"Feature emergence via margin maximization" (phases: the read-out's is the sum of the operands').
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from circuits.groups.subject import Subject
from interp.errors import InputError

__all__ = ["fourier_powers", "gini", "is_cyclic", "neuron_frequencies", "phases"]


def is_cyclic(subject: Subject) -> bool:
    """Whether the elements are exponents added modulo the order."""
    row = torch.arange(subject.group.order)
    return torch.equal(subject.group.table, (row[:, None] + row) % subject.group.order)


def fourier_powers(table: Float[Tensor, "element feature"]) -> Float64[Tensor, " frequency"]:
    """The squared norm of a table at each frequency 1 .. n // 2, cosine and sine together, the sum over features."""
    n = len(table)
    power = torch.fft.rfft(table.double(), dim=0, norm="ortho").abs().square().sum(1)[1:]
    power[: (n - 1) // 2] *= 2  # frequencies k and n - k
    return power


def gini(values: Float64[Tensor, " item"]) -> float:
    """The Gini coefficient: 0 when all are equal, 1 - 1/n when one holds everything."""
    x = values.sort().values
    n, total = len(x), float(x.sum())
    if total <= 0:
        raise InputError("the Gini coefficient of nothing: no value is positive")
    return float((2 * torch.arange(1, n + 1, dtype=x.dtype) - n - 1) @ x) / (n * total)


@torch.no_grad()
def neuron_frequencies(subject: Subject) -> dict[str, Tensor]:
    """Each neuron's frequency, and the share of its variance over pairs in the eight terms of that frequency.

    The terms are cos and sin of k a, k b, k (a + b) and k (a - b): linear and quadratic. All frequencies up to n // 2
    compete. Cost: one two-dimensional Fourier transform per neuron.
    """
    parts, n = subject.parts, subject.group.order
    if parts is None:
        raise InputError(subject.reason)
    a, b = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    hidden = parts.hidden(a, b)
    shares = []
    for column in hidden.T.split(32):
        grid = column.double().view(-1, n, n)
        power = torch.fft.fft2(grid).abs().square()
        power[:, 0, 0] = 0
        k = torch.arange(1, n // 2 + 1)
        # of every frequency the distinct cells among (+-k, 0), (0, +-k), (+-k, +-k)
        cells = torch.zeros(len(k), n, n, dtype=torch.float64)
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)):
            cells[torch.arange(len(k)), (x * k) % n, (y * k) % n] = 1
        shares.append(power.flatten(1) @ cells.flatten(1).T / power.sum((1, 2))[:, None].clip(min=1e-300))
    share = torch.cat(shares)
    return {"frequency": share.argmax(1) + 1, "share": share.amax(1)}


def phases(
    left: Float[Tensor, "element neuron"],
    right: Float[Tensor, "element neuron"],
    unembed: Float[Tensor, "element neuron"],
) -> dict[str, Tensor]:
    """Each neuron's phases at its frequency, and by how much the read-out's misses the sum of the operands'.

    A table column is about cos(2 pi k a / n + phase); ``error`` = left + right - read-out, in (-pi, pi].
    """
    spectra = [torch.fft.rfft(t.double(), dim=0)[1:] for t in (left, right, unembed)]
    k = (spectra[0].abs().square() + spectra[1].abs().square()).argmax(0)
    angles = [spectrum.gather(0, k[None])[0].angle() for spectrum in spectra]
    error = torch.remainder(angles[0] + angles[1] - angles[2] + torch.pi, 2 * torch.pi) - torch.pi
    return {"frequency": k + 1, "left": angles[0], "right": angles[1], "unembed": angles[2], "error": error}
