"""Where the irreps sit in the network: in its weight tables, in its hidden layer, in each neuron.

All shares are squared norms of projections onto the orthonormal functions that an irrep's matrix entries span; over
all irreps they fill every function on the group, so the shares of a table sum to 1.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality", section 4.2 (weights and hidden activations).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from circuits.groups.subject import Parts
from circuits.groups.tally import HiddenTally
from interp.toys import Group

__all__ = [
    "answer_projection",
    "chance_purity",
    "hidden_shares",
    "neuron_irreps",
    "responses",
    "table_powers",
    "table_shares",
]

DEAD = 1e-6
"""A neuron with less than this share of the largest neuron's variance counts as dead."""


def table_powers(group: Group, table: Float[Tensor, "element feature"]) -> Float64[Tensor, "irrep feature"]:
    """The squared norm of each column's projection onto each irrep's functions."""
    table = table.double()
    return torch.stack([(irrep.basis.T @ table).square().sum(0) for irrep in group.irreps()])


def table_shares(group: Group, table: Float[Tensor, "element feature"]) -> Float64[Tensor, " irrep"]:
    """The share of a table's squared norm in each irrep, not centred (the mean is the trivial irrep's). Sums to 1."""
    powers = table_powers(group, table).sum(1)
    return powers / powers.sum()


def answer_projection(group: Group, tally: HiddenTally, chosen: Tensor) -> Float64[Tensor, "answer neuron"]:
    """The part of the centred hidden layer in the functions rho(w(a, b)) of the chosen irreps, by answer.

    Where some answers are more frequent than others the functions are not orthonormal over pairs; the projection is
    then by least squares.
    """
    if not chosen.any():
        return torch.zeros_like(tally.by_answer)
    bases = [irrep.basis for irrep, take in zip(group.irreps(), chosen.tolist(), strict=True) if take]
    basis, counts = torch.cat(bases, 1), tally.counts
    if (counts == counts[0]).all():
        return basis @ (basis.T @ tally.by_answer) / counts[0]
    root = counts.sqrt()[:, None]
    # functions of the answers that occur; several may agree there, hence the cut
    inverse = torch.linalg.pinv(root * basis, rtol=1e-10)
    return basis @ (inverse @ (tally.by_answer / root.clip(min=1)))


def hidden_shares(group: Group, tally: HiddenTally) -> tuple[Mapping[str, Tensor], float]:
    """The share of the hidden layer's variance in each irrep's functions of a, of b and of w(a, b), and the rest.

    The three add up where the answers are equally frequent (the word ab); for other words functions of the answer may
    overlap with those of a or b, and the shares of the answer stand for themselves.
    """
    total, order = float(tally.variance.sum()), group.order
    shares: dict[str, Tensor] = {}
    for name, sums in (("a", tally.by_left), ("b", tally.by_right)):
        shares[name] = table_powers(group, sums).sum(1) / order / total
    only = torch.eye(len(group.irreps()), dtype=torch.bool)
    shares["ab"] = torch.stack(
        [(answer_projection(group, tally, one) * tally.by_answer).sum() / total for one in only]
    )
    return shares, 1 - float(sum(share.sum() for share in shares.values()))


def responses(parts: Parts, tally: HiddenTally) -> tuple[Tensor, Tensor]:
    """What each neuron gets from a and from b [element, neuron]: the weights themselves where neurons add two tables,
    else the mean activation for each a and each b."""
    if parts.additive:
        return parts.left.double(), parts.right.double()
    order = len(tally.by_left)
    return tally.by_left / order, tally.by_right / order


def neuron_irreps(group: Group, tally: HiddenTally, parts: Parts) -> dict[str, Tensor]:
    """Of each neuron: its irrep, how purely it belongs to it, and how it takes part.

    ``purity``: the share of its responses to a and to b (each about its mean) that lies in its irrep; nan for a dead
    neuron, :func:`chance_purity` for random responses. ``rank_one``: the share of
    the coefficient matrix of its irrep in its leading singular direction. ``read_out_share``: the share of its
    read-out, centred over answers, in that irrep. ``alive``: it varies at all.
    """
    left, right = responses(parts, tally)
    powers = table_powers(group, left) + table_powers(group, right)
    trivial = [irrep.label == "trivial" for irrep in group.irreps()].index(True)
    powers[trivial] = 0
    total = powers.sum(0)
    alive = (tally.variance > DEAD * tally.variance.max()) & (total > 0)
    best = powers.argmax(0)
    leading = torch.full_like(total, torch.nan)
    stronger = torch.where(left.norm(dim=0) >= right.norm(dim=0), left, right)
    for i, irrep in enumerate(group.irreps()):
        own = (alive & (best == i)).nonzero()[:, 0]
        coefficients = (stronger[:, own].T @ irrep.matrices.flatten(1)).view(-1, irrep.dim, irrep.dim)
        squares = torch.linalg.svdvals(coefficients).square()
        leading[own] = squares[:, 0] / squares.sum(1)
    unembed = parts.unembed.double()
    read = table_powers(group, unembed - unembed.mean(0))
    return {
        "irrep": best,
        "purity": torch.where(alive, powers.amax(0) / total.clip(min=1e-300), torch.nan),
        "alive": alive,
        "rank_one": leading,
        "variance_share": tally.variance / tally.variance.sum(),
        "read_out_share": read.gather(0, best[None])[0] / read.sum(0).clip(min=1e-300),
    }


def chance_purity(group: Group, *, n: int = 500) -> float:
    """The mean largest share of any irrep in two random functions together."""
    ranks = [irrep.rank for irrep in group.irreps() if irrep.label != "trivial"]
    if not ranks:
        return float("nan")
    generator = torch.Generator().manual_seed(0)
    squares = torch.randn(n, 2 * sum(ranks), dtype=torch.float64, generator=generator).square()
    shares = torch.stack([part.sum(1) for part in squares.split([2 * rank for rank in ranks], dim=1)], 1)
    return float((shares.amax(1) / shares.sum(1)).mean())
