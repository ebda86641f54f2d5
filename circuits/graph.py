"""Graph: a network's edges with what a method found out about them; every circuit method returns one.

Everything is an array over the edges of a :class:`~circuits.layout.Layout`. Read next: ``exchange.py`` (other tools'
formats), ``attribution.py`` (where scores come from).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from circuits.exchange import read_eap, write_eap, write_neuronpedia
from circuits.layout import GQA, Layout
from interp.errors import InputError, StoreError
from interp.runs.provenance import digest
from interp.showing import Shown, brief

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCHEMA", "Graph"]

SCHEMA = 1
"""Version of the file layout; a reader refuses a later one."""
_HEADER = "interp_circuit"
_ARRAYS = ("scores", "variance", "exact", "exact_variance", "chosen", "by_position", "examples")
By = Literal["abs", "signed"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph(Shown):
    """Edges of a network with scores, their spread over examples, and exact effects where they were measured."""

    layout: Layout
    scores: np.ndarray | None = None
    """[edge] mean over examples, in units of the metric."""
    variance: np.ndarray | None = None
    """[edge] unbiased variance over examples of one example's score."""
    exact: np.ndarray | None = None
    """[edge] mean change of the metric when the edge alone is patched; nan where it was not measured."""
    exact_variance: np.ndarray | None = None
    chosen: np.ndarray | None = None
    """[edge] whether it belongs to the circuit, where one was chosen."""
    by_position: np.ndarray | None = field(default=None, repr=False)
    """[position edge] the scores taken apart by where the term is read; they add up to the scores."""
    examples: np.ndarray | None = field(default=None, repr=False)
    """[example edge] every example's score, where they were kept."""
    n: int = 0
    """Examples behind the scores."""
    method: str = ""
    convention: str = ""
    """What a score is: sign, unit, selection."""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            array = getattr(self, name)
            if array is not None and array.shape[-1:] != (self.layout.n_edges,):
                raise InputError(
                    f"{name} has shape {list(array.shape)}; this network has {self.layout.n_edges} edges"
                )

    @classmethod
    def from_model(cls, model: Any, *, gqa: GQA = "ungrouped") -> Graph:
        """All edges of a model, without scores.

        ``gqa`` matters where query heads share keys and values: ``"ungrouped"`` counts as if each had its own,
        ``"grouped"`` counts the key/value heads there are.

        Raises
        ------
        ModelError
            The model's residual stream is no plain sum of what heads and MLPs write.
        """
        return cls(
            layout=Layout.of(model.anatomy, gqa=gqa),
            provenance={"model": model.name, "d_model": model.d_model},
        )

    # -- reading ------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes in forward order."""
        return self.layout.nodes

    @property
    def edges(self) -> list[str]:
        """Names of all edges, in the order of every array."""
        return self.layout.names

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return self.layout.n_edges

    def score(self, edge: str) -> float:
        """The score of one edge, by name."""
        return float(self.require_scores()[self.layout.edge(edge)])

    def require_scores(self) -> np.ndarray:
        """The scores; an InputError if there are none."""
        if self.scores is None:
            raise InputError(
                "this graph has no scores yet: circuits.attribute(model, task) gives one that has"
            )
        return self.scores

    @property
    def stderr(self) -> np.ndarray | None:
        """[edge] standard error of the scores."""
        return None if self.variance is None or self.n < 2 else np.sqrt(self.variance / self.n)

    def order(self, *, by: By = "abs") -> np.ndarray:
        """Edge numbers from the highest score down (``"abs"``: its size; ``"signed"``: see :meth:`worth`)."""
        return np.argsort(-self.worth(by=by), kind="stable")

    def worth(self, *, by: By = "abs") -> np.ndarray:
        """[edge] what a selection sorts by: the score's size, or minus the score.

        A score is the change that corrupting the edge makes, so an edge that helps has a negative one: ``"signed"``
        puts those first that corrupting hurts most.
        """
        if by not in ("abs", "signed"):
            raise InputError(f"by={by!r}; it is 'abs' or 'signed'")
        scores = self.require_scores()
        return np.abs(scores) if by == "abs" else -scores

    def at(self, position: int) -> Graph:
        """The graph of one position (negative from the end): every edge's part of the score that is read there."""
        if self.by_position is None:
            raise InputError("scores were not taken apart: attribute(..., positions=True)")
        n = len(self.by_position)
        if not -n <= position < n:
            raise InputError(f"position {position}: the prompts have {n}, 0-{n - 1}")
        return replace(
            self,
            scores=self.by_position[position],
            variance=None,
            examples=None,
            by_position=None,
            convention=f"{self.convention}; at position {position % n} only",
        )

    def node_scores(self) -> dict[str, float]:
        """First-order effect of patching every source as a whole: the sum of its edges' scores.

        For EAP this is attribution patching exactly: a gradient at a node's output is the sum of those at its readers.
        """
        total = np.bincount(
            self.layout.source, weights=self.require_scores(), minlength=len(self.layout.sources)
        )
        return dict(zip(self.layout.sources, total.tolist(), strict=True))

    # -- choosing -----------------------------------------------------------------------------------------

    def top(self, k: int, *, by: By = "abs", prune: bool = True) -> Graph:
        """The circuit of the ``k`` best edges, without its dangling parts."""
        if not 0 <= k <= self.n_edges:
            raise InputError(f"k={k}; there are {self.n_edges} edges")
        mask = np.zeros(self.n_edges, dtype=bool)
        mask[self.order(by=by)[:k]] = True
        return replace(self, chosen=self.layout.pruned(mask) if prune else mask)

    def threshold(self, least: float, *, by: By = "abs", prune: bool = True) -> Graph:
        """The circuit of all edges worth at least ``least``, without its dangling parts."""
        mask = self.worth(by=by) >= least
        return replace(self, chosen=self.layout.pruned(mask) if prune else mask)

    def greedy(self, k: int, *, by: By = "abs") -> Graph:
        """``k`` edges grown from the logits: always the best edge whose destination already leads there."""
        return replace(self, chosen=_grown(self.layout, self.worth(by=by), k))

    def circuit(self) -> list[str]:
        """Names of the chosen edges."""
        if self.chosen is None:
            raise InputError(
                "no circuit is chosen yet: graph.top(k), graph.threshold(t) or graph.greedy(k) choose one"
            )
        return [self.layout.name(int(edge)) for edge in np.flatnonzero(self.chosen)]

    def to_frame(self) -> pd.DataFrame:
        """A row per edge: source, destination, and every array there is."""
        import pandas as pd

        layout = self.layout
        columns: dict[str, Any] = {
            "edge": layout.names,
            "source": [layout.sources[s] for s in layout.source],
            "destination": [layout.destinations[d] for d in layout.destination],
        }
        for name in _ARRAYS[:-2]:
            if (array := getattr(self, name)) is not None:
                columns[name] = array
        return pd.DataFrame(columns)

    # -- files --------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write it to one safetensors file whose header holds layout, method and provenance as JSON."""
        from safetensors.numpy import save

        from interp.runs.files import write_bytes_atomic

        path = Path(path)
        arrays = {name: np.ascontiguousarray(a) for name in _ARRAYS if (a := getattr(self, name)) is not None}
        arrays["_"] = np.zeros(0, dtype=np.uint8)  # a file of no tensors would have no body
        header = {
            "schema": SCHEMA,
            "layout": self.layout.to_dict(),
            "n": self.n,
            "method": self.method,
            "convention": self.convention,
            "provenance": dict(self.provenance),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, save(arrays, metadata={_HEADER: json.dumps(header, allow_nan=False)}))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Read what :meth:`save` wrote.

        Raises
        ------
        StoreError
            The file is missing, torn, foreign, or of a later schema.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise StoreError(f"no circuit at {path}")
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                arrays = {name: file.get_tensor(name) for name in file.keys() if name != "_"}  # noqa: SIM118
            if header["schema"] != SCHEMA:
                raise StoreError(
                    f"{path} has circuit schema {header['schema']!r}; this version reads {SCHEMA}"
                )
            kept = {name: header[name] for name in ("n", "method", "convention", "provenance")}
            return cls(layout=Layout.from_dict(header["layout"]), **kept, **arrays)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path} is no circuit file of this toolkit, or it is torn: {error}") from error

    def to_eap_json(self, path: str | Path) -> Path:
        """Write the JSON of the EAP-IG package. See :mod:`circuits.exchange`."""
        return write_eap(self, path)

    @classmethod
    def from_eap_json(cls, path: str | Path) -> Graph:
        """Read the JSON of the EAP-IG package."""
        return cls(**read_eap(path))

    def to_neuronpedia(self, path: str | Path, *, prompt: str = "", tokens: tuple[str, ...] = ()) -> Path:
        """Write an attribution-graph JSON as Neuronpedia reads it: the chosen circuit."""
        return write_neuronpedia(self, path, prompt=prompt, tokens=tokens)

    def _facts(self) -> dict[str, Any]:
        said: dict[str, Any] = {"edges": self.n_edges, "nodes": len(self.nodes)}
        if self.scores is not None:
            said |= {"scored by": self.method or None, "n": self.n, "convention": self.convention}
        if self.exact is not None:
            said["measured exactly"] = int(np.isfinite(self.exact).sum())
        if self.chosen is not None:
            said["chosen"] = int(self.chosen.sum())
        return said | {"model": self.provenance.get("model"), "provenance": digest(self.provenance)}

    def _listing(self) -> pd.DataFrame | None:
        if self.scores is None:
            return None
        table = self.to_frame()
        kept = table if self.chosen is None else table[self.chosen]
        return kept.sort_values("scores", key=abs, ascending=False)

    def __repr__(self) -> str:
        said = [f"{self.n_edges} edges"]
        if self.scores is not None:
            said.append(f"scored by {brief(self.method or 'an unnamed method')} (n = {self.n})")
        if self.chosen is not None:
            said.append(f"{int(self.chosen.sum())} chosen")
        return f"Graph({', '.join(said)})"


def _grown(layout: Layout, worth: np.ndarray, k: int) -> np.ndarray:
    """Grow from the logits: a heap of the edges that enter what is already in the circuit."""
    import heapq

    enters: dict[int, list[int]] = {}
    for d, sources in enumerate(layout.feeds):
        for s in sources:
            enters.setdefault(s, []).append(d)
    chosen, opened = np.zeros(layout.n_edges, dtype=bool), {len(layout.destinations) - 1}
    heap: list[tuple[float, int]] = []

    def open_up(d: int) -> None:
        for edge in range(layout.offsets[d], layout.offsets[d + 1]):
            heapq.heappush(heap, (-worth[edge], edge))

    open_up(len(layout.destinations) - 1)
    while heap and chosen.sum() < k:
        _, edge = heapq.heappop(heap)
        chosen[edge] = True
        for d in enters.get(int(layout.source[edge]), ()):
            if d not in opened:
                opened.add(d)
                open_up(d)
    return chosen
