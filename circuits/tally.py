"""Tally: means and variances over examples, gathered batch by batch in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from circuits.graph import Graph
from circuits.layout import Layout

__all__ = ["Tally"]


class Tally:
    """A running mean and sum of squared deviations of rows [example edge]."""

    def __init__(self, n_edges: int, *, keep: bool = False) -> None:
        self.n = 0
        self.mean = np.zeros(n_edges)
        self.squares = np.zeros(n_edges)
        self.rows: list[np.ndarray] | None = [] if keep else None

    def add(self, rows: Tensor) -> None:
        """Take in a batch."""
        batch = rows.detach().cpu().numpy()
        if self.rows is not None:
            self.rows.append(batch.copy())
        batch = batch.astype(np.float64)
        mean, m, n = batch.mean(0), len(batch), self.n + len(batch)
        self.squares += ((batch - mean) ** 2).sum(0) + (mean - self.mean) ** 2 * (self.n * m / n)
        self.mean += (mean - self.mean) * (m / n)
        self.n = n

    @property
    def variance(self) -> np.ndarray | None:
        """Unbiased; None for fewer than two examples."""
        return self.squares / (self.n - 1) if self.n > 1 else None

    @property
    def examples(self) -> np.ndarray | None:
        """[example edge] what was taken in, if it was kept."""
        return None if self.rows is None else np.concatenate(self.rows)

    def graph(
        self,
        layout: Layout,
        *,
        method: str,
        convention: str,
        provenance: Mapping[str, Any],
        by_position: np.ndarray | None = None,
    ) -> Graph:
        """The graph of what was gathered."""
        return Graph(
            by_position=by_position,
            layout=layout,
            scores=self.mean,
            variance=self.variance,
            examples=self.examples,
            n=self.n,
            method=method,
            convention=convention,
            provenance=provenance,
        )
