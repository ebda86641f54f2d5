"""Directions: a head's or an MLP's matrix taken apart into singular directions, each read through the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.atlas.weights import embedding, head_weights, mlp_output, parse_node, token_names, unembedding
from circuits.stream import Stream
from interp.errors import InputError
from interp.results import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Directions", "directions"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Directions(Result):
    """``value`` [direction]: the singular values, the largest first."""

    share: tuple[float, ...]
    """Of the matrix's squared norm."""
    reads: tuple[tuple[str, ...], ...]
    """[direction] the tokens whose embedding points most along what is read (none for an MLP)."""
    writes: tuple[tuple[str, ...], ...]
    """[direction] the tokens that what is written raises most."""
    lowers: tuple[tuple[str, ...], ...]
    """[direction] the tokens that it lowers most."""

    def table(self) -> pd.DataFrame:
        """A row per direction: singular value, share, tokens read, raised and lowered."""
        import pandas as pd

        columns = {
            "singular value": list(self.value),  # type: ignore[arg-type]
            "share": list(self.share),
            "reads": [", ".join(one) for one in self.reads],
            "raises": [", ".join(one) for one in self.writes],
            "lowers": [", ".join(one) for one in self.lowers],
        }
        return pd.DataFrame(columns)


def directions(model: Any, node: str, *, k: int = 8, n_tokens: int = 8) -> Directions:
    """The ``k`` largest singular directions of a head's W_OV (``"a1.h0"``) or an MLP's output matrix (``"m1"``).

    A singular vector has no sign of its own: each pair is turned so that the largest logit it moves is raised.

    Raises
    ------
    InputError
        No such node, or fewer directions than asked for.
    ModelError
        The model's stream is no plain sum.

    Notes
    -----
    Cost: no forward pass; the decomposition of a [d_head d_head] (or [d_mlp d_model]) matrix. The final norm's weight
    is folded in, its scale left out.

    References
    ----------
    Millidge and Black 2022, "The singular value decompositions of transformer weight matrices are highly
    interpretable".
    """
    stream = Stream(model)
    layer, head = parse_node(stream, node)
    out = unembedding(stream)
    if head is None:
        left, values, right = torch.linalg.svd(mlp_output(stream, layer), full_matrices=False)
        read: Tensor | None = None
    else:
        w = head_weights(stream, layer)
        q_in, r_in = torch.linalg.qr(w["v"][head])
        q_out, r_out = torch.linalg.qr(w["o"][head].T)
        left, values, right = torch.linalg.svd(r_in @ r_out.T)
        left, right = q_in @ left, right @ q_out.T
        read = embedding(stream) @ left[:, :k]
    if not 0 < k <= len(values):
        raise InputError(f"k={k}; {node} has {len(values)} singular directions")
    moved = right[:k] @ out
    sign = torch.where(moved.amax(1) >= -moved.amin(1), 1.0, -1.0).to(moved)
    moved = moved * sign[:, None]

    def names(scores: Tensor) -> tuple[tuple[str, ...], ...]:
        best = scores.topk(min(n_tokens, scores.shape[1]), dim=1).indices
        return tuple(tuple(token_names(model, row)) for row in best)

    squared = values.square() / values.square().sum()
    return Directions(
        name=f"singular directions of {node}",
        value=values[:k].cpu().numpy(),
        n=1,
        convention="singular values of W_V W_O with the norm in front folded in"
        if head is not None
        else "singular values of the MLP's output matrix",
        axes=("direction",),
        ticks=(tuple(map(str, range(k))),),
        provenance={"model": model.name, "node": node, "uncertainty": "none: a function of the weights"},
        share=tuple(squared[:k].tolist()),
        reads=tuple(() for _ in range(k)) if read is None else names((read * sign).T),
        writes=names(moved),
        lowers=names(-moved),
    )
