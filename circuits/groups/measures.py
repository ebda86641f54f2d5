"""Every measure of a group network in one Result, as a table or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.results import Result
from interp.showing import brief

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["Measures"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures(Result):
    """What was measured. ``value`` is the logit similarity of each irrep, ``chance`` a lookup table's.

    What could not be measured is missing from its mapping and has its reason in :attr:`absent`.
    """

    group: str
    word: str
    irreps: tuple[str, ...]
    dims: np.ndarray
    kinds: tuple[str, ...]
    key: tuple[str, ...]
    """The irreps that the network uses, by :attr:`rule`."""
    rule: str
    null_sd: np.ndarray
    logits: Mapping[str, float]
    """Shares of the centred logits' variance: ``explained`` (irreps), ``key`` (key irreps), ``other_symmetric``
    (depends on w c^-1 alone but is no sum of characters), ``residual``."""
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Share of each weight table's squared norm in each irrep: ``left``, ``right``, ``unembed``; each sums to 1."""
    hidden: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Share of the hidden layer's variance in each irrep's functions of ``a``, ``b`` and the answer ``ab``."""
    hidden_rest: float | None = None
    """Share of the hidden layer's variance in no function of a, b or the answer alone."""
    neurons: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per neuron: ``irrep`` (its number), ``purity``, ``rank_one``, ``read_out_share``, ``variance_share``,
    ``alive``."""
    chance_purity: float | None = None
    """The purity of random responses."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Nats: ``all``, ``train``, ``test``, ``excluded`` and ``restricted`` in the hidden layer, and in the logits."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    ablations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fourier: Mapping[str, Any] = field(default_factory=dict)
    cosets: Mapping[str, np.ndarray] = field(default_factory=dict)
    clock: Mapping[str, float] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    triples: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Shares of the logits' variance by the irreps of a, b and answer, and where the word allows them."""
    inside: float | None = None
    """The share of the logits' variance in triples that the word allows."""
    absent: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """CPU time of the analysis."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({brief(self.group)}, {brief(self.word)}: key irreps {brief(self.key)}; "
            f"{self.logits['explained']:.1%} of the logits' variance in irreps, "
            f"residual {self.logits['residual']:.1%}; accuracy {self.accuracy['all']:.2%})"
        )

    def to_frame(self) -> pd.DataFrame:
        """A row per irrep: dimension, type, similarity, what a lookup table would have, shares of tables and hidden."""
        import pandas as pd

        columns: dict[str, Any] = {
            "irrep": list(self.irreps),
            "dim": self.dims,
            "type": list(self.kinds),
            "similarity": self.value,
            "lookup": self.chance,
            "null_sd": self.null_sd,
            "key": [label in self.key for label in self.irreps],
        }
        columns |= {f"{name}_share": share for name, share in self.tables.items()}
        columns |= {f"hidden_{name}": share for name, share in self.hidden.items()}
        return pd.DataFrame(columns)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON types; numbers that JSON lacks become None."""
        from interp.report.content import plain

        record = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        return {"schema": "circuits.groups/1", **record}
