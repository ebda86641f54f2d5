"""Composition: which heads are wired to read what which earlier heads write, by their weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.atlas.weights import head_weights
from circuits.stream import Stream
from interp.errors import InputError
from interp.results import Result

__all__ = ["Composition", "composition"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Composition(Result):
    """``value`` [port, writer, reader]; nan where the writer does not come before the reader."""

    def strongest(self, port: str, k: int = 5) -> list[tuple[str, str, float]]:
        """The ``k`` pairs (writer, reader, score) that compose most through ``"q"``, ``"k"`` or ``"v"``."""
        if port not in self.ticks[0]:
            raise InputError(f"no port {port!r}; there are q, k, v")
        grid = np.asarray(self.value)[self.ticks[0].index(port)]
        order = np.argsort(-np.nan_to_num(grid, nan=-1.0), axis=None)[:k]
        pairs = [np.unravel_index(i, grid.shape) for i in order]
        return [(self.ticks[1][a], self.ticks[2][b], float(grid[a, b])) for a, b in pairs]


def composition(model: Any) -> Composition:
    r"""How much of what a head writes a later head's queries, keys or values read, relative to their sizes.

    For a writer's W_OV = W_V W_O and a reader's M (W_QK = W_Q W_K^T for queries, its transpose for keys, W_OV for
    values): ||W_OV M||_F / (||W_OV||_F ||M||_F). ``chance`` is 1/sqrt(d_model), what matrices with independent Gaussian
    factors give: E||ABCD||^2 = d r d r d against (d r d)^2.

    Raises
    ------
    ModelError
        The model's stream is no plain sum, or has no heads.

    Notes
    -----
    Cost: no forward pass. Norms' weights are folded in, their scales left out. Two heads' matrices of rank d_head are
    never multiplied as a whole: only their [d_head d_head] factors are.

    References
    ----------
    Elhage et al. 2021, "A mathematical framework for transformer circuits", "Composition".
    """
    stream = Stream(model)
    layers = [layer for layer, part in enumerate(stream.parts) if part.n_heads]
    names = [f"a{layer}.h{head}" for layer in layers for head in range(stream.parts[layer].n_heads)]
    depth = np.array([layer for layer in layers for _ in range(stream.parts[layer].n_heads)])
    left: list[Tensor] = []
    right: dict[str, list[Tensor]] = {"q": [], "k": [], "v": []}
    for layer in layers:
        w = head_weights(stream, layer)
        left.append(_short(w["v"]) @ w["o"])  # [head r d]: |W_OV M| = |left M|
        for port, (first, second) in {"q": ("q", "k"), "k": ("k", "q")}.items():
            right[port].append(w[first] @ _short(w[second]).transpose(1, 2))  # [head d r]: |X M| = |X right|
        right["v"].append(w["v"] @ _short(w["o"].transpose(1, 2)).transpose(1, 2))
    writers = torch.cat(left)
    value = np.full((3, len(names), len(names)), np.nan)
    before = depth[:, None] < depth[None, :]
    for i, port in enumerate("qkv"):
        readers = torch.cat(right[port])
        sizes = writers.flatten(1).norm(dim=1)[:, None] * readers.flatten(1).norm(dim=1)[None, :]
        met = torch.stack([(writers @ reader).flatten(1).norm(dim=1) for reader in readers], dim=1)
        value[i] = np.where(before, (met / sizes).cpu().numpy(), np.nan)
    return Composition(
        name="composition",
        value=value,
        n=1,
        convention="Frobenius norm of the product over the product of the norms; norms' weights folded in",
        chance=model.d_model**-0.5,
        axes=("port", "writer", "reader"),
        ticks=(("q", "k", "v"), tuple(names), tuple(names)),
        provenance={"model": model.name, "uncertainty": "none: a function of the weights"},
    )


def _short(factor: Tensor) -> Tensor:
    """R [head r r] of each factor [head d r] = Q R: the same norm in front of anything, without the long side."""
    return torch.linalg.qr(factor, mode="r").R
