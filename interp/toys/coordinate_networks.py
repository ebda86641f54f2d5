"""One picture, two networks: a factored one written by hand, and a dense one trained to draw the same.

A coordinate network maps (y, x, r, 1) to a brightness. The factored one has one unit per thing in the picture, so that
one weight moves one thing; the dense one, trained on its output, draws the same with everything mixed into everything.
Maps of the units, sweeps of a weight and the participation ratio of the last hidden layer tell them apart.

References
----------
Kumar, Clune, Lehman and Stanley 2025, "Questioning representational optimism in deep learning: the fractured entangled
representation hypothesis" (their evidence is pictures of unit maps and weight sweeps; the ratio is added here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CoordinateNetwork",
    "Twins",
    "factored_face",
    "grid",
    "participation",
    "sweep_span",
    "train_twin",
    "unit_maps",
    "weight_sweep",
]


def grid(size: int = 32) -> Float[Tensor, "pixel coordinate"]:
    """The inputs of a picture of size x size: y and x in [-1, 1], 1.4 r, and 1."""
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([y, x, 1.4 * (x.square() + y.square()).sqrt(), torch.ones_like(x)], -1).view(-1, 4)


class Gaussian(nn.Module):
    """2 exp(-x^2) - 1, of the published picture networks."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (-x.square()).exp() - 1


class CoordinateNetwork(nn.Module):
    """Linear maps without bias, each followed by the Gaussian; the last one plain."""

    def __init__(
        self, *, width: int = 12, n_hidden: int = 2, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        sizes = [4] + [width] * n_hidden + [1]
        self.layers = nn.ModuleList(
            nn.Linear(d_in, d_out, bias=False) for d_in, d_out in zip(sizes, sizes[1:], strict=False)
        )
        self.acts = nn.ModuleList(Gaussian() for _ in range(n_hidden))
        with torch.no_grad():
            for layer in self.layers:
                weight = layer.get_parameter("weight")
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5)

    def forward(self, x: Float[Tensor, "pixel coordinate"]) -> Float[Tensor, " pixel"]:
        """Brightness."""
        for layer, act in zip(self.layers, self.acts, strict=False):
            x = act(layer(x))
        return self.layers[-1](x)[:, 0]


def factored_face(width: int = 12) -> CoordinateNetwork:
    """A head, two eyes and a mouth: each of them one unit of the second layer, made of its own units of the first."""
    module = CoordinateNetwork(width=width)
    if width < 8:
        raise InputError(f"the face takes 8 units a layer, got width {width}")
    first, second, last = (layer.get_parameter("weight") for layer in module.layers)
    with torch.no_grad():
        for weight in (first, second, last):
            weight.zero_()
        # first layer: bumps across one direction each; a unit without inputs is the constant 1
        first[0] = torch.tensor([0.0, 0.0, 1.1, 0.0])  # the head: a bump of r
        first[1] = torch.tensor([5.0, 0.0, 0.0, 1.5])  # a horizontal line above the middle: the eyes' height
        first[2] = torch.tensor([0.0, 5.0, 0.0, 1.75])  # a vertical line left
        first[3] = torch.tensor([0.0, 5.0, 0.0, -1.75])  # and right: the eyes' places
        first[4] = torch.tensor([6.0, 0.0, 0.0, -2.7])  # a horizontal line below: the mouth's height
        first[5] = torch.tensor([0.0, 2.2, 0.0, 0.0])  # the mouth's width
        # second layer: a unit is near 1 only where its inputs add up to 0 (bumps are 1 and -1 elsewhere)
        second[0, 0], second[0, 6] = 1.2, -1.2
        second[1, 1], second[1, 2], second[1, 6] = 0.9, 0.9, -1.8
        second[2, 1], second[2, 3], second[2, 6] = 0.9, 0.9, -1.8
        second[3, 4], second[3, 5], second[3, 6] = 0.9, 0.9, -1.8
        last[0, 0], last[0, 1], last[0, 2], last[0, 3] = 1.0, -0.6, -0.6, -0.5
    return module


@torch.no_grad()
def unit_maps(module: CoordinateNetwork, inputs: Float[Tensor, "pixel coordinate"]) -> list[Tensor]:
    """The activations [pixel, unit] of each hidden layer: what every unit draws."""
    maps, x = [], inputs
    for layer, act in zip(module.layers, module.acts, strict=False):
        x = act(layer(x))
        maps.append(x)
    return maps


@torch.no_grad()
def weight_sweep(
    module: CoordinateNetwork,
    inputs: Float[Tensor, "pixel coordinate"],
    *,
    layer: int,
    unit: int,
    source: int,
    offsets: Float[Tensor, " step"],
) -> Float[Tensor, "step pixel"]:
    """The picture with one weight moved by each offset; the network itself is left as it was.

    Raises
    ------
    InputError
        There is no such weight.
    """
    if not 0 <= layer < len(module.layers):
        raise InputError(f"layer {layer} of {len(module.layers)}")
    weight = module.layers[layer].get_parameter("weight")
    if not (0 <= unit < weight.shape[0] and 0 <= source < weight.shape[1]):
        raise InputError(f"layer {layer} has weights {list(weight.shape)}; [{unit}, {source}] is none")
    changed = weight.clone()
    pictures = []
    for offset in offsets:
        changed[unit, source] = weight[unit, source] + offset
        pictures.append(torch.func.functional_call(module, {f"layers.{layer}.weight": changed}, (inputs,)))
    return torch.stack(pictures)


def participation(activations: Float[Tensor, "pixel unit"]) -> float:
    """(sum of covariance eigenvalues)^2 over the sum of their squares: how many directions share the variance."""
    squares = torch.linalg.svdvals(activations.double() - activations.double().mean(0)).square()
    return float(squares.sum().square() / squares.square().sum())


def sweep_span(
    module: CoordinateNetwork, inputs: Float[Tensor, "pixel coordinate"], *, step: float = 0.3
) -> float:
    """How much of the picture one weight touches: over the weights in use of the last hidden layer, the mean
    participation of the pixels in the change, (sum of squares)^2 / sum of fourth powers, as a share of the picture."""
    plain = module(inputs).detach()
    weight = module.layers[-2].get_parameter("weight")
    used = (weight.detach().abs() > 1e-3).nonzero().tolist()
    spans = []
    for unit, source in used:
        moved = weight_sweep(
            module,
            inputs,
            layer=len(module.layers) - 2,
            unit=unit,
            source=source,
            offsets=torch.tensor([step]),
        )[0]
        change = (moved - plain).double().square()
        if change.sum() > 1e-12:
            spans.append(float(change.sum().square() / change.square().sum()) / len(inputs))
    return sum(spans) / len(spans)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Twins(Shown):
    """The factored network and the dense one that draws its picture."""

    factored: CoordinateNetwork
    dense: CoordinateNetwork
    error: float
    """Mean squared difference of the pictures over the picture's variance."""
    participation: dict[str, float]
    """Of the last hidden layer: ``factored``, ``dense``."""
    span: dict[str, float]
    """See :func:`sweep_span`."""

    def to_frame(self) -> pd.DataFrame:
        """A row per network: participation ratio and span."""
        import pandas as pd

        parts = {name: dict(getattr(self, name)) for name in ("participation", "span")}
        return pd.DataFrame(parts).rename_axis("network").reset_index()


def train_twin(
    *, seed: int = 0, width: int = 12, steps: int = 3000, lr: float = 1e-2, size: int = 32
) -> Twins:
    """Train a dense network of the same shape on the factored one's picture (full batch, Adam). Cost: seconds."""
    factored = factored_face(width)
    inputs = grid(size)
    target = factored(inputs).detach()
    dense = CoordinateNetwork(width=width, generator=torch.Generator().manual_seed(seed))
    optimiser = torch.optim.Adam(dense.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        (dense(inputs) - target).square().mean().backward()
        optimiser.step()
        schedule.step()
    pair = {"factored": factored, "dense": dense}
    return Twins(
        factored=factored,
        dense=dense.eval(),
        error=float((dense(inputs).detach() - target).square().mean() / target.var(unbiased=False)),
        participation={name: participation(unit_maps(module, inputs)[-1]) for name, module in pair.items()},
        span={name: sweep_span(module, inputs) for name, module in pair.items()},
    )
